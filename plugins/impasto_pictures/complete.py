"""Whether a picture is all there. Decoders do not tell: they take a JPEG cut short, or a PNG without its end."""

from __future__ import annotations

_SCAN = 0xDA
_ALONE = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})
"""JPEG markers without a length: TEM, fill bytes, restarts, the start of the picture."""


def is_complete(data: bytes, media_type: str) -> bool:
    """Whether the trailer of a PNG, JPEG or WebP is there: the picture's own, not that of a preview inside it."""
    match media_type:
        case "image/png":
            return _png_ends(data)
        case "image/jpeg":
            scan = _first_scan(data)
            return scan is not None and data.rfind(b"\xff\xd9", scan) >= 0
        case "image/webp":
            return len(data) >= 12 and len(data) >= int.from_bytes(data[4:8], "little") + 8
        case _:
            return False


def _png_ends(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _first_scan(data: bytes) -> int | None:
    """Where the picture's own data begin, past the segments that may hold a preview with an end of its own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == _SCAN:
            return at
        at += (1 if marker == 0xFF else 2) if marker in _ALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
