"""The event loop of the synchronous functions: one daemon thread for the whole process."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from impasto import ClientClosedError, LoopMismatchError
from impasto.ext import result_of_cancelled

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that an interrupted call, or the end of the process, waits for calls in flight to end."""


class _Workers(ThreadPoolExecutor):
    """An executor with a thread for each piece of work: a pool accepts none after the main thread ended."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        outcome: Future[T] = Future()

        def work() -> None:
            try:
                outcome.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits
                outcome.set_exception(error)

        threading.Thread(target=work, name="impasto-worker", daemon=True).start()
        return outcome


class Background:
    """An event loop in a daemon thread, which ends with the process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_Workers())
        self._thread = threading.Thread(target=self._main, name="impasto", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it. An interrupt cancels it first, and is then raised."""
        if threading.current_thread() is self._thread:
            work.close()
            raise LoopMismatchError("called in the loop that would have to answer; use the async function there")
        if self.loop.is_closed():
            work.close()
            raise ClientClosedError("the process is ending: the loop of the synchronous functions is closed")
        outcome: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            task = self.loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(lambda task: _tell(task, outcome))

        try:
            self.loop.call_soon_threadsafe(start, context=contextvars.copy_context())
            return outcome.result()
        except BaseException as error:
            if not outcome.done():  # a signal's handler raised it here, KeyboardInterrupt above all
                self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
                if (cancelled := _cancellation(outcome)) is not None:
                    for note in getattr(cancelled, "__notes__", ()):
                        error.add_note(note)
                    vars(error)["result"] = result_of_cancelled(cancelled)
            raise

    def close(self) -> None:
        """Cancel all calls, close the loop's client and the loop, and wait for the thread."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE)

    def _main(self) -> None:
        loop = self.loop
        try:
            loop.run_forever()
            # Not asyncio.Runner: its end starts a thread, which a process that ends may not do.
            loop.run_until_complete(_cancel_all())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _tell(task: asyncio.Task[T], outcome: Future[T]) -> None:
    try:
        result = task.result()
    except BaseException as error:  # noqa: BLE001 - also a cancellation: whatever the work raised is its caller's
        outcome.set_exception(error)
    else:
        outcome.set_result(result)


def _cancellation(outcome: Future[Any]) -> BaseException | None:
    """Return the error of a cancelled call, with its notes about charges and the images that had come."""
    try:
        return outcome.exception(PATIENCE)
    except (TimeoutError, CancelledError):
        return None


_lock = threading.Lock()
_current: Background | None = None
_of_parent: list[Background] = []
"""Loops of the process that forked this one: never used and never released, since they share its descriptors."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the process's background loop, from any thread, and wait for it."""
    global _current  # noqa: PLW0603 - one for the process
    with _lock:
        if _current is None:
            _current = Background()
            atexit.register(_current.close)
        background = _current
    return background.run(work)


def _after_fork() -> None:
    global _current, _lock  # noqa: PLW0603 - the thread did not come along, and the lock may be held
    _lock = threading.Lock()
    if _current is not None:
        _of_parent.append(_current)
        _current = None


os.register_at_fork(after_in_child=_after_fork)
