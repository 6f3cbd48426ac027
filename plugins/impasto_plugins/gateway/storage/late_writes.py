"""Changes of records that the state did not take: they are made when it can be used again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from impasto.ext import StateError

Change = Callable[[], Awaitable[object]]
"""Changes a record. Raises StateError."""

RETRY_SECONDS = 0.5
_MAX_RETRY_SECONDS = 10.0

_log = logging.getLogger("impasto.gateway")


class LateWrites:
    """Changes that are repeated until the state takes them. A response does not wait for that.

    Those of one record are made in the order in which they came; another record does not wait for them.
    """

    def __init__(self) -> None:
        self._changes: dict[object, deque[tuple[Change, Callable[[], object]]]] = {}
        self._is_back = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def make(self, change: Change, on_made: Callable[[], object] = object, *, record: str = "") -> None:
        """Make a change, later if it is not possible now. ``on_made`` is called when it is made.

        ``record``: the id of what it changes, if the order of its changes matters.
        """
        if record not in self._changes:
            try:
                await change()
            except StateError as error:
                _log.error("what became of a call can't be stored now: %s", error)
            else:
                on_made()
                self._is_back.set()
                return
        self.add(change, on_made, record=record)

    def add(self, change: Change, on_made: Callable[[], object] = object, *, record: str = "") -> None:
        """Make a change some moments later."""
        self._changes.setdefault(record or object(), deque()).append((change, on_made))
        if self._task is None or self._task.done():
            self._is_back.clear()
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
            left = sum(map(len, self._changes.values()))
            _log.error("what became of calls could not be stored, in %d records: %s", left, error)

    async def _repeat(self) -> None:
        delay = RETRY_SECONDS
        while self._changes:
            if delay:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._is_back.wait(), delay)
                self._is_back.clear()
            try:
                await self._make_first()
                delay = 0.0
            except StateError:
                delay = min(max(2 * delay, RETRY_SECONDS), _MAX_RETRY_SECONDS)

    async def _make_first(self) -> None:
        """Make the first change; if that fails, others come first from now on. Raises StateError."""
        record, changes = next(iter(self._changes.items()))
        change, on_made = changes[0]
        try:
            await change()
        except StateError:
            self._changes[record] = self._changes.pop(record)
            raise
        changes.popleft()
        if not changes:
            del self._changes[record]
        on_made()
