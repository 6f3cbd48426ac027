"""Texts from elsewhere, without the key and on one line."""

from __future__ import annotations

import base64
import re
import urllib.parse
from collections.abc import Callable

import pytest

from impasto.redact import printable, redacted


def test_redacted_takes_every_form_out() -> None:
    secret = "sk-abcdefghijklmnop/qrs+tuv"
    for form in (
        secret,
        secret[:9],
        secret[:-1],
        base64.b64encode(secret.encode()).decode(),
        base64.urlsafe_b64encode(secret.encode()).decode(),
        urllib.parse.quote(secret, safe=""),
    ):
        said = redacted(f"before {form} after, {form}", (secret,))
        assert form[:8] not in said
        assert said.startswith("before ***")
        assert " after, ***" in said
    assert redacted("sk-abc is too short to be it", (secret,)) == "sk-abc is too short to be it"
    assert redacted("key abcd here", ("abcd",)) == "key *** here"
    assert redacted("nothing", ()) == "nothing"


SECRETS = (
    "sk-abcdefghijklmnop/qrs+tuv",
    "/+/wJalrXUtnFEMI+K7MDENG/bPxRfiCY==",
    "a+/b",
    "pass%word&x=1?#/+" * 2,
    "???>>>~~~-a-key-of-somebody",
    "k" * 20 + "???>>>~~~",
)
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "all but its end": lambda secret: secret[:-1] if len(secret) > 16 else secret,
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "URL-safe base64": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "base64 without padding": lambda secret: base64.b64encode(secret.encode()).decode().rstrip("="),
    "percent-encoded": lambda secret: urllib.parse.quote(secret, safe=""),
    "percent-encoded in lower case": lambda secret: re.sub(
        "%..", lambda found: found[0].lower(), urllib.parse.quote(secret, safe="")
    ),
    "a path": urllib.parse.quote,
    "JSON that escapes slashes": lambda secret: secret.replace("/", "\\/"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", SECRETS)
def test_nothing_of_a_secret_is_left_whatever_its_characters(secret: str, form: str) -> None:
    """Keys of letters alone look alike in most forms; AWS's have slashes and pluses anywhere."""
    written = FORMS[form](secret)
    said = redacted(f"before {written} after, {written}", (secret,))
    assert re.fullmatch(r"before \*\*\*=* after, \*\*\*=*", said), said


def test_printable_escapes_and_cuts() -> None:
    assert printable("a\nb\x1b\u202e") == "a\\nb\\x1b\\u202e"
    assert printable("é✓ ok") == "é✓ ok"
    assert len(printable("x" * 10_000)) == 603
