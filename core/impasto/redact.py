"""Takes known secrets, and what would forge a log line, out of a text that came from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 600
_LEAST_PREFIX = 8


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets: plain, base64, percent-encoded, or their beginnings."""
    for secret in secrets:
        text = _without(text, secret)
    return text


def _without(text: str, secret: str) -> str:
    if len(secret) < 4 or not text:
        return text
    from base64 import b64encode, urlsafe_b64encode
    from urllib.parse import quote

    raw = secret.encode()
    forms = {
        secret,
        quote(secret, safe=""),
        b64encode(raw).decode().rstrip("="),
        urlsafe_b64encode(raw).decode().rstrip("="),
    }
    if len(secret) >= 2 * _LEAST_PREFIX:
        forms.add(secret[: max(_LEAST_PREFIX, len(secret) // 2)])
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def printable(text: str) -> str:
    """At most 600 characters, control characters and bidirectional overrides escaped."""
    short = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
