"""Keys in no log, answer, metric, trace or repr, whatever goes wrong: the whole matrix of faults with canaries."""

from __future__ import annotations

import asyncio
import gc
import logging
from base64 import b64encode, urlsafe_b64encode
from typing import Any
from urllib.parse import quote

import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.telemetry import access_log

from .conftest import Start, config, entry
from .raw import send

PROVIDER = "sk-Canary+Provider/0123456789=abcdefghijklmn"
MASTER = "sk-Canary+Master/9876543210=nmlkjihgfedcba"
PROMPT = "canary-prompt-5f3a"

FAULTS: list[dict[str, Any]] = [
    *({"kind": "status", "status": s} for s in (400, 401, 402, 403, 404, 413, 422, 500, 502, 503, 504, 529)),
    {"kind": "status", "status": 429, "headers": {"retry-after": "0"}},
    *({"kind": "status", "status": 502, "body": "html"}, {"kind": "status", "status": 200, "body": "empty"}),
    *({"kind": kind} for kind in ("truncate", "cut", "reset", "close", "framing", "media-type", "filtered")),
]


def forms(key: str) -> list[str]:
    """What a key may look like, and its first twelve characters."""
    raw = key.encode()
    encoded = [encode(raw).decode().rstrip("=") for encode in (b64encode, urlsafe_b64encode)]
    return [key, quote(key, safe=""), *encoded, key[:12]]


CANARIES = [*forms(PROVIDER), *forms(MASTER)]


def found_in(text: str) -> list[str]:
    return [canary for canary in (*CANARIES, PROMPT) if canary in text]


async def test_no_key_is_found_anywhere(
    start: Start, impasto_emulator: Emulator, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    access_log.access_logger.setLevel(logging.DEBUG)
    entries = entry("sd3", "stability/sd3.5-large", impasto_emulator.url, key=PROVIDER)
    text = config(impasto_emulator.url, entries=entries, general="  timeout: 2\n").replace("sk-1234", MASTER)
    gateway = await start(text)
    gateway.session.headers["authorization"] = f"Bearer {MASTER}"
    messages: list[str] = []

    async def ask(method: str, path: str, **options: Any) -> int:
        answer = await gateway.ask(method, path, **options)
        messages.append(f"{answer.headers} {answer.body!r}" if answer.status != 200 else str(answer.headers))
        return answer.status

    body = {"model": "sd3", "prompt": PROMPT}
    for fault in FAULTS:
        impasto_emulator.reset()
        impasto_emulator.fault(**fault)
        await ask("POST", "/v1/images/generations", json=body)
    impasto_emulator.reset()
    for wrong in ({"prompt": 7}, {"model": PROVIDER}, {"api_key": PROVIDER}, {"user": "\n"}):
        await ask("POST", "/v1/images/generations", json={**body, **wrong})
    for path in (f"/{MASTER}", f"/v1/models/{quote(MASTER, safe='')}", f"/images/files/{quote(PROVIDER, safe='')}"):
        await ask("GET", path)
    for header in (f"Basic {MASTER}", f"Bearer {MASTER}x", MASTER, f"Bearer {PROVIDER}"):
        assert await ask("GET", "/v1/models", headers={"authorization": header}) == 401
    lines = (f"GET /{MASTER} HTTP/1.1 x", MASTER, f"GET / HTTP/1.1\r\nX: {MASTER * 400}")
    messages += [(await send(gateway.url, f"{line}\r\n\r\n".encode())).data.decode() for line in lines]
    messages.append((await gateway.ask("GET", "/metrics")).body.decode())
    messages.append((await gateway.ask("GET", "/v1/models")).body.decode())
    app = gateway.gateway._app
    messages.append(
        f"{app.runtime!r} {app.runtime.config!r} {app.runtime.auth!r} {app.runtime.models!r} {vars(gateway.gateway)!r}"
    )
    gc.collect()
    await asyncio.sleep(0)
    access_log.access_logger.setLevel(logging.NOTSET)
    out, err = capfd.readouterr()
    assert [(each[:200], found_in(each)) for each in messages if found_in(each)] == []
    records = [record for record in caplog.records if record.name != "asyncio"]
    assert [(r.name, r.getMessage()[:200]) for r in records if found_in(r.getMessage() + str(r.exc_text))] == []
    assert found_in(out + err) == []
