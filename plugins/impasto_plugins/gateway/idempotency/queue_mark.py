"""A mark in the row of a call that waits for its turn: nothing was sent, so that it may run again if its worker dies.

Only calls that wait for a second get it. It is written at once or not at all, never later: a mark that comes after the
request was sent would have that request paid for twice.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

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
    """The mark of one call's row, if it has one, for a block in which the call is made."""

    _calls: CallRecords
    _row: StoredCall | None
    _lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    _may_be_written: bool = False
    _is_sending: bool = False
    _timer: asyncio.TimerHandle | None = None
    _writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._row is not None:
            self._timer = asyncio.get_running_loop().call_later(MARK_SECONDS, self._begin, self._row)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    def _begin(self, row: StoredCall) -> None:
        self._writing = asyncio.create_task(self._write(row))

    async def _write(self, row: StoredCall) -> None:
        async with self._lock:
            if not self._is_sending:
                self._may_be_written = True
                with suppress(StateError):
                    await finish(self._calls.update(row.id, jobs=UNSENT))

    async def remove(self) -> None:
        """Remove the mark before a request is sent. Raises NotSent if that is not possible."""
        if self._row is None:
            return
        async with self._lock:
            if self._may_be_written:
                try:
                    await finish(self._calls.update(self._row.id, jobs=""))
                except StateError:
                    message = "the gateway can't note that the call is sent; nothing was sent, try again"
                    raise NotSent(message, retryable=True) from None
            self._may_be_written, self._is_sending = False, True


def unsent_error() -> APIError:
    """Return the error of a call that waited for its turn when its worker died."""
    message = "the gateway was stopped before the call's turn came; nothing was sent, send it again"
    return APIError(503, message, SERVER, "stopping", should_retry=True)
