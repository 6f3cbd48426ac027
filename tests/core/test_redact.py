"""Texts from elsewhere, without the key and on one line."""

from __future__ import annotations

import base64
import urllib.parse

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


def test_printable_escapes_and_cuts() -> None:
    assert printable("a\nb\x1b\u202e") == "a\\nb\\x1b\\u202e"
    assert printable("é✓ ok") == "é✓ ok"
    assert len(printable("x" * 10_000)) == 603
