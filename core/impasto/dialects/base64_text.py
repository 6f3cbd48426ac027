"""Base64 as providers and callers write it."""

from __future__ import annotations

import base64
import re

DATA_URI = re.compile(rb"data:[^,\"]{0,200},", re.IGNORECASE)
"""The beginning of a ``data:`` URI. Its media type is ignored: the content has its own."""

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """Decode base64 of either alphabet, also in a ``data:`` URI, with line breaks in it, or without its padding.

    Raises:
        ValueError: bytes are missing or damaged.
    """
    data = text.encode("ascii")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        pass
    data = data.strip()
    if (prefix := DATA_URI.match(data)) is not None:
        data = data[prefix.end() :]
    if b"%" in data:
        from urllib.parse import unquote_to_bytes  # only for URIs that quote + and =

        data = unquote_to_bytes(data)
    data = b"".join(data.split()).translate(_TO_STANDARD).rstrip(b"=")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
