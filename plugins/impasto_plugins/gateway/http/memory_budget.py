"""How many bytes of requests and answers may be in memory at once. Past it, callers are sent away unspent."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from impasto_plugins.gateway.errors import SERVER, Failure

PICTURE_BYTES = 2 << 20
"""What is set aside for each picture that is to come, until its size is known."""


class Flow:
    """The bytes in flight of one process."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self.turn = asyncio.Lock()
        """Held by the one request whose mask is decoded."""

    def share(self) -> Share:
        """One request's share of it, empty at first."""
        return Share(self)


class Share:
    """What one request holds. Given back at its end."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.bytes = 0

    def take(self, bytes: int) -> None:
        """Takes so much more. Raises Failure where there is no room."""
        if not self.grow(bytes):
            said = "the gateway holds as many pictures as it may; nothing was sent, try again"
            raise Failure(503, said, SERVER, "overloaded", retry_after=1, should_retry=True, close=True)

    def grow(self, bytes: int) -> bool:
        """Takes so much more, if there is room."""
        flow = self._flow
        if flow.bytes + bytes > flow.most:
            return False
        self.settle(self.bytes + bytes)
        return True

    def settle(self, bytes: int) -> None:
        """Holds exactly so much from now on: what was paid for is never refused."""
        self._flow.bytes += bytes - self.bytes
        self.bytes = bytes

    async def begin_decoding(self, bytes: int) -> None:
        """Wait for the one turn to decode a mask, and hold so much more until ``end_decoding``. Raises Failure."""
        flow = self._flow
        if bytes > flow.most:
            said = (
                f"this mask takes {bytes:,} bytes to decode and the gateway may hold {flow.most:,}; send a"
                " smaller one, or raise general_settings.max_bytes_in_flight"
            )
            raise Failure(413, said, code="request_too_large", param="mask")
        await flow.turn.acquire()
        try:
            self.take(bytes)
        except Failure:
            flow.turn.release()
            raise

    def end_decoding(self, bytes: int) -> None:
        """Give back what ``begin_decoding`` took."""
        self.settle(self.bytes - bytes)
        self._flow.turn.release()

    def hand_over(self) -> Share:
        """Move what is held to a share that outlives the request."""
        heir = Share(self._flow)
        heir.bytes, self.bytes = self.bytes, 0
        return heir

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle(0)
