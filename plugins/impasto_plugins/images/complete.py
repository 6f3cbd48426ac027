"""Whether a picture is all there. Decoders do not tell: they take a JPEG cut short, or a PNG without its end."""

from __future__ import annotations

from typing import BinaryIO

from impasto import File

_SCAN = 0xDA
_ALONE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
"""JPEG markers without a length: TEM, fill bytes, restarts, the start of the picture."""

_END = b"\xff\xd9"
_WINDOW = 64 * 1024


def is_complete(data: bytes | File, media_type: str) -> bool:
    """Whether the trailer of a PNG, JPEG or WebP is there: the picture's own, not that of a preview inside it.

    A file is read in small pieces. Raises OSError.
    """
    if isinstance(data, bytes):
        return _is_complete(data, media_type)
    with data.open() as source:
        return _is_complete(_Slices(source, data.size), media_type)


class _Slices:
    """A file as something to slice."""

    def __init__(self, source: BinaryIO, size: int) -> None:
        self._source, self._size = source, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        self._source.seek(start)
        return self._source.read(max(stop - start, 0))


def _is_complete(data: bytes | _Slices, media_type: str) -> bool:
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


def _png_ends(data: bytes | _Slices) -> bool:
    at = 8
    while at + 12 <= len(data):
        head = data[at : at + 8]
        if head[4:] == b"IEND":
            return True
        at += 12 + int.from_bytes(head[:4], "big")
    return False


def _first_scan(data: bytes | _Slices) -> int | None:
    """Where the picture's own data begin, past the segments that may hold a preview with an end of its own."""
    at = 2
    while at + 4 <= len(data) and (head := data[at : at + 4])[0] == 0xFF:
        marker = head[1]
        if marker == _SCAN:
            return at
        at += (1 if marker == 0xFF else 2) if marker in _ALONE else 2 + int.from_bytes(head[2:], "big")
    return None


def _ends_after(data: bytes | _Slices, scan: int) -> bool:
    end = len(data)
    while end > scan:
        start = max(scan, end - _WINDOW)
        if _END in data[start : end + 1]:  # one more: the end may stand across two windows
            return True
        end = start
    return False
