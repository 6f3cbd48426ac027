"""The body of a request: text and files, in the order in which they are sent."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from typing import BinaryIO

import attrs

PIECE_BYTES = 1 << 20
"""Bytes that are written at once: a slow connection then applies backpressure."""

_SMALL_BYTES = 64 * 1024

Piece = bytes | bytearray | tuple[BinaryIO, int]
"""Bytes, or an open file and its size."""


@attrs.frozen(eq=False)
class RequestBody:
    """A body of one attempt. Its files belong to the caller, who closes them."""

    content_type: str
    pieces: Sequence[Piece]

    @property
    def size(self) -> int:
        """The bytes of the body."""
        return sum(piece[1] if isinstance(piece, tuple) else len(piece) for piece in self.pieces)

    @property
    def small(self) -> bytes | None:
        """The whole body if it is sent in one write with its head. Of a larger one the answer may come meanwhile."""
        first = self.pieces[0]
        return first if len(self.pieces) == 1 and isinstance(first, bytes) and len(first) <= _SMALL_BYTES else None

    def encode(self) -> bytes:
        """Return the whole body, for a signature of its bytes. Reads its files."""
        return b"".join(piece[0].read() if isinstance(piece, tuple) else piece for piece in self.pieces)

    async def write(self, send: Callable[[bytes | memoryview], Awaitable[object]]) -> None:
        """Send the pieces in turn; files on disk are read in a thread. Raises OSError if a file became shorter."""
        for piece in self.pieces:
            if not isinstance(piece, tuple):
                await _send_bytes(piece, send)
            elif isinstance(piece[0], io.BytesIO):
                await _send_bytes(piece[0].getvalue(), send)  # no copy; getbuffer() would forbid to close the reader
            else:
                await _send_file(*piece, send)


async def _send_bytes(data: bytes | bytearray, send: Callable[[bytes | memoryview], Awaitable[object]]) -> None:
    with memoryview(data) as view:
        for at in range(0, len(view), PIECE_BYTES):
            await send(view[at : at + PIECE_BYTES])


async def _send_file(reader: BinaryIO, size: int, send: Callable[[bytes | memoryview], Awaitable[object]]) -> None:
    left = size
    while left > 0:
        piece = await asyncio.to_thread(reader.read, min(PIECE_BYTES, left))
        if not piece:
            raise OSError("the file became shorter while it was sent")
        left -= len(piece)
        await send(piece)
