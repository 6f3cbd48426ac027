"""The access log: one line for each request, with its facts and without its secrets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.telemetry import access_log
from impasto_plugins.gateway.telemetry.access_log import AccessLogWriter
from impasto_plugins.gateway.telemetry.request_record import RequestRecord as Request
from tests.conftest import KEY
from tests.plugins.gateway.config.test_config import PAGE
from tests.plugins.gateway.conftest import MASTER, Running, Serve, Start, config
from tests.plugins.gateway.idempotency.test_repeats import ask
from tests.plugins.gateway.raw import send
from tests.reliability.servers import in_json, picture, refused, serving


class Seen(logging.Handler):
    """The lines of one test."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(record.getMessage())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text]


@pytest.fixture
def log() -> Iterator[Seen]:
    request = Seen()
    access_log.access_logger.addHandler(request)
    access_log.access_logger.setLevel(logging.INFO)
    yield request
    access_log.access_logger.removeHandler(request)
    access_log.access_logger.setLevel(logging.NOTSET)


async def test_a_requests_line(log: Seen, gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=503, times=1)
    answer = await gateway.ask("POST", "/images/generations", json={"model": "sd3", "prompt": "my secret", "n": 2})
    [line] = log.lines
    assert {name: line[name] for name in ("method", "route", "status", "key", "model", "deployment")} == {
        "method": "POST",
        "route": "/v1/images/generations",
        "status": 200,
        "key": "master",
        "model": "sd3",
        "deployment": "stability/sd3.5-large",
    }
    assert (line["attempts"], line["pictures"], line["cost_usd"], line["charge_unknown"]) == (3, 2, 0.13, False)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert set(line["provider_request_ids"]) == {each.id for each in impasto_emulator.requests}
    assert 0 < line["upstream_ms"] <= line["ms"]
    assert line["bytes_in"] == len(json.dumps({"model": "sd3", "prompt": "my secret", "n": 2}))
    assert line["bytes_out"] > len(answer.body)
    assert abs(time.time() - _seconds(line["time"])) < 60
    assert "my secret" not in log.text[0]
    assert MASTER not in log.text[0]
    assert KEY not in log.text[0]


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


async def test_an_unusable_answer_that_was_paid_for_has_its_cost_in_the_line(log: Seen, start: Start) -> None:
    async with serving() as provider:
        gateway = await start(config(provider.url))
        provider.posts = [in_json({"x": 1})]
        await gateway.generate()
        provider.posts = [picture(**{"finish-reason": "CONTENT_FILTERED"})]
        await gateway.generate()
        provider.posts = [refused(400)]
        await gateway.generate()
    assert [(line["code"], line["cost_usd"], line["charge_unknown"]) for line in log.lines] == [
        ("unusable_result", 0.065, False),
        ("moderation_blocked", None, True),
        ("provider_refused", None, False),
    ]


async def test_every_request_has_one_line(log: Seen, gateway: Running, impasto_emulator: Emulator) -> None:
    await gateway.generate(prompt="")
    await gateway.generate(model="none")
    await gateway.ask("GET", "/v1/models")
    await gateway.ask("GET", "/health/liveliness")
    await gateway.ask("GET", "/images/files/" + "A" * 43 + ".png")
    await gateway.ask("GET", "/sk-secret")
    await gateway.ask("GET", "/v1/models", headers={"authorization": "Bearer wrong"})
    impasto_emulator.fault("truncate")
    await gateway.generate()
    await send(gateway.url, b"no http\r\n\r\n")
    found = [(line["route"], line["status"], line.get("code"), line.get("model")) for line in log.lines]
    assert found == [
        ("/v1/images/generations", 400, "invalid_value", "sd3"),
        ("/v1/images/generations", 404, "model_not_found", "other"),
        ("/v1/models", 200, None, None),
        ("/health/liveliness", 200, None, None),
        ("/v1/images/files/", 404, "not_found", None),
        ("unknown", 404, "unknown_url", None),
        ("/v1/models", 401, "invalid_api_key", None),
        ("/v1/images/generations", 502, "charge_unknown", "sd3"),
        ("unknown", 400, "http", None),
    ]
    assert log.lines[-2]["charge_unknown"] is True
    assert len({line["request_id"] for line in log.lines}) == len(found)
    text = "".join(log.text)
    assert "sk-secret" not in text
    assert "A" * 43 not in text
    assert "wrong" not in text


async def test_a_caller_who_leaves_while_it_waits_for_another_call_has_one_line(
    log: Seen, gateway: Running, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("delay", seconds=0.5, times=1)
    first = asyncio.create_task(ask(gateway, key="k"))
    while not impasto_emulator.requests:
        await asyncio.sleep(0.01)
    second = asyncio.create_task(ask(gateway, key="k"))
    while gateway.gateway._app.running_count < 2:
        await asyncio.sleep(0.01)
    second.cancel()
    assert (await first).status == 200
    await gateway.idle()
    while len(log.lines) < 2:
        await asyncio.sleep(0.01)
    assert sorted(line["status"] for line in log.lines) == [200, 499]
    assert b'"500"' not in gateway.gateway.metrics.render("")[0]


async def test_a_key_is_known_by_its_name(log: Seen, start: Start, impasto_emulator: Emulator) -> None:
    digest = hashlib.sha256(b"sk-of-the-studio").hexdigest()
    gateway = await start(config(impasto_emulator.url, more=f"keys:\n  - {{name: studio, sha256: {digest}}}\n"))
    await gateway.ask("GET", "/v1/models", headers={"authorization": "Bearer sk-of-the-studio"})
    assert log.lines[0]["key"] == "studio"
    assert "sk-of-the-studio" not in log.text[0]
    assert digest not in log.text[0]


FORGED = 'x\r\n{"level": "error", "msg": "forged"}\n\x1b[2J\u202e\u2028\x7f\u200d"'


async def test_a_prompt_stands_there_where_it_is_asked_for_and_forges_nothing(
    log: Seen, start: Start, impasto_emulator: Emulator
) -> None:
    gateway = await start(config(impasto_emulator.url, general="  log_prompts: true\n"))
    await gateway.generate(prompt=FORGED)
    [text] = log.text
    assert text.isascii()
    assert text.isprintable()
    assert log.lines[0]["prompt"] == FORGED
    assert impasto_emulator.requests[0].fields["prompt"] == FORGED


async def test_it_can_be_switched_off(log: Seen, start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, general="  access_log: false\n"))
    await gateway.generate()
    assert not log.text


def test_a_process_writes_it_to_stdout(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = serve(PAGE)
    for _ in range(3):
        subprocess.run(["curl", "-sS", f"{url}/v1/models"], check=True, capture_output=True, timeout=60)
    process.terminate()
    written, output = process.communicate(timeout=60)
    assert [json.loads(line)["status"] for line in written.splitlines()] == [401] * 3
    assert "v1/models" not in output


def test_a_log_that_nobody_takes_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that is full blocks whoever writes to it: that is not the loop, and lines are lost instead."""
    monkeypatch.setattr(access_log, "MAX_QUEUED_LINES", 100)
    reader, writer = os.pipe()
    lines, lost_count = AccessLogWriter(writer), 0

    def count() -> None:
        nonlocal lost_count
        lost_count += 1

    lines.on_dropped_line = count
    request = Request(id="x" * 1000, method="GET")
    length, sent = len(access_log.format_line(request)) + 1, 0
    while lost_count < 10:
        lines.log(request)
        sent += 1
        if sent % 50 == 0:
            time.sleep(0.05)
        assert sent < 5000
    assert sent > 100  # what the pipe took, and what waits
    came = b""
    while len(came) < (sent - lost_count) * length:
        came += os.read(reader, 1 << 16)
    lines.__exit__(None, None, None)
    os.close(writer)
    assert [json.loads(line)["request_id"] for line in came.splitlines()] == ["x" * 1000] * (sent - lost_count)
    os.close(reader)


TEXTS = st.text(max_size=20)


@given(
    st.builds(
        Request,
        id=TEXTS,
        method=TEXTS,
        route=TEXTS,
        status=st.integers(0, 999),
        seconds=st.floats(0, 1e6),
        key=st.none() | TEXTS,
        prompt=st.none() | TEXTS,
        deployment=st.none() | TEXTS,
        cost_usd=st.none() | st.floats(0, 1e6),
        provider_ids=st.lists(TEXTS, max_size=3),
        charge_unknown=st.booleans(),
    )
)
def test_any_line_is_ascii_json_with_the_requests_own_values(request: Request) -> None:
    text = access_log.format_line(request)
    assert text.isascii()
    assert text.isprintable()
    entry = json.loads(text)
    assert (entry["request_id"], entry["route"], entry["status"]) == (request.id, request.route, request.status)
    assert (entry.get("key"), entry.get("prompt")) == (request.key, request.prompt)
    if request.deployment is not None:
        assert (entry["cost_usd"], entry["charge_unknown"]) == (request.cost_usd, request.charge_unknown)
        assert entry["provider_request_ids"] == request.provider_ids
