"""Whether a picture is all there. Decoders do not tell: they take a JPEG cut short, or a PNG without its end."""

from __future__ import annotations

_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def is_complete(data: bytes, media_type: str) -> bool:
    """Whether the trailer of a PNG, JPEG or WebP is there."""
    match media_type:
        case "image/png":
            return data.endswith(_PNG_END) or _PNG_END in data[-4096:]
        case "image/jpeg":
            return data.endswith(b"\xff\xd9") or b"\xff\xd9" in data[-4096:]
        case "image/webp":
            return len(data) >= 12 and len(data) >= int.from_bytes(data[4:8], "little") + 8
        case _:
            return False
