"""A pytest process that has collected its tests once, and forks to run some of them with a changed file.

``Forks`` starts it. With ``-p tests.campaigns.forks`` pytest takes jobs from a socket instead of running what it
collected. The fork puts the change into the functions that are loaded already; a module that is not loaded yet, and
the processes that tests start, read it from the disk.
"""

from __future__ import annotations

import gc
import inspect
import json
import os
import signal
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType
from typing import TextIO

import pytest

NO_BYTECODE = "campaign"
"""Stored modules are told apart by their size and second only, so two changes of one file could be confused."""

_SOCKET = "FORKS_SOCKET"
_EXIT_CODE = pytest.StashKey[int]()

Key = tuple[str, int]
"""A function's qualified name and its first line."""


def changed_functions(before: str, after: str, path: str) -> dict[Key, CodeType]:
    """Return the new code of the functions that differ between two sources of a file.

    Raises ValueError if code differs that runs as the module is imported: that needs a new process.
    """
    old, new = (compile(source, path, "exec", dont_inherit=True) for source in (before, after))
    if _without_functions(old) != _without_functions(new):
        raise ValueError("the module differs outside of its functions")
    found: dict[Key, CodeType] = {}
    numbers = set[Key]()
    for one, other in _pairs(old, new):
        key = one.co_qualname, one.co_firstlineno
        if one.co_name != "<lambda>" and one.co_name.startswith("<"):
            continue  # a comprehension: it comes with the function around it
        if key in numbers or one.co_freevars != other.co_freevars:
            raise ValueError(f"the code of {one.co_qualname} can't be exchanged")
        numbers.add(key)
        if one != other:
            found[key] = other
    return found


def is_in_functions(before: bytes, after: bytes) -> bool:
    """Return True if a change is one of functions only, so that a fork can make it."""
    try:
        return bool(changed_functions(before.decode(), after.decode(), ""))
    except ValueError:
        return False


def _without_functions(code: CodeType) -> CodeType:
    constants = (None if _is_function(each) else each for each in code.co_consts)
    inner = tuple(_without_functions(each) if isinstance(each, CodeType) else each for each in constants)
    return code.replace(co_consts=inner, co_linetable=b"")


def _is_function(constant: object) -> bool:
    return isinstance(constant, CodeType) and bool(constant.co_flags & inspect.CO_OPTIMIZED)


def _pairs(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    inner = ([each for each in code.co_consts if isinstance(each, CodeType)] for code in (old, new))
    for one, other in zip(*inner, strict=True):  # ValueError: a lambda is dropped, for example
        if _is_function(one):
            yield one, other
        yield from _pairs(one, other)


class Forks:
    """A pytest process that runs tests in forks of itself."""

    def __init__(self, python: Path, arguments: Iterable[str], cwd: Path, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        environment = {**environment, "PYTHONDONTWRITEBYTECODE": NO_BYTECODE, _SOCKET: str(theirs.fileno())}
        with theirs, (cwd / "collected.txt").open("w") as output:
            self._process = subprocess.Popen(
                [python, "-m", "pytest", "-p", "tests.campaigns.forks", "-n", "0", *arguments],
                cwd=cwd, env=environment, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=output, start_new_session=True,
            )  # fmt: skip
        self._socket, self._lines = ours, ours.makefile("rw")
        if not (first := self._lines.readline()):
            self.close()
            raise RuntimeError((cwd / "collected.txt").read_text())  # pytest says what it could not collect
        self.tests: frozenset[str] = frozenset(json.loads(first))

    def run(self, tests: Sequence[str], path: Path, before: str, seconds: float) -> int:
        """Run tests until one fails, with what ``path`` contains now instead of ``before``; return the exit code.

        A run that takes longer than ``seconds`` is killed, and -9 returned.
        """
        _answer(self._lines, json.dumps([tests, str(path), before]))
        pid = int(self._lines.readline())
        timer = threading.Timer(seconds, kill_group, [pid])
        timer.start()
        try:
            return int(self._lines.readline())
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process."""
        self._lines.close()
        self._socket.close()
        self._process.wait()


def kill_group(group: int) -> None:
    """Kill the processes of a group."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Take jobs until the campaign ends. Return None in a fork: pytest goes on and runs the tests of its job."""
    with socket.socket(fileno=int(os.environ.pop(_SOCKET))) as connection, connection.makefile("rw") as lines:
        connection.set_inheritable(False)
        items = {item.nodeid: item for item in session.items}
        loaded = _functions()
        gc.freeze()  # a collection in a fork would copy the memory that it shares
        _answer(lines, json.dumps(list(items)))
        for line in lines:
            tests, path, before = json.loads(line)
            if threading.active_count() > 1:
                raise RuntimeError(f"only one of these threads would be in a fork: {threading.enumerate()}")
            if not (pid := os.fork()):
                os.setpgid(0, 0)
                code = changed_functions(before, Path(path).read_text("utf-8"), path)
                for function in loaded.get(path, ()):
                    key = function.__code__.co_qualname, function.__code__.co_firstlineno
                    function.__code__ = code.get(key, function.__code__)
                session.items[:] = [items[test] for test in tests]
                session.testsfailed, session.config.option.maxfail = (
                    0,
                    1,
                )  # not those of the collection
                return None
            with suppress(OSError):
                os.setpgid(pid, pid)  # both set it: either may be the first to run
            _answer(lines, str(pid))
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # until it is reaped no other process gets its id
            kill_group(pid)  # the servers that its tests left
            _answer(lines, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    return True


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End a fork here: it would copy all that it shares with the process, only to free it."""
    if (code := config.stash.get(_EXIT_CODE, None)) is not None:
        os._exit(code)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the exit code."""
    session.config.stash[_EXIT_CODE] = exitstatus


def _functions() -> Mapping[str, Sequence[FunctionType]]:
    """Return every function in memory by its file, methods and closures too."""
    gc.unfreeze()  # the collector does not list what is frozen, and tests/conftest.py freezes all
    gc.collect()
    functions = defaultdict[str, list[FunctionType]](list)
    for each in gc.get_objects():
        if type(each) is FunctionType:
            functions[each.__code__.co_filename].append(each)
    return functions


def _answer(lines: TextIO, text: str) -> None:
    lines.write(f"{text}\n")
    lines.flush()
