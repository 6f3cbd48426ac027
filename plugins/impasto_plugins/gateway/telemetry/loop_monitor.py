"""Measures the delay of the event loop, and reports the code that blocks it: a blocked loop blocks everybody."""

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
"""Delay of the loop that leads to a warning."""

WATCH_SECONDS = WARN_SECONDS / 4
"""Seconds between checks of the thread."""

WINDOW_SECONDS = 60.0
_MAX_FRAMES = 6

_BLOCKED = "the event loop was blocked for %.1f s"
_STOPPED = "this process did not run for %.1f s: it was stopped, or the machine slept or had no time for it"


class EventLoopMonitor:
    """``async with EventLoopMonitor(tick):`` monitors the running loop, and calls ``tick`` at each measurement.

    A thread of its own reports the running code while the loop is blocked, since nothing in the loop can. A process
    that was stopped runs neither the loop nor the thread, and uses no CPU.
    """

    def __init__(self, tick: Callable[[], object]) -> None:
        self._tick = tick
        self._lags: deque[tuple[float, float]] = deque()
        self._last_beat = time.monotonic()
        self._checks = 0
        """The checks that the thread has made."""
        self._thread = threading.Thread(target=self._report_blocking, name="impasto-watchdog", daemon=True)
        self._stop = threading.Event()
        self._thread_id = threading.get_ident()

    async def __aenter__(self) -> Self:
        self._last_beat = time.monotonic()
        self._measuring = asyncio.create_task(self._measure_lag())
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._measuring.cancel()
        self._stop.set()

    @property
    def lag(self) -> float:
        """The longest delay of the loop in the last minute, in seconds."""
        return self._lags[0][1] if self._lags else 0.0

    async def _measure_lag(self) -> NoReturn:
        self._last_beat = time.monotonic()
        while True:
            checks, cpu = self._checks, time.process_time()
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            lag, self._last_beat = max(now - self._last_beat - TICK_SECONDS, 0.0), now
            if lag > WARN_SECONDS:
                ran = max((self._checks - checks) * WATCH_SECONDS, time.process_time() - cpu)
                _log.warning(_BLOCKED if ran > lag / 2 else _STOPPED, lag)
            lags = self._lags  # falling: one that a later one surpassed is never the longest again
            while lags and lags[-1][1] <= lag:
                lags.pop()
            while lags and lags[0][0] < now - WINDOW_SECONDS:
                lags.popleft()
            lags.append((now, lag))
            self._tick()

    def _report_blocking(self) -> None:
        reported_beat = 0.0
        began = self._last_beat  # before this thread was started: the process may be stopped meanwhile
        while not self._stop.wait(WATCH_SECONDS):
            now = time.monotonic()  # read once: the process may be stopped anywhere
            waited, began = now - began, now
            self._checks += 1
            if waited > WARN_SECONDS:  # this thread did not run either; if the loop is blocked, the next check sees it
                continue
            beat = self._last_beat
            lag = now - beat - TICK_SECONDS
            if lag > WARN_SECONDS and beat != reported_beat:
                reported_beat = beat
                frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - its documented name
                _log.warning("the event loop is blocked, for %.1f s so far, by %s", lag, _format_stack(frame))


def _format_stack(frame: FrameType | None) -> str:
    """Return the running functions, the innermost last, without their values, which may be secrets."""
    functions: list[str] = []
    while frame is not None and len(functions) < _MAX_FRAMES:
        code = frame.f_code
        functions.append(f"{frame.f_globals.get('__name__', '?')}.{code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return " > ".join(reversed(functions))
