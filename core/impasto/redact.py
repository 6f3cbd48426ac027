"""Remove known secrets, and characters that could forge a log line, from foreign text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import takewhile

from .interrupts import pass_interrupt

_LONGEST = 600
_MIN_LENGTH = 4
_PREFIX = 8
_LONGEST_READ = 4_000  # characters of an error's message that are looked at; some hold a whole answer
_BASE64 = re.compile(r"[\w+/%=-]{40,}")
_BINARY = re.compile(r"\\x[0-9a-f]{2}|[\0-\x08\x0e-\x1a\x1c-\x1f\ufffd]", re.IGNORECASE)
"""Marks of bytes in a text: escapes, as in the repr of bytes, and characters that no message has."""


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return the text without the secrets: plain, base64, percent-encoded, or beginnings of 8 characters or more."""
    for secret in secrets:
        if any(start in text for start in secret_starts(secret)):
            text = _mask_forms(text, _encoded_forms(secret))
    return text


def redact_bytes(data: bytes, secrets: Iterable[str]) -> bytes:
    """Return the bytes without the secrets, in the same forms."""
    for secret in secrets:
        if any(start.encode() in data for start in secret_starts(secret)):
            data = redact(data.decode("latin-1"), (secret,)).encode("latin-1")
    return data


@lru_cache(maxsize=64)
def secret_starts(secret: str) -> tuple[str, ...]:
    """Return the texts of which one is in each text that shows the secret; nothing for a secret of a few characters."""
    forms = _encoded_forms(secret) if len(secret) >= _MIN_LENGTH else ()
    return tuple({_start(form) for form in forms})


def _start(form: str) -> str:
    return form[:_PREFIX] if len(form) >= 2 * _PREFIX else form


def _encoded_forms(secret: str) -> set[str]:
    from base64 import b64encode, urlsafe_b64encode
    from urllib.parse import quote

    raw = secret.encode()
    encoded = [encode(raw).decode().rstrip("=") for encode in (b64encode, urlsafe_b64encode)]
    quoted = [quote(secret, safe=safe) for safe in ("", "/")]
    lower = [re.sub("%..", lambda found: found[0].lower(), each) for each in quoted]
    return {secret, secret.replace("/", "\\/"), *encoded, *quoted, *lower}


def _mask_forms(text: str, forms: set[str]) -> str:
    """Return the text with each match of a form replaced, as far as the longest matching form goes.

    Forms share beginnings: if only one of them were removed, the rest of another would remain.
    """
    starts = {form: _start(form) for form in forms}
    any_start = re.compile("|".join(map(re.escape, {*starts.values()})))
    pieces, at = list[str](), 0
    while found := any_start.search(text, at):
        first = found.start()
        candidates = [form for form, start in starts.items() if text.startswith(start, first)]
        pieces += (text[at:first], "***")
        at = first + max(_common_prefix_length(text, first, form) for form in candidates)
    return "".join((*pieces, text[at:]))


def _common_prefix_length(text: str, at: int, form: str) -> int:
    """Return how many characters of the form the text has at this position."""
    pairs = zip(text[at : at + len(form)], form, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def printable(text: str, longest: int = _LONGEST) -> str:
    """Return at most 600 characters, or ``longest``, with control characters and bidirectional overrides escaped."""
    short = text if len(text) <= longest else text[:longest] + "..."
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def describe_error(error: BaseException) -> str:
    """Return the type and the message of an error that a plugin raised, printable; the type alone if it has no message.

    Its own code makes the message, and may fail at that too. Image data in it is left out, as bytes or as base64.
    """
    try:
        text, binary, _ = _BINARY.sub("\0", str(error)[:_LONGEST_READ]).partition("\0")
        message = printable(
            _BASE64.sub(lambda run: f"[{len(run[0])} characters]", text) + "[binary data]" * len(binary)
        )
    except BaseException as fault:  # noqa: BLE001 - a plugin may raise anything
        pass_interrupt(fault)
        message = ""
    name = type(error).__name__
    return f"{name}: {message}" if message else name


_WORDS: Mapping[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}


def kind_in_words(value: object) -> str:
    """Return the kind of a value in words that hold for JSON, YAML and Python; of other objects the type's name."""
    return _WORDS.get(type(value), type(value).__name__)
