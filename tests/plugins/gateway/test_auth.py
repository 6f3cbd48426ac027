"""Keys: what a wrong one is compared with, and what can be told from how long that takes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import pytest
from multidict import CIMultiDict

from impasto_plugins.gateway.auth import Authenticator
from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.errors import APIError
from tests.architecture.sources import ROOT

from .config.test_config import PAGE
from .conftest import key_entry

KEY = "sk-" + "Right0Key9" * 6
OTHER = "sk-" + "Other1Key8" * 6


def keys() -> Authenticator:
    text = PAGE.replace("os.environ/STABILITY_API_KEY", "k").replace("sk-1234", KEY)
    return Authenticator(parse(f"{text}keys:\n{key_entry('studio', OTHER)}".encode()), no_auth=False)


def steps(keys: Authenticator, params: Mapping[str, str]) -> list[tuple[str, int]]:
    """Every line that runs to judge a key, of any module, in order.

    It runs in a process of its own: CPython 3.11 may loop for ever in a function that is traced while a signal or
    another thread asks for attention.
    """
    ran: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        ran.append((frame.f_code.co_qualname, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        keys.authenticate(CIMultiDict(params))
    except APIError:
        return ran
    finally:
        sys.settrace(None)
    raise AssertionError("the key was taken")


WRONG = {
    "the first letter": "S" + KEY[1:],
    "the fourth letter": KEY[:3] + "x" + KEY[4:],
    "the middle": KEY[:30] + "x" + KEY[31:],
    "the last letter": KEY[:-1] + "x",
    "another one's first half": OTHER[:30] + KEY[30:],
    "nothing alike": "x" * len(KEY),
}


HEADERS = ("authorization", "api-key", "x-api-key")


def all_steps() -> dict[str, list[list[tuple[str, int]]]]:
    """The steps for each wrong key, by the header that has it."""
    found = {}
    for header in HEADERS:
        scheme = "Bearer " if header == "authorization" else ""
        found[header] = [steps(keys(), {header: scheme + wrong}) for wrong in WRONG.values()]
    return found


def test_a_wrong_key_takes_the_same_steps_wherever_it_is_wrong() -> None:
    """And none of them looks at a key itself: what is compared is the hash, which nobody can aim."""
    script = f"import json; from {__name__} import all_steps; print(json.dumps(all_steps()))"
    process = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    for header, found in json.loads(process.stdout).items():
        assert found[0][0][0] == "Authenticator.authenticate"
        for name, each in zip(WRONG, found, strict=True):
            assert each == found[0], (header, name)


@pytest.mark.parametrize(("key", "name"), [(KEY, "master"), (OTHER, "studio")])
def test_a_right_key_is_compared_by_its_hash_in_constant_time(
    key: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare)
    for header in ({"authorization": f"Bearer {key}"}, {"api-key": key}, {"X-API-Key": key}):
        assert keys().authenticate(CIMultiDict(header)).name == name
    digest = hashlib.sha256(key.encode()).digest()
    assert compared == [(digest, digest)] * 3


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}", "api-key": KEY, "x-api-key": KEY},
        {"authorization": "Basic dTpw", "x-api-key": KEY},
        {"authorization": "", "api-key": KEY},
        {"authorization": f"bearer   {KEY}"},
    ],
)
def test_one_key_may_come_in_several_headers(headers: Mapping[str, str]) -> None:
    assert keys().authenticate(CIMultiDict(headers)).name == "master"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"authorization": f"Bearer {KEY}", "api-key": OTHER}, "two different API keys"),
        ({"api-key": KEY, "x-api-key": "sk-wrong"}, "two different API keys"),
        ({"authorization": f"Basic {KEY}"}, "no API key"),
        ({"authorization": KEY}, "no API key"),
        ({"api-key": f"Bearer {KEY}"}, "the API key is invalid"),
        ({"api-key": ""}, "no API key"),
        ({"api-key": "é" + KEY}, "no API key"),
        ({}, "no API key"),
    ],
)
def test_anything_but_one_key_is_refused(headers: Mapping[str, str], message: str) -> None:
    with pytest.raises(APIError) as failure:
        keys().authenticate(CIMultiDict(headers))
    assert (failure.value.status, failure.value.code) == (401, "invalid_api_key")
    assert message in failure.value.message
    assert KEY not in failure.value.message


def test_a_header_that_comes_twice_holds_no_key() -> None:
    with pytest.raises(APIError, match="no API key"):
        keys().authenticate(CIMultiDict([("api-key", KEY), ("api-key", KEY)]))


def test_the_keys_themselves_are_not_held() -> None:
    key = keys()
    assert KEY not in repr(vars(key))
    assert not any(KEY in str(value) or OTHER in str(value) for value in (key._callers or {}).values())
