"""Pictures of a given size, complete as a decoder wants them."""

from __future__ import annotations

import random
import struct
import zlib


def picture(size: int, side: int = 1024) -> bytes:
    """A PNG of ``size`` bytes: its header says side x side, its pixels are noise that nobody decodes here.

    If ``size`` has room for all rows, they are there, and bytes that a decoder passes over follow.
    """
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    end = _chunk(b"IEND", b"")
    room = size - len(head) - len(end) - 12
    noise = random.Random(7).randbytes(room)
    rows = zlib.compress(noise[: min(side * (3 * side + 1), room - room // 1000 - 64)], 0)
    return head + _chunk(b"IDAT", rows + noise[len(rows) :]) + end


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
