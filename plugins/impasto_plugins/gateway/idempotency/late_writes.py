"""Changes of rows that the state did not take: they are made when it can be used again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from impasto.ext import StateError

Change = Callable[[], Awaitable[None]]
"""Changes a row. Raises StateError."""

RETRY_SECONDS = 0.5
_MAX_RETRY_SECONDS = 10.0

_log = logging.getLogger("impasto.gateway")


class LateWrites:
    """Changes in the order in which they were made. A response does not wait for them."""

    def __init__(self) -> None:
        self._changes: deque[tuple[Change, Callable[[], object]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def make(self, change: Change, on_made: Callable[[], object] = object) -> None:
        """Make a change, later if it is not possible now. ``on_made`` is called when it is made."""
        try:
            await change()
        except StateError as error:
            _log.error("the outcome of a call can't be stored now: %s", error)
            self.add(change, on_made)
        else:
            on_made()

    def add(self, change: Change, on_made: Callable[[], object] = object) -> None:
        """Make a change some moments later."""
        self._changes.append((change, on_made))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._repeat())

    async def aclose(self) -> None:
        """Try for the last time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            while self._changes:
                await self._make_first()
        except StateError as error:
            _log.error("the outcomes of %d calls could not be stored: %s", len(self._changes), error)

    async def _repeat(self) -> None:
        delay = RETRY_SECONDS
        while self._changes:
            await asyncio.sleep(delay)
            try:
                await self._make_first()
                delay = 0.0
            except StateError:
                delay = min(max(2 * delay, RETRY_SECONDS), _MAX_RETRY_SECONDS)

    async def _make_first(self) -> None:
        change, on_made = self._changes[0]
        await change()
        self._changes.popleft()
        on_made()
