"""Width and height of an image from its header. Nothing is decoded, whatever size the header claims."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from impasto import File

_MAX_STEPS = 10_000
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def size_of(file: File) -> tuple[int, int]:
    """Return width and height in pixels of a PNG, JPEG or WebP.

    Raises ValueError or OSError if the header is damaged.
    """
    with reading(file) as source:
        return size_in(source, file.media_type)


@contextmanager
def reading(file: File) -> Iterator[BinaryIO]:
    """Open a file for many small reads, each of which returns all bytes it asks for."""
    with file.open() as raw, io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else raw as source:
        yield source


def size_in(source: BinaryIO, media_type: str) -> tuple[int, int]:
    """Return width and height of the image at a reader's start."""
    match media_type:
        case "image/png":
            width, height = _of_png(source.read(33))
        case "image/jpeg":
            width, height = _of_jpeg(source)
        case "image/webp":
            width, height = _of_webp(source.read(30))
        case other:
            raise ValueError(f"not a PNG, JPEG or WebP image: {other}")
    if width < 1 or height < 1:
        raise ValueError("a side is 0")
    return width, height


def _of_png(head: bytes) -> tuple[int, int]:
    if len(head) < 33 or head[8:16] != b"\x00\x00\x00\rIHDR" or zlib.crc32(head[12:29]) != int.from_bytes(head[29:33]):
        raise ValueError("invalid IHDR chunk")
    width, height = struct.unpack_from(">II", head, 16)
    return width, height


def _of_jpeg(source: BinaryIO) -> tuple[int, int]:
    """Read segment by segment up to the first frame header."""
    source.seek(2)
    for _ in range(_MAX_STEPS):
        marker = source.read(2)
        if marker == b"\xff\xff":  # a fill byte: any number may stand before a marker
            source.seek(-1, io.SEEK_CUR)
            continue
        if len(marker) < 2 or marker[0] != 0xFF:
            break
        if marker[1] in _WITHOUT_LENGTH:
            continue
        head = source.read(2)
        if marker[1] in _FRAMES:
            height, width = struct.unpack(">xHH", source.read(5).ljust(5, b"\0"))
            return width, height
        if (length := int.from_bytes(head)) < 2:
            break
        source.seek(length - 2, io.SEEK_CUR)
    raise ValueError("no frame header")


def _of_webp(head: bytes) -> tuple[int, int]:
    if len(head) < 30:
        raise ValueError("incomplete header")
    match head[12:16]:
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L" if head[20] == 0x2F:
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        case _:
            raise ValueError("no VP8, VP8L or VP8X chunk at the start")
