"""The signals that end a command's call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def not_ignored(*numbers: signal.Signals) -> list[signal.Signals]:
    """Return the signals that a command may handle.

    A signal that is ignored at the start stays ignored: so work ``nohup`` and each ``command &`` of a script.
    """
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, or cancel it at a SIGINT, SIGTERM or SIGHUP.

    A second SIGINT or SIGTERM waits for nothing; a second SIGHUP is ignored, because shells and the system send
    several when a terminal closes. Raises KeyboardInterrupt if a signal ended the coroutine.
    """
    received: list[int] = []
    tasks: list[asyncio.Task[Any]] = []

    def end(number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP and received:
            return
        received.append(number)
        if len(received) > 1 or not tasks:
            raise KeyboardInterrupt
        if not tasks[0].done():  # else the result is there, and what was paid for is saved
            tasks[0].cancel()
            tasks[0].get_loop().call_soon_threadsafe(_wake)

    async def cancellable() -> T:
        if (task := asyncio.current_task()) is not None:
            tasks.append(task)
        return await work

    handlers = {number: signal.getsignal(number) for number in not_ignored(*_END_SIGNALS)}
    for number in handlers:
        signal.signal(number, end)
    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        if received:
            raise KeyboardInterrupt from None
        raise
    finally:
        work.close()  # a signal may come before it starts
        if received:
            handlers[signal.SIGHUP] = signal.SIG_IGN  # the command ends: another one must not cut its report
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _wake() -> None:
    """Do nothing, in a loop that may sleep: a signal's handler does not end its wait."""
