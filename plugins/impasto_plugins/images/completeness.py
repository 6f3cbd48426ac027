"""Completeness of an image file. Decoders do not report it: they accept a truncated JPEG, and a PNG without its end."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from impasto import File

from .size import size_in

_SCAN = 0xDA
_ALONE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
"""JPEG markers without a length: TEM, fill bytes, restarts, the start of the image."""

_END = b"\xff\xd9"
_WINDOW = 64 * 1024
_WEBP_IMAGES = frozenset({b"VP8 ", b"VP8L"})
_MAX_STEPS = 100_000
"""Chunks or segments that are read at most: an encoder writes a few thousand, an attacker one each 4 bytes."""


def is_complete(data: bytes | File | _Slices, media_type: str) -> bool:
    """Return True if the trailer of a PNG, JPEG or WebP is there: the image's own, not that of a preview inside it.

    A file is read in small pieces.

    Raises:
        OSError: the file can't be read.
    """
    if isinstance(data, File):
        with data.open() as source:
            return is_complete(_Slices(source, data.size), media_type)
    match media_type:
        case "image/png":
            return _png_ends(data)
        case "image/jpeg":
            scan = _first_scan(data)
            return scan is not None and _ends_after(data, scan)
        case "image/webp":
            return len(data) >= 12 and len(data) >= int.from_bytes(data[4:8], "little") + 8
        case _:
            return False


def is_intact(source: BinaryIO, size: int, media_type: str) -> bool:
    """Return True if an image to be sent is complete and undamaged, as far as its format can show it.

    Stricter than ``is_complete``: every checksum of a PNG must be right and all of its rows there, a JPEG must have
    the data of all blocks, and a WebP's first frame must be in its RIFF. Reads in small pieces. It decodes, so large
    images need a thread.

    Raises:
        OSError: the file can't be read.
    """
    from . import pixel_data  # answers, which are only checked for completeness, do not need it

    match media_type:
        case "image/png":
            return _png_is_intact(source)
        case "image/webp":
            return is_complete(_Slices(source, size), media_type) and _webp_is_intact(source)
        case "image/jpeg":
            return is_complete(_Slices(source, size), media_type) and pixel_data.jpeg_has_all_blocks(source)
        case _:
            return False


class _Slices:
    """A file that can be sliced like bytes, so that both are checked by the same code."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        self._source, self._size = source, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        self._source.seek(start)
        return self._source.read(max(stop - start, 0))


def _png_ends(data: bytes | _Slices) -> bool:
    at = 8
    while at + 12 <= len(data):
        head = data[at : at + 8]
        if head[4:] == b"IEND":
            return True
        at += 12 + int.from_bytes(head[:4], "big")
    return False


def _png_is_intact(source: BinaryIO) -> bool:
    """Read chunk by chunk up to IEND. Bytes after it are not the image's; some cameras write them."""
    from .pixel_data import PngRows

    source.seek(16)  # the content of IHDR, always the first chunk
    rows = PngRows(source.read(13))
    source.seek(8)
    has_pixels = False
    for _ in range(_MAX_STEPS):
        head = source.read(8)
        left, kind = int.from_bytes(head[:4], "big"), head[4:]
        checksum = zlib.crc32(kind)
        while left and (piece := source.read(min(left, _WINDOW))):
            checksum = zlib.crc32(piece, checksum)
            left -= len(piece)
            if kind == b"IDAT" and not rows.feed(piece):
                return False
        if left or source.read(4) != checksum.to_bytes(4, "big"):  # truncated, or damaged
            return False
        if kind == b"IEND":
            return has_pixels and rows.missing <= 0  # decoders paint missing rows black or grey
        has_pixels = has_pixels or kind == b"IDAT"
    return False


def _webp_is_intact(source: BinaryIO) -> bool:
    source.seek(4)
    end, at = int.from_bytes(source.read(4), "little") + 8, 12
    for _ in range(_MAX_STEPS):
        source.seek(at)
        head = source.read(8)
        start, size = at + 8, int.from_bytes(head[4:], "little")
        at = start + size
        if len(head) < 8 or at > end:  # the chunk reaches beyond its RIFF
            return False
        if head[:4] == b"ANMF":
            return True  # an animation: its frames are not judged
        if head[:4] in _WEBP_IMAGES:
            from .pixel_data import webp_has_all_pixels

            source.seek(0)
            width, height = size_in(source, "image/webp")
            return webp_has_all_pixels(source, start, size, width * height)
        at += at % 2  # chunks begin at even places
    return False


def _first_scan(data: bytes | _Slices) -> int | None:
    """Return the place of the image's own data, after the segments that may have a preview with an end of its own."""
    at = 2
    for _ in range(_MAX_STEPS):
        head = data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker = head[1]
        if marker == _SCAN:
            return at
        at += (1 if marker == 0xFF else 2) if marker in _ALONE else 2 + int.from_bytes(head[2:], "big")
    return None


def _ends_after(data: bytes | _Slices, scan: int) -> bool:
    end = len(data)
    while end > scan:
        start = max(scan, end - _WINDOW)
        if _END in data[start : end + 1]:  # one byte more: the marker may cross two windows
            return True
        end = start
    return False
