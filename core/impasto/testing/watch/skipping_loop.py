"""An event loop whose clock skips the time in which nothing happens, so that waits of minutes take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

_GRACE = 0.002
"""Seconds for what is on its way over loopback, before time is skipped."""
_PATIENCE = 0.01
"""Seconds between looks while a thread works."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class SkippingLoop(asyncio.SelectorEventLoop):
    """The loop. Its time is the sum of what was skipped: a busy machine lengthens no wait."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self._working = 0
        super().__init__(_SkippingSelector(self))

    def time(self) -> float:
        """Return the seconds that were skipped."""
        return self._skipped

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run a function in a thread, during which nothing is skipped."""
        self._working += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._on_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads without a limit: the 300 seconds of Python 3.12 and later would be skipped."""
        await super().shutdown_default_executor()

    def _on_done(self, _: object) -> None:
        self._working -= 1

    def skip(self, seconds: float) -> bool:
        """Put the clock forward, unless a thread works."""
        if not self._working:
            self._skipped += seconds
        return not self._working


class _SkippingSelector(selectors.DefaultSelector):
    def __init__(self, loop: SkippingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        """Return what is ready; if nothing is, skip the time until the next timer."""
        ready = super().select(0 if timeout is not None and timeout <= 0 else _GRACE)
        if ready or timeout is None or timeout <= 0:
            return ready
        return [] if self._loop.skip(timeout) else super().select(_PATIENCE)
