"""Takes known secrets, and what would forge a log line, out of a text that came from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

_LONGEST = 600
_LEAST = 4
_PREFIX = 8


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets: plain, base64, percent-encoded, or beginnings of eight characters and more."""
    for secret in secrets:
        if text and len(secret) >= _LEAST:
            for form in _forms(secret):
                text = _without(text, form)
    return text


def _forms(secret: str) -> list[str]:
    from base64 import b64encode, urlsafe_b64encode
    from urllib.parse import quote

    raw = secret.encode()
    encoded = (encode(raw).decode().rstrip("=") for encode in (b64encode, urlsafe_b64encode))
    return sorted({secret, quote(secret, safe=""), *encoded}, key=len, reverse=True)


def _without(text: str, form: str) -> str:
    """The text with each place that begins as ``form`` does cut out, as far as it goes on so."""
    start = form[:_PREFIX] if len(form) >= 2 * _PREFIX else form
    kept, at = "", 0
    while (found := text.find(start, at)) >= 0:
        kept += text[at:found] + "***"
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(text[found:], form, strict=False))
        at = found + sum(1 for _ in alike)
    return kept + text[at:]


def printable(text: str) -> str:
    """At most 600 characters, control characters and bidirectional overrides escaped."""
    short = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
