"""Base64 inside a file, decoded as it is read: for images in JSON that are too large for memory."""

from __future__ import annotations

import io
from typing import BinaryIO

import pybase64

from impasto import File
from impasto.ext import Positioned, media_type_of

PIECE = 1 << 18
"""Bytes per read: a multiple of 4."""

_BUFFER = PIECE // 4 * 3
_HEAD = 24


def decode_part(file: File, start: int, end: int) -> File:
    """Check the base64 from ``start`` to ``end`` and return its content as a file. Raises ValueError and OSError."""
    with file.open() as source:
        source.seek(start)
        size = 0
        for at in range(start, end, PIECE):
            text = source.read(min(PIECE, end - at))
            data = pybase64.b64decode(text, validate=True)
            if at + PIECE < end and len(data) < _BUFFER:
                raise ValueError("padding before the end")
            size += len(data)
        source.seek(start)
        head = pybase64.b64decode(source.read(min(_HEAD, (end - start) // 4 * 4)))
    return File(
        label=file.label,
        size=size,
        media_type=media_type_of(head) or "application/octet-stream",
        opener=lambda: io.BufferedReader(_Decoded(file.open(), start, size), _BUFFER),
        on_disk=True,
    )


class _Decoded(Positioned):
    """A reader that decodes as it reads."""

    def __init__(self, source: BinaryIO, start: int, size: int) -> None:
        super().__init__(size)
        self._source, self._start = source, start

    def read_at(self, at: int, size: int) -> bytes:
        group, skip = divmod(at, 3)
        self._source.seek(self._start + group * 4)
        text = self._source.read((skip + size + 2) // 3 * 4)
        return pybase64.b64decode(text, validate=True)[skip : skip + size]

    def close(self) -> None:
        self._source.close()
        super().close()
