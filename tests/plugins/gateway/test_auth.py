"""Keys: what a wrong one is compared with, and what can be told from how long that takes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import pytest

from impasto_plugins.gateway.auth import Keys
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.errors import Failure

from .config.test_config import PAGE
from .conftest import named

KEY = "sk-" + "Right0Key9" * 6
OTHER = "sk-" + "Other1Key8" * 6


def keys() -> Keys:
    text = PAGE.replace("os.environ/STABILITY_API_KEY", "k").replace("sk-1234", KEY)
    return Keys(parse(f"{text}keys:\n{named('studio', OTHER)}".encode()), no_auth=False)


def steps(keys: Keys, given: Sequence[str]) -> list[tuple[str, int]]:
    """Every line that runs to judge a key, of any module, in order."""
    ran: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        ran.append((frame.f_code.co_qualname, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        keys.identify(given)
    except Failure:
        return ran
    finally:
        sys.settrace(before)
    raise AssertionError("the key was taken")


WRONG = {
    "the first letter": "S" + KEY[1:],
    "the fourth letter": KEY[:3] + "x" + KEY[4:],
    "the middle": KEY[:30] + "x" + KEY[31:],
    "the last letter": KEY[:-1] + "x",
    "another one's first half": OTHER[:30] + KEY[30:],
    "nothing alike": "x" * len(KEY),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_key_takes_the_same_steps_wherever_it_is_wrong(name: str) -> None:
    """And none of them looks at a key itself: what is compared is the hash, which nobody can aim."""
    known = keys()
    expected = steps(known, [f"Bearer {WRONG['the first letter']}"])
    assert expected[0][0] == "Keys.identify"
    assert steps(known, [f"Bearer {WRONG[name]}"]) == expected


@pytest.mark.parametrize(("key", "name"), [(KEY, "master"), (OTHER, "studio")])
def test_a_right_key_is_compared_by_its_hash_in_constant_time(
    key: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    assert keys().identify([f"Bearer {key}"]).name == name
    digest = hashlib.sha256(key.encode()).digest()
    assert compared == [(digest, digest)]


def test_the_keys_themselves_are_not_held() -> None:
    known = keys()
    assert KEY not in repr(vars(known))
    assert not any(KEY in str(value) or OTHER in str(value) for value in (known._callers or {}).values())
