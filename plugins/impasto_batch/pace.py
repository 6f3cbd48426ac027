"""How many pictures are asked for at once: it grows while answers come as fast as before, and halves on a 429."""

from __future__ import annotations

import asyncio
import time

FIRST = 8
"""How many at the start."""

_HOLDS = 1.5
"""How much longer than the quickest an answer may take and still count as quick."""

_FORGETS = 1.01
"""How fast the quickest is forgotten, for each answer that took longer: what was quick may never come again."""


class Pace:
    """Gives out places to the one who dispatches. Belongs to one loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(FIRST, most))
        self.in_flight = 0
        self._quickest: dict[str, float] = {}
        self._is_first_climb = True
        self._halved = 0.0
        self._freed = asyncio.Event()

    async def turn(self) -> None:
        """Waits for a place, and takes it."""
        while self.in_flight >= int(self.limit):
            self._freed.clear()
            await self._freed.wait()
        self.in_flight += 1

    def leave(self) -> None:
        """Gives a place back."""
        self.in_flight -= 1
        self._freed.set()

    def answered(self, model: str, seconds: float) -> None:
        """A picture came, so long after it was asked for."""
        quickest = min(self._quickest.get(model, seconds) * _FORGETS, seconds)
        self._quickest[model] = quickest
        if seconds > _HOLDS * quickest:
            self._is_first_climb = False
        elif self.in_flight >= int(self.limit):  # else it is not the limit that held it back
            self.limit = min(self.most, self.limit + (1 if self._is_first_climb else 1 / self.limit))
            self._freed.set()

    def refused(self) -> None:
        """The provider said that it is asked too fast. Answers to what was sent before count once."""
        now = time.monotonic()
        if now - self._halved > min(self._quickest.values(), default=0.0):
            self._halved = now
            self._is_first_climb = False
            self.limit = max(1.0, self.limit / 2)
