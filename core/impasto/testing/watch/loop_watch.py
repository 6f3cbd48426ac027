"""A watch for a blocked loop."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self


class LoopWatch:
    """A thread that notices when a loop is blocked for longer than so many seconds, and where."""

    def __init__(self, longest: float, every: float) -> None:
        self.stood_at = ""
        """The place of a block, if this thread got to see it."""
        self.longest_gap = 0.0
        """Seconds of the longest block."""
        self._longest, self._every = longest, every
        self._beat = math.inf
        self._of = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @contextmanager
    def over_this_loop(self) -> Iterator[None]:
        """Begin to watch the running loop."""
        loop = asyncio.get_running_loop()
        self._of = threading.get_ident()

        timer: asyncio.Handle
        last = time.monotonic()

        def beat() -> None:
            nonlocal timer, last
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last - self._every)
            last = self._beat = now
            timer = loop.call_later(self._every, beat)

        self._beat = last
        timer = loop.call_soon(beat)
        try:
            yield
        finally:
            timer.cancel()
            self.longest_gap = max(self.longest_gap, time.monotonic() - last - self._every)
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


def _where(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame)[-6:])
