"""A mark in the row of a call that waits for its turn: nothing was sent, so that it may run again if its worker dies.

Only calls that wait for a second get it. It is written at once or not at all, never later: a mark that comes after the
request was sent would have that request paid for twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs

from impasto import NotSent
from impasto.ext import CallRecords, StateError, StoredCall, finish
from impasto_plugins.gateway.errors import SERVER, APIError

UNSENT = "unsent"
"""The mark, in place of the jobs of a call."""

MARK_SECONDS = 1.0
"""Seconds that a call waits before it is marked."""


@attrs.define(eq=False)
class QueueMark:
    """The mark of one call's row."""

    _calls: CallRecords
    _row: StoredCall | None
    _lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    _may_be_written: bool = False
    _is_sending: bool = False

    async def write_soon(self) -> None:
        """Write the mark, unless the call is sent before."""
        await asyncio.sleep(MARK_SECONDS)
        async with self._lock:
            if self._row is not None and not self._is_sending:
                self._may_be_written = True
                with suppress(StateError):
                    await finish(self._calls.update(self._row.id, jobs=UNSENT))

    async def remove(self) -> None:
        """Remove the mark before a request is sent. Raises NotSent if that is not possible."""
        async with self._lock:
            if self._row is not None and self._may_be_written:
                try:
                    await finish(self._calls.update(self._row.id, jobs=""))
                except StateError:
                    message = "the gateway can't note that the call is sent; nothing was sent, try again"
                    raise NotSent(message, retryable=True) from None
            self._may_be_written, self._is_sending = False, True


@asynccontextmanager
async def queue_mark(calls: CallRecords, row: StoredCall | None) -> AsyncIterator[QueueMark]:
    """Mark the row of a call, if it has one, while it waits; it is made in the block."""
    mark = QueueMark(calls, row)
    writing = asyncio.create_task(mark.write_soon())
    try:
        yield mark
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def unsent_error() -> APIError:
    """Return the error of a call that waited for its turn when its worker died."""
    message = "the gateway was stopped before the call's turn came; nothing was sent, send it again"
    return APIError(503, message, SERVER, "stopping", should_retry=True)
