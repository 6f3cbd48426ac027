"""A time limit for each check, which names what hangs: a plugin may block a loop or a thread, or wait for ever.

pytest-timeout is not used: a plugin's author would have to install it, and it can't name the task that waits.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import functools
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import thread as pool
from contextlib import suppress
from contextvars import copy_context
from types import FrameType
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast

import pytest

from impasto.testing import plugin

from .clues import clues
from .environment import plain_environment
from .run_queue import RunQueue

_GRACE = 0.5
"""Seconds that a check gets to end after its tasks were cancelled, and again after an exception was raised in it."""
_AFTER_A_HANG = 2.0
"""Seconds for each check of a class in which one did not end: the next ones mostly hang too."""
_MOST_HANGS = 3
"""Checks of a class that hang before the others are skipped: each would take its whole time."""
_LAST_RESORT = 4.0
"""Seconds after the time limit in which this thread must have run. If a regular expression or an extension never
releases the interpreter, no thread does: then the stacks are printed and the process exits."""
_MOST_WAITS = 3
"""Time limits that a check may wait for a core of a busy machine, in which nothing is its plugin's fault."""
_SHOWN_FRAMES = 5
_PROCESS_TIMES = 3
"""Time limits of a check that starts processes on an idle machine."""
_MOST_LOAD = 10.0
"""Processes for each core at which such a check still gets more time."""

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Limited")


class Limited:
    """A class of checks, each with a time limit."""

    seconds: ClassVar[float] = 8.0
    """The time limit of each check."""
    hangs: ClassVar[int] = 0
    """The number of checks that did not end."""

    @classmethod
    def process_seconds(cls) -> float:
        """Return the time limit of a check that starts processes, which import everything again and share the cores."""
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        return cls.seconds * (_PROCESS_TIMES + min(load, _MOST_LOAD))

    def prepare(self) -> None:
        """Do what a check needs before its loop starts, within its time limit."""

    def variables(self) -> Sequence[str | None]:
        """Return environment variables that no check may read, beside the usual ones."""
        return ()


def check(test: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Run a check in a thread of its own, and fail with what it stands in if its time is over."""
    return _limited(test)


def process_check(test: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Run a check that starts processes: it has more time."""
    return _limited(test, starts_processes=True)


def _limited(
    test: Callable[Concatenate[S, P], None], *, starts_processes: bool = False
) -> Callable[Concatenate[S, P], None]:
    @functools.wraps(test)
    def limited(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        __tracebackhide__ = True

        def work() -> None:
            self.prepare()
            for name in self.variables():
                os.environ.pop(name or "", None)
            test(self, *args, **kwargs)

        with plain_environment():
            run_limited(type(self), work, starts_processes=starts_processes)

    return cast("Callable[Concatenate[S, P], None]", limited)  # mypy: self has a name in one of them


def run_limited(owner: type[Limited], work: Callable[[], None], *, starts_processes: bool = False) -> None:
    """Run a function in a thread, for as long as a check of a class may take, beside its waits for a core."""
    __tracebackhide__ = True
    seconds = owner.process_seconds() if starts_processes else owner.seconds
    if owner.hangs >= _MOST_HANGS:
        pytest.skip(f"{owner.hangs} checks of {owner.__name__} did not end; the others are not run")
    thread, began = _CheckThread(work), time.monotonic()
    faulthandler.dump_traceback_later(seconds + _LAST_RESORT, exit=True, file=plugin.stderr)
    try:
        thread.start()
        while thread.is_alive():
            end = began + seconds + min(thread.queue.seconds(), seconds * _MOST_WAITS)
            if (left := end - time.monotonic()) <= 0:
                break
            faulthandler.dump_traceback_later(left + _LAST_RESORT, exit=True, file=plugin.stderr)
            thread.join(left)
    finally:
        faulthandler.cancel_dump_traceback_later()
    if thread.is_alive() or thread.error is not None:
        raise _failure(owner, thread, seconds)


def _failure(owner: type[Limited], thread: _CheckThread, seconds: float) -> BaseException:
    """Return the error of a check that failed or did not end."""
    error = thread.error
    if error is None:
        owner.hangs += 1
        owner.seconds = min(owner.seconds, _AFTER_A_HANG)
        places = "\n".join(thread.places())
        thread.abandon()
        error = AssertionError(f"this check did not end within {seconds:g} s; it stands in:\n{places}")
    elif isinstance(error, KeyboardInterrupt | SystemExit):
        cause, error = error, AssertionError(f"a plugin raised {error!r}")
        error.__cause__ = cause
    # pytest parses sources for its report. If a future whose error nobody read is collected meanwhile, asyncio logs its
    # traceback, which parses too: Python 3.11 ends the run then (cpython #106905). For a skip nothing is parsed.
    if not isinstance(error, pytest.skip.Exception):
        gc.collect()
    return error


def run(main: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Run a coroutine as ``asyncio.run`` does, so that the limit can name the tasks that wait."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        thread = threading.current_thread()
        if isinstance(thread, _CheckThread):
            thread.loop = runner.get_loop()
        return runner.run(main)


class _CheckThread(threading.Thread):
    """The thread of one check. Threads that are started in it are daemons too: none keeps the process from ending."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(name="impasto-check", daemon=True)
        self._work, self._context = work, copy_context()
        self._before = set(threading.enumerate())
        self.queue = RunQueue()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the check and note its error."""
        try:
            with self.queue:
                self._context.run(self._work)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.error = error

    def places(self) -> Iterator[str]:
        """Yield the place of each thread and task that the check waits for."""
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to a thread's frame
        for thread in threading.enumerate():
            if thread is self or thread not in self._before:
                frame = frames.get(thread.ident or 0)
                if frame is not None and not _is_idle(frame):
                    yield f"thread {thread.name}:\n{_stack_text(traceback.extract_stack(frame))}"
        if self.loop is not None:
            with suppress(RuntimeError):  # the set changed while it was read: the loop runs
                tasks = asyncio.all_tasks(self.loop)
                chains = {task.get_name(): [*_await_chain(task.get_coro())] for task in tasks}
                for name, chain in chains.items():
                    stack = [summary for frame in chain for summary in traceback.extract_stack(frame, limit=1)]
                    yield f"task {name}:\n{_stack_text(stack)}"
                yield from dict.fromkeys(clues(frame for chain in chains.values() for frame in chain))

    def abandon(self) -> None:
        """End the check if it can be ended: cancel its tasks, then raise SystemExit in its thread."""
        loop = self.loop
        if loop is not None:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
            self.join(_GRACE)
        if self.is_alive() and self.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit))
            self.join(_GRACE)
        # The interpreter waits at its end for the threads of pools, daemons too.
        for thread in set(threading.enumerate()) - self._before:
            vars(pool).get("_threads_queues", {}).pop(thread, None)


def _is_idle(frame: FrameType) -> bool:
    return frame.f_code.co_name == "_worker" and frame.f_code.co_filename == pool.__file__


def _await_chain(awaited: object) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of what it awaits."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if isinstance(frame, FrameType):
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)


def _stack_text(frames: list[traceback.FrameSummary]) -> str:
    return "".join(traceback.format_list(frames[-_SHOWN_FRAMES:]))
