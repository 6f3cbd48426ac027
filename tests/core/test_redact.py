"""Texts from elsewhere, without the key and on one line."""

from __future__ import annotations

import base64
import re
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from impasto import File
from impasto.call_errors import redacted_file
from impasto.redact import printable, redact, redact_bytes

KEY = "sk-abcdefghijklmnop"


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
        text = redact(f"before {form} after, {form}", (secret,))
        assert form[:8] not in text
        assert text.startswith("before ***")
        assert " after, ***" in text
    assert redact("sk-abc is too short to be it", (secret,)) == "sk-abc is too short to be it"
    assert redact("key abcd here", ("abcd",)) == "key *** here"
    assert redact("nothing", ()) == "nothing"


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
    text = redact(f"before {written} after, {written}", (secret,))
    assert re.fullmatch(r"before \*\*\*=* after, \*\*\*=*", text), text


def test_a_beginning_is_taken_out_from_eight_characters_on() -> None:
    secret = "sk-0123456789ABC"
    assert len(secret) == 16
    assert redact(f"key {secret[:8]}", (secret,)) == "key ***"
    assert redact(f"key {secret[:7]}", (secret,)) == f"key {secret[:7]}"


def test_a_short_secret_is_taken_out_whole_and_its_beginning_may_be_a_word() -> None:
    assert redact("stability: stability-9X", ("stability-9X",)) == "stability: ***"
    assert redact("a cat", ("cat",)) == "a cat", "three letters are no secret"
    assert redact("", ("stability-9X",)) == ""


def test_a_text_that_is_the_secret_alone() -> None:
    assert redact("sk-0123456789ABC", ("sk-0123456789ABC",)) == "***"


def test_every_form_in_one_text_in_any_order() -> None:
    secret = "sk-abcdefghijklmnop/qrs+tuv"
    forms = [write(secret) for write in FORMS.values()]
    for written in (forms, forms[::-1]):
        text = redact(" and ".join(written), (secret, "sk-another-one/of+2"))
        assert re.fullmatch(r"\*\*\*=*( and \*\*\*=*)*", text), text


def test_printable_escapes_and_cuts() -> None:
    assert printable("x" * 600) == "x" * 600
    assert printable("a\nb\x1b\u202e") == "a\\nb\\x1b\\u202e"
    assert printable("é✓ ok") == "é✓ ok"
    assert len(printable("x" * 10_000)) == 603


def test_bytes_are_returned_without_a_secret_and_else_as_they_are() -> None:
    assert redact_bytes(b"\xff\x00" + KEY.encode() + b"\xfe", (KEY,)) == b"\xff\x00***\xfe"
    image = b"\x89PNG\xff"
    assert redact_bytes(image, (KEY,)) is image


def test_a_text_of_a_hundred_thousand_beginnings_takes_no_long_time() -> None:
    began = time.process_time()
    assert redact_bytes(KEY[:8].encode() * 100_000, (KEY,)) == b"***" * 100_000
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize("before", [0, 2**20 - 4, 2**20 + 5])
def test_a_file_is_returned_without_a_secret_and_else_as_it_is(tmp_path: Path, before: int) -> None:
    path = tmp_path / "answer"
    path.write_bytes(b"." * before + KEY.encode() + b"." * 100)
    assert redacted_file(File.of(path), (KEY,)).read() == b"." * before + b"***" + b"." * 100
    path.write_bytes(b"." * before)
    file = File.of(path)
    assert redacted_file(file, (KEY,)) is file
