"""What a configuration's values must be beyond their types. Each function gives what is wrong, or None."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit

_SHOWN = re.compile(r"[!-~]+")
_HOST = re.compile(r"(?!-)[a-z0-9_.-]{1,253}(?<!\.)|[0-9a-f:.]*:[0-9a-f:.]*")
_EMPTY = hashlib.sha256(b"").hexdigest()


def wrong_with_key(key: str) -> str | None:
    """A key that callers show in a header."""
    return None if _SHOWN.fullmatch(key) else "must be printable ASCII without spaces, as callers show it in a header"


def wrong_with_hash(digest: str) -> str | None:
    """The SHA-256 of such a key."""
    if set(digest) - set("0123456789abcdef"):
        return "must be 64 hexadecimal digits, small letters"
    return "is that of an empty key; give that of the key itself" if digest == _EMPTY else None


def wrong_with_host(host: str) -> str | None:
    """A name that stands in a ``Host`` header, in small letters."""
    return None if _HOST.fullmatch(host) else "must be names of hosts, without scheme, port or path, as images.example"


def wrong_with_url(url: str) -> str | None:
    """An address that others are told."""
    said = "must be http:// or https://, a host, and a path at most, as https://images.example"
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return said
    plain = _SHOWN.fullmatch(url) and not (parts.query or parts.fragment or "@" in parts.netloc)
    return None if sound and plain else said
