"""Answers that come compressed although ``Accept-Encoding: identity`` was sent: some proxies compress everything.

Not aiohttp's ``auto_decompress``: it raises for an unknown coding, and if the body is not compressed as announced, and
a paid answer would be lost with it. Brotli and Zstandard need libraries; such an answer stays as it is.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

_CODINGS = ("gzip", "x-gzip", "deflate")
_MAGIC = (b"\x1f", b"\x78")
"""The first byte of gzip and of zlib. No image, audio, 3D model or JSON begins like that."""

_EITHER = 32 + zlib.MAX_WBITS
"""Accept both formats; zlib finds out which one it is."""

_PIECE = 256 * 1024
"""Bytes that are decompressed at once: a bomb reaches the limit of an answer's size before it is in memory."""


class DamagedCoding(ValueError):
    """The compressed answer is incomplete or damaged."""


def is_compressed(coding: str) -> bool:
    """Return True if a ``Content-Encoding`` names a format that can be decompressed here."""
    return coding.strip().lower() in _CODINGS


async def decompress(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the content of compressed chunks, or the chunks themselves if they are not compressed.

    Raises:
        DamagedCoding: after everything that can be decompressed was yielded.
    """
    stream: _Stream | None = None
    is_first = True
    async for chunk in chunks:
        if is_first and chunk.startswith(_MAGIC):
            stream = _Stream()
        is_first = False
        for piece in (chunk,) if stream is None else stream.pieces(chunk):
            yield piece
    if stream is not None and not stream.has_ended:
        raise DamagedCoding("the compressed answer is incomplete")


class _Stream:
    """Compressed members, one after the other, as gzip allows."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_EITHER)

    @property
    def has_ended(self) -> bool:
        """True if the last member is complete."""
        return self._member.eof

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the content of the next bytes. Damaged bytes are yielded as they are, then it raises DamagedCoding."""
        piece = b""
        while data or len(piece) == _PIECE:  # after a full piece more may be ready, also if all input is consumed
            if self._member.eof and not (data := data.lstrip(b"\0")):  # gzip may be padded
                return
            if self._member.eof:
                self._member = zlib.decompressobj(_EITHER)
            try:
                piece = self._member.decompress(data, _PIECE)
            except zlib.error as error:
                yield data
                raise DamagedCoding("the compressed answer is damaged") from error
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece
