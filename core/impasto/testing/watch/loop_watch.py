"""A watch for a blocked loop."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Self

from .run_queue import RunQueue
from .time_limit import run

_SHORT_BLOCK = 0.03
_SHORT_WORK = 0.005
"""Seconds of a core in which a loop comes round, however many others wait for the cores."""
_CALLS = 4


class LoopWatch:
    """A thread that notices when a loop of the thread that made it is blocked for so many seconds, and where."""

    def __init__(self, longest: float, every: float) -> None:
        self.stood_at = ""
        """The place of a block, if this thread got to see it."""
        self.longest_gap = 0.0
        """Seconds of the longest block."""
        self.longest_work = 0.0
        """Those of the longest block without the loop's waits for a core of a busy machine."""
        self._queue = RunQueue()
        self._longest, self._every = longest, every
        self._beat = math.inf
        self._of = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._queue.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._queue.__exit__()

    @contextmanager
    def over_this_loop(self) -> Iterator[None]:
        """Begin to watch the running loop."""
        loop = asyncio.get_running_loop()
        self._of = threading.get_ident()

        timer: asyncio.Handle
        last, waited = time.monotonic(), 0.0

        def measure() -> None:
            nonlocal last, waited
            now, waits = time.monotonic(), self._queue.seconds()
            gap = now - last - self._every
            self.longest_gap = max(self.longest_gap, gap)
            self.longest_work = max(self.longest_work, gap - (waits - waited))
            last, waited = now, waits

        def beat() -> None:
            nonlocal timer
            measure()
            self._beat = last
            timer = loop.call_later(self._every, beat)

        waited = self._queue.seconds()
        self._beat = last
        timer = loop.call_soon(beat)
        try:
            yield
        finally:
            timer.cancel()
            measure()
            self._beat = math.inf

    def _look(self) -> None:
        looked = time.monotonic()
        while not self._is_over.wait(self._every):
            now = time.monotonic()
            if now - looked > self._longest / 2:  # this thread stood still too: the machine's doing
                self._beat = max(self._beat, now)
            looked = now
            frame = sys._current_frames().get(self._of)  # noqa: SLF001 - the documented way to a thread's frame
            if now - self._beat > self._longest and frame is not None and not self.stood_at:
                self.stood_at = _where(frame)


def check_short_blocks(calls: Callable[[Sequence[LoopWatch]], Coroutine[Any, Any, object]]) -> None:
    """Fail if each call blocks its loop. ``calls`` makes one under each watch."""
    watches = [LoopWatch(_SHORT_BLOCK, _SHORT_BLOCK / 8) for _ in range(_CALLS)]
    with ExitStack() as stack:
        for each in watches:
            stack.enter_context(each)
        run(calls(watches))
    least = min(each.longest_gap for each in watches)
    places = [each.stood_at for each in watches if each.stood_at]
    assert any(map(_is_free, watches)), (
        f"each call blocks the loop for {least * 1000:.0f} ms, more than {_SHORT_BLOCK * 1000:g} ms, in:\n"
        + (places[0] if places else "a function that kept every thread waiting")
    )


def _is_free(watch: LoopWatch) -> bool:
    return watch.longest_gap <= _SHORT_BLOCK or watch.longest_work <= _SHORT_WORK


def _where(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame)[-6:])
