"""The limit of bytes of requests and responses in memory. Beyond it, requests are refused; nothing is charged."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import attrs

from impasto_plugins.gateway.errors import APIError, overloaded

IMAGE_BYTES = 2 << 20
"""Bytes reserved for each expected image, until its size is known."""

_ROOM_SECONDS = 0.1
"""Seconds between checks for free memory."""


class MemoryBudget:
    """The bytes in flight of one process."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.was_used = False
        """True if anything was reserved since it was last set to False."""
        self.decode_lock = asyncio.Lock()
        """Held by the one request whose mask is decoded."""
        self.beyond = MemoryReservation(self)
        """The one request that holds more than there is."""


@attrs.define(eq=False)
class MemoryReservation:
    """The reservation of one request, released at its end."""

    _budget: MemoryBudget
    size: int = 0

    def reserve(self, size: int) -> None:
        """Reserve so many more bytes. Raises APIError if there is no room."""
        if not self.try_reserve(size):
            message = "the gateway's memory for images is full; nothing was sent, try again"
            raise overloaded(message, retry_after=1, close=True)

    def try_reserve(self, size: int) -> bool:
        """Reserve so many more bytes if there is room; return True if so."""
        budget = self._budget
        if budget.used_bytes + size > budget.max_bytes:
            return False
        self.resize(self.size + size)
        return True

    async def wait_for(self, size: int) -> None:
        """Reserve so many more bytes as soon as there is room; requests that are refused without it go first.

        At most half of all: it must not wait for more than there is.
        """
        size = min(size, self._budget.max_bytes // 2)
        while not self.try_reserve(size):  # noqa: ASYNC110 - nothing signals free memory
            await asyncio.sleep(_ROOM_SECONDS)

    async def wait_for_paid(self, size: int) -> None:
        """Reserve so many more bytes for a paid answer. One request may go beyond the limit, so that none is stuck."""
        budget = self._budget
        while not self.try_reserve(size):
            if budget.beyond is self or not budget.beyond.size:  # or that request is over
                budget.beyond = self
                self.resize(self.size + size)
                return
            await asyncio.sleep(_ROOM_SECONDS)

    def resize(self, size: int) -> None:
        """Hold exactly so many bytes from now on: a paid answer is never refused."""
        self._budget.used_bytes += size - self.size
        self._budget.was_used = True
        self.size = size

    async def begin_decoding(self, size: int) -> None:
        """Wait for the one turn to decode a mask, and hold so much more until ``end_decoding``. Raises APIError."""
        budget = self._budget
        if size > budget.max_bytes:
            message = (
                f"this mask takes {size:,} bytes to decode and the gateway may hold {budget.max_bytes:,}; send a"
                " smaller one, or raise general_settings.max_bytes_in_flight"
            )
            raise APIError(413, message, code="request_too_large", param="mask")
        await budget.decode_lock.acquire()
        try:
            self.reserve(size)
        except APIError:
            budget.decode_lock.release()
            raise

    def end_decoding(self, size: int) -> None:
        """Give back what ``begin_decoding`` took."""
        self.resize(self.size - size)
        self._budget.decode_lock.release()

    def transfer(self) -> MemoryReservation:
        """Move the reservation to one that outlives the request."""
        successor = MemoryReservation(self._budget, self.size)
        self.size = 0
        return successor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resize(0)
