"""How late the event loop is, and what holds it up: a plugin that blocks it blocks everybody."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn, Self

_log = logging.getLogger("impasto.gateway")

TICK_SECONDS = 0.25
WARN_SECONDS = 1.0
"""How late the loop must be for a warning."""

WINDOW_SECONDS = 60.0
_FRAMES = 6


class Watchdog:
    """``async with Watchdog(tick):`` watches the running loop, and calls ``tick`` as often as it looks.

    A thread of its own says what runs while the loop is held up: as long as that lasts, nothing in it can.
    """

    def __init__(self, tick: Callable[[], object]) -> None:
        self._tick = tick
        self._lags: deque[tuple[float, float]] = deque()
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="impasto-watchdog", daemon=True)
        self._over = threading.Event()
        self._of = threading.get_ident()

    async def __aenter__(self) -> Self:
        self._beat = time.monotonic()
        self._ticking = asyncio.create_task(self._beating())
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticking.cancel()
        self._over.set()

    @property
    def lag(self) -> float:
        """The longest that the loop was late in the last minute, in seconds."""
        return self._lags[0][1] if self._lags else 0.0

    async def _beating(self) -> NoReturn:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            lag, self._beat = max(now - self._beat - TICK_SECONDS, 0.0), now
            if lag > WARN_SECONDS:
                _log.warning("the event loop was held up for %.1f s", lag)
            lags = self._lags  # falling: one that a later one surpassed is never the longest again
            while lags and lags[-1][1] <= lag:
                lags.pop()
            while lags and lags[0][0] < now - WINDOW_SECONDS:
                lags.popleft()
            lags.append((now, lag))
            self._tick()

    def _watch(self) -> None:
        told = 0.0
        while not self._over.wait(WARN_SECONDS / 4):
            beat = self._beat
            late = time.monotonic() - beat - TICK_SECONDS
            if late > WARN_SECONDS and beat != told:
                told = beat
                frame = sys._current_frames().get(self._of)  # noqa: SLF001 - its documented name
                _log.warning("the event loop is held up, for %.1f s so far, by %s", late, _named(frame))


def _named(frame: FrameType | None) -> str:
    """The functions that run, the innermost last. Nothing of their values: those may be secrets."""
    found: list[str] = []
    while frame is not None and len(found) < _FRAMES:
        code = frame.f_code
        found.append(f"{frame.f_globals.get('__name__', '?')}.{code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return " > ".join(reversed(found))
