"""Headers, of callers and of providers, that are not what they should be."""

from __future__ import annotations

import base64
import hashlib
import json
import logging

import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.telemetry import access_log
from tests.plugins.gateway.conftest import Running, Start, config
from tests.reliability.servers import picture, serving

ALIKE = "sk-" + "a" * 60
ODD = ["a\tb", "é", "\xff" * 20, "x" * 8000, "{{7*7}}", "\x7f", "a" * 600 + "\t"]


@pytest.mark.parametrize("id", ODD, ids=range(len(ODD)))
async def test_a_picture_is_delivered_whatever_stands_beside_it(start: Start, id: str) -> None:
    async with serving() as provider:
        gateway = await start(config(provider.url))
        provider.posts = [picture(**{"x-request-id": id, "finish-reason": "SUCCESS"})]
        answer = await gateway.generate()
    assert answer.status == 200, answer.body[:300]
    assert base64.b64decode(answer.json["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert all(value.isprintable() and value.isascii() for value in answer.headers.values())


async def test_keys_that_begin_alike_are_two(start: Start, impasto_emulator: Emulator) -> None:
    """No part of a key stands for it: each is known by the hash of the whole."""
    text = "keys:\n"
    for name in ("first", "second"):
        digest = hashlib.sha256(f"{ALIKE}{name}".encode()).hexdigest()
        text += f"  - {{name: {name}, sha256: {digest}, models: [{'sd3' if name == 'first' else 'core'}]}}\n"
    gateway = await start(config(impasto_emulator.url, more=text))
    names: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: names.append(json.loads(record.getMessage())["key"])  # type: ignore[method-assign]
    access_log.access_logger.addHandler(handler)
    access_log.access_logger.setLevel(logging.INFO)
    body = {"model": "sd3", "prompt": "p"}
    statuses = []
    for name in ("first", "second", "first"):
        headers = {"authorization": f"Bearer {ALIKE}{name}"}
        statuses.append((await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)).status)
    access_log.access_logger.removeHandler(handler)
    access_log.access_logger.setLevel(logging.NOTSET)
    assert statuses == [200, 404, 200]
    assert names == ["first", "second", "first"]
    for prefix in (ALIKE, ALIKE + "firs", ALIKE + "firsts"):
        answer = await gateway.ask("GET", "/v1/models", headers={"authorization": f"Bearer {prefix}"})
        assert answer.error["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "key", ["' OR 1=1--", "%00", "x" * 8192, "é", "sk-1234\x0b", "sk-1234,sk-1234", "SK-1234", "null", "\u202esk"]
)
async def test_a_key_that_is_none(standing: Running, impasto_emulator: Emulator, key: str) -> None:
    from tests.plugins.gateway.raw import send

    raw = f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"
    answer = await send(standing.url, raw.encode())
    assert answer.status in ((400,) if "\x0b" in key else (401,))
    assert answer.error["code"] in ("invalid_api_key", "invalid_http")
    assert key not in (answer.error["message"] or "")
