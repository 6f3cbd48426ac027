"""Length and completeness of a WAV: a RIFF of chunks. ``fmt`` has the bytes per second, ``data`` their number.

The standard library's reader accepts plain PCM only, and no file whose writer did not know its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_HEADER = 12
_UNKNOWN_LENGTHS = (0, 0xFFFFFFFF)
"""The length in files that were written as a stream, whose end was not known yet."""


def is_complete(source: BinaryIO, size: int) -> bool:
    """Return True if there are as many bytes as the RIFF announces, and sound among them.

    One byte less is complete too: many writers count the last chunk's padding and omit it.
    """
    source.seek(4)
    announced = int.from_bytes(source.read(4), "little")
    if announced not in _UNKNOWN_LENGTHS and size < announced + 7:
        return False
    for name, at, length in _chunks(source):
        if name == b"data":
            return size > at and (length in _UNKNOWN_LENGTHS or size >= at + length)
    return False


def seconds(source: BinaryIO, size: int) -> float:
    """Return the seconds of sound. Raises ValueError if they can't be determined."""
    rate = 0
    for name, at, length in _chunks(source):
        if name == b"fmt ":
            source.seek(at + 8)
            rate = int.from_bytes(source.read(4), "little")
        elif name == b"data" and rate:
            left = size - at
            return (left if length in _UNKNOWN_LENGTHS else min(length, left)) / rate
    raise ValueError("no fmt and data chunks")


def _chunks(source: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, position and length of each chunk's content."""
    at = _HEADER
    while True:
        source.seek(at)
        head = source.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], at + 8, length
        at += 8 + length + length % 2
