"""Checks of what a call does beside its request: it blocks nothing, changes nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import re
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch

from impasto import Account, Call, Request, Result
from impasto.testing.golden import without_boundary
from impasto.testing.places import on_disk
from impasto.testing.recorder import RecordedRequest
from impasto.testing.subject import Scenario, call_outcome
from impasto.testing.watch import blocking_calls, check, run

from .exchange import ExchangeChecks
from .stream import read_stream
from .wire import describe_outcome

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_MOST_DESCRIPTORS = 1_024
_LATER = 100_000.0
"""Seconds by which the clock is put forward between two equal calls."""


class IsolationChecks(ExchangeChecks):
    """Checks of side effects."""

    @check
    def test_no_hook_reads_the_disk_or_waits(self) -> None:
        """Check that nothing on the loop's thread opens a file, looks up a host, connects, sleeps or starts a process.

        Files are passed as paths.
        """
        with self._files_on_disk() as calls:
            run(self._watch_calls(calls))

    @check
    def test_equal_calls_send_equal_requests(self) -> None:
        """Check that a request depends on its parameters alone: not on earlier calls, their order or the time."""
        run(self._equal_calls())

    @check
    def test_no_hook_changes_its_request_or_account(self) -> None:
        """Check that parameters, constants, headers and settings are after a call what they were before."""
        before, after = run(self._request_and_account())
        changed = [name for name in before if before[name] != after[name]]
        assert not changed, f"a hook changed the call's {', '.join(changed)}: other calls and retries share them"

    @check
    def test_a_call_leaves_nothing_behind(self) -> None:
        """Check tasks, threads and open files after a call, and that the caller's files stay open."""
        with self._files_on_disk() as calls:
            threads = set(threading.enumerate())
            run(self._leave_nothing(calls[-1]))
            left = [thread.name for thread in set(threading.enumerate()) - threads]
            assert not left, f"it left threads: {', '.join(left)}"

    @check
    def test_nothing_of_the_process_changes(self) -> None:
        """Check standard output, loggers, warnings, the environment and other state that all code shares."""
        before, output = _process_state(), io.StringIO()
        with redirect_stdout(output):
            self.outcomes([self.stages(), *((refusal.answer,) for refusal in self.refusals)])
        after = _process_state()
        changed = [name for name in before if before[name] != after[name]]
        assert not changed, f"a call changed the process's {', '.join(changed)}"
        assert not output.getvalue(), f"it wrote to standard output: {output.getvalue()[:80]!r}; use a logger"

    @check
    def test_no_key_is_read_from_the_environment_during_a_call(self) -> None:
        """Check that a call uses the account's key, and looks for no other."""
        names = run(self._read_variables())
        assert not names, f"a call reads {', '.join(sorted(names))}: the key of a call is in its account"

    async def _watch_calls(self, calls: list[Mapping[str, object]]) -> None:
        async with self.recording() as recorder, self.client(recorder.url) as client:
            await client.warm(self.model)
            await client.account(self.model)
            for params in calls:
                with blocking_calls() as found:
                    came = await call_outcome(client, self.model, params)
                assert isinstance(came, Result), f"the call ended in {describe_outcome(came)}"
                assert not found, found[0]
            others = [Scenario(answers=(refusal.answer,)) for refusal in self.refusals]
            for each in (*others, *self.scenarios.values()):
                recorder.answer = self.answering(each.answers, each.downloads)
                with blocking_calls() as found:
                    await call_outcome(client, self.model, {**self.minimal, **each.params})
                assert not found, found[0]
            if self.stream is not None:
                recorder.answer = self.answering([self.stream.answer])
                with blocking_calls() as found:
                    await read_stream(client, self.model, {**self.minimal, **self.stream.params})
                assert not found, found[0]

    async def _equal_calls(self) -> None:
        constants = repr(self.operation().constants)
        params = self.field_params()[-1]
        sent: list[object] = []
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for number, each in enumerate((params, params, dict(reversed(list(params.items()))))):
                now = time.time() + number * _LATER
                with patch("time.time", lambda now=now: now):
                    await call_outcome(client, self.model, each)
                sent.append(_steady(recorder.posts[-1]) if recorder.posts else None)
        assert sent[0] == sent[1], "a second equal call, a day later, sent another request than the first"
        assert sent[0] == sent[2], "the order of the parameters changes the request"
        assert repr(self.operation().constants) == constants, "a call changed the operation's constants"

    async def _request_and_account(self) -> tuple[dict[str, str], dict[str, str]]:
        calls: list[tuple[Request, Account, dict[str, str]]] = []

        class DescribedCall(Call):
            """A call whose request and account are described before any hook gets them."""

            def __init__(self, request: Request, account: Account, **options: object) -> None:
                super().__init__(request, account, **options)  # type: ignore[arg-type]  # passed on as they are
                calls.append((request, account, _words_of(request, account)))

        params = self.field_params()[-1]
        async with self.recording() as recorder, self.client(recorder.url) as client:
            await client.invoke(self.model, params, call=DescribedCall)
        request, account, before = calls[0]
        return before, _words_of(request, account)

    async def _leave_nothing(self, params: Mapping[str, object]) -> None:
        tasks, files = asyncio.all_tasks(), _open_files()
        async with self.recording() as recorder:
            async with self.client(recorder.url) as client:
                came = await call_outcome(client, self.model, params)
                assert isinstance(came, Result), f"the call ended in {describe_outcome(came)}"
                gc.collect()
                assert not _open_files() - files, "a file is still open after the call"
            await recorder.settle()
        left = asyncio.all_tasks() - tasks
        assert not left, f"it left tasks: {left}"

    async def _read_variables(self) -> set[str]:
        names: set[str] = set()
        environ = type(os.environ)
        read, thread = environ.__getitem__, threading.get_ident()

        def note(self: os._Environ[str], name: str) -> str:
            is_iterated = sys._getframe(1).f_code.co_name == "__iter__"  # noqa: SLF001 - all are read, as for proxies
            if threading.get_ident() == thread and _SECRET.search(name) and not is_iterated:
                names.add(name)
            return read(self, name)

        async with self.recording() as recorder, self.client(recorder.url) as client:
            await client.warm(self.model)
            await client.account(self.model)
            with patch.object(environ, "__getitem__", note):
                await call_outcome(client, self.model, self.minimal)
        return names

    def field_params(self) -> list[Mapping[str, object]]:
        """Return the parameters of a call for each field, of which the last has the most."""
        return sorted((self.params_with(name, value) for name, value in self.values()), key=len)

    @contextmanager
    def _files_on_disk(self) -> Iterator[list[Mapping[str, object]]]:
        """Return calls that have every file field at least once, with paths; the last has the most parameters."""
        operation = self.operation()
        wanted: list[Mapping[str, object]] = []
        missing = {name for params in self.field_params() for name in params if name in operation.file_fields}
        for params in reversed(self.field_params()):
            if missing & set(params) or not wanted:
                wanted.insert(0, params)
                missing -= set(params)
        with tempfile.TemporaryDirectory() as folder:
            yield [on_disk(operation, Path(folder), params) for params in wanted]


def _words_of(request: Request, account: Account) -> dict[str, str]:
    return {
        "parameters": repr(request.params),
        "constants": repr(request.constants),
        "account": repr((dict(account.headers), dict(account.settings), account.base_url)),
    }


def _steady(request: RecordedRequest) -> object:
    target, headers, body = without_boundary(request)
    return target, headers, body


def _open_files() -> set[tuple[int, int, int]]:
    """Return the open regular files of this process: those that others left open may close meanwhile."""
    found: set[tuple[int, int, int]] = set()
    for number in range(_MOST_DESCRIPTORS):
        with suppress(OSError):  # it is not open
            about = os.fstat(number)
            if stat.S_ISREG(about.st_mode):
                found.add((number, about.st_dev, about.st_ino))
    return found


def _process_state() -> dict[str, object]:
    """Return what all code of a process shares."""
    root, own = logging.getLogger(), logging.getLogger("impasto")
    return {
        "root logger": (root.level, list(root.handlers), root.manager.disable),
        "logger 'impasto'": (own.level, list(own.handlers), own.propagate, own.disabled),
        "warning filters": list(warnings.filters),
        "environment": dict(os.environ),
        "working directory": Path.cwd(),
        "module path": list(sys.path),
        "exception hook": sys.excepthook,
        "signal handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "socket time-out": socket.getdefaulttimeout(),
        "recursion limit": sys.getrecursionlimit(),
    }
