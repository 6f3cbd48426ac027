"""How many pictures are asked for at once: it grows while answers come as fast as before, and halves on a 429.

Where the provider can't be reached at all, one at a time is tried, at longer and longer intervals.
"""

from __future__ import annotations

import asyncio
import time

from .limits import Stops

FIRST = 8
"""How many at the start."""

OUTAGE_SECONDS = 600.0
"""How long an outage is waited out."""

_HOLDS = 1.5
"""How much longer than the quickest an answer may take and still count as quick."""

_FORGETS = 1.01
"""How fast the quickest is forgotten, with each answer that took longer: what was quick may never come again."""

_WAITS = (1.0, 30.0)
"""The first and the longest wait between tries in an outage, in seconds."""


class Pace:
    """Gives out places to the one who dispatches. Belongs to one loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(FIRST, most))
        self.in_flight = 0
        self._quickest: dict[str, float] = {}
        self._is_first_climb = True
        self._halved = 0.0
        self._outage: _Outage | None = None
        self._changed = asyncio.Event()

    async def turn(self, stops: Stops) -> None:
        """Wait for a place, and take it. A stop ends the wait, and so does the end of the run's time."""
        while True:
            stops.check_time()
            if stops.reason is not None or (wait := self._wait()) <= 0:
                break
            await self.changed(min(wait, stops.ends - time.monotonic()))
        self.in_flight += 1

    def leave(self) -> None:
        """Gives a place back."""
        self.in_flight -= 1
        self.wake()

    def wake(self) -> None:
        """Lets whoever waits look again."""
        self._changed.set()

    async def changed(self, seconds: float | None = None) -> None:
        """Waits until a place was given back, or so long."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), seconds if seconds != _FOREVER else None)
        except TimeoutError:
            return

    def answered(self, model: str, seconds: float) -> None:
        """A picture came, so long after it was asked for."""
        self._outage = None
        quickest = min(self._quickest.get(model, seconds) * _FORGETS, seconds)
        self._quickest[model] = quickest
        if seconds > _HOLDS * quickest:
            self._is_first_climb = False
        elif self.in_flight >= int(self.limit):  # else it is not the limit that held it back
            self.limit = min(self.most, self.limit + (1 if self._is_first_climb else 1 / self.limit))
            self.wake()

    def refused(self) -> None:
        """The provider said that it is asked too fast. Answers to what was sent before count once."""
        now = time.monotonic()
        if now - self._halved > min(self._quickest.values(), default=0.0):
            self._halved = now
            self._is_first_climb = False
            self.limit = max(1.0, self.limit / 2)

    @property
    def is_outage(self) -> bool:
        """Whether nothing could be sent of late."""
        return self._outage is not None

    def unreachable(self) -> bool:
        """Nothing of a picture could be sent. Whether it may be tried again: an outage is not waited out for ever."""
        now = time.monotonic()
        if self._outage is None:
            self._outage = _Outage(now)
        return self._outage.goes_on(now)

    def _wait(self) -> float:
        """Seconds until a place may be free; 0 where one is."""
        if self._outage is not None:
            return _FOREVER if self.in_flight else max(self._outage.next_try - time.monotonic(), 0.0)
        return _FOREVER if self.in_flight >= int(self.limit) else 0.0


_FOREVER = float("inf")


class _Outage:
    """Since when the provider can't be reached, and when it is tried next."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.next_try = 0.0
        self.wait = _WAITS[0]

    def goes_on(self, now: float) -> bool:
        if now >= self.next_try:  # those that were in flight together are one try
            self.next_try = now + self.wait
            self.wait = min(self.wait * 2, _WAITS[1])
        return now - self.since < OUTAGE_SECONDS
