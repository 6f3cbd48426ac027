"""Adaptive concurrency: grows while answers stay as fast as before, and halves on a 429.

If the provider can't be reached at all, one request at a time is tried, at longer and longer intervals.
"""

from __future__ import annotations

import asyncio
import time

from .limits import StopConditions

FIRST = 8
"""Images in flight at the start."""

OUTAGE_SECONDS = 600.0
"""Seconds for which an outage is waited out."""

_HOLDS = 1.5
"""Factor over the quickest answer up to which an answer still counts as quick."""

_FORGETS = 1.01
"""Rate at which the quickest time is forgotten with each slower answer: it may never come again."""

_WAITS = (1.0, 30.0)
"""The first and the longest wait between tries in an outage, in seconds."""


class AdaptiveConcurrency:
    """Hands out slots to the dispatcher. Belongs to one loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(FIRST, most))
        self.in_flight = 0
        self._quickest: dict[str, float] = {}
        self._is_first_climb = True
        self._halved = 0.0
        self._outage: _Outage | None = None
        self._changed = asyncio.Event()

    async def acquire(self, stops: StopConditions) -> None:
        """Wait for a slot and take it. A stop ends the wait, and so does the end of the run's time."""
        while True:
            stops.check_time()
            if stops.reason is not None or (wait := self._wait()) <= 0:
                break
            await self.changed(min(wait, stops.ends_at - time.monotonic()))
        self.in_flight += 1

    def release(self) -> None:
        """Return a slot."""
        self.in_flight -= 1
        self.wake()

    def wake(self) -> None:
        """Let the waiting dispatcher check again."""
        self._changed.set()

    async def changed(self, seconds: float | None = None) -> None:
        """Wait until a slot was returned, at most so long."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), seconds if seconds != _FOREVER else None)
        except TimeoutError:
            return

    def on_success(self, model: str, seconds: float) -> None:
        """Note the seconds that an image took."""
        self._outage = None
        quickest = min(self._quickest.get(model, seconds) * _FORGETS, seconds)
        self._quickest[model] = quickest
        if seconds > _HOLDS * quickest:
            self._is_first_climb = False
        elif self.in_flight >= int(self.limit):  # else it is not the limit that held it back
            self.limit = min(self.most, self.limit + (1 if self._is_first_climb else 1 / self.limit))
            self.wake()

    def on_rate_limited(self) -> None:
        """Note a 429. Answers to earlier requests count once."""
        now = time.monotonic()
        if now - self._halved > min(self._quickest.values(), default=0.0):
            self._halved = now
            self._is_first_climb = False
            self.limit = max(1.0, self.limit / 2)

    @property
    def is_outage(self) -> bool:
        """True if nothing could be sent recently."""
        return self._outage is not None

    def on_unreachable(self) -> bool:
        """Note that a request could not be sent.

        Return True if it may be tried again; no outage is waited out forever.
        """
        now = time.monotonic()
        if self._outage is None:
            self._outage = _Outage(now)
        return self._outage.continues(now)

    def _wait(self) -> float:
        """Return the seconds until a slot may be free; 0 if one is."""
        if self._outage is not None:
            return _FOREVER if self.in_flight else max(self._outage.next_try - time.monotonic(), 0.0)
        return _FOREVER if self.in_flight >= int(self.limit) else 0.0


_FOREVER = float("inf")


class _Outage:
    """The start of an outage, and the time of the next try."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.next_try = 0.0
        self.wait = _WAITS[0]

    def continues(self, now: float) -> bool:
        if now >= self.next_try:  # those that were in flight together are one try
            self.next_try = now + self.wait
            self.wait = min(self.wait * 2, _WAITS[1])
        return now - self.since < OUTAGE_SECONDS
