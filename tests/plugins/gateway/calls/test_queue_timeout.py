"""More work than can be done: what would wait longer than its caller does is sent away before anything is spent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.calls.queue_timeout import read_max_queue_wait
from tests.plugins.gateway.conftest import Answer, Running, Start, config, entry


async def paused(start: Start, emulator: Emulator, key: str, general: str = "") -> Running:
    """A gateway whose provider has just asked for three seconds of silence."""
    own = entry("sd3", "stability/sd3.5-large", emulator.url, key=key)
    gateway = await start(config(emulator.url, entries=own, general=f"  timeout: 30\n{general}"))
    emulator.fault("status", status=429, headers={"retry-after": "3"}, times=1)
    first = asyncio.create_task(gateway.generate())
    while not emulator.requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    first.cancel()
    return gateway


@pytest.mark.parametrize("header", ["x-stainless-read-timeout", "x-stainless-timeout"])
async def test_a_call_that_would_wait_longer_than_its_caller_is_refused(
    start: Start, impasto_emulator: Emulator, header: str
) -> None:
    gateway = await paused(start, impasto_emulator, f"sk-of-the-impatient-{header}")
    began, before = time.monotonic(), len(impasto_emulator.requests)
    body = {"model": "sd3", "prompt": "another"}
    answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers={header: "0.5"})
    assert time.monotonic() - began < 2
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert answer.headers["x-should-retry"] == "true"
    assert len(impasto_emulator.requests) == before
    answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers={header: "20"})
    assert answer.status == 200
    assert time.monotonic() - began > 1.5


async def test_nobody_waits_longer_than_the_configuration_says(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await paused(start, impasto_emulator, "sk-of-the-strict", "  max_wait_seconds: 0.5\n")
    answer = await gateway.generate(prompt="another")
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert "nothing was sent" in (answer.error["message"] or "")


async def test_another_deployment_is_asked_before_anybody_is_sent_away(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    name = "stability/sd3.5-large"
    entries = entry("sd3", name, impasto_emulator.url, "sk-first-of-two") + entry("sd3", name, second.url)
    gateway = await start(config(impasto_emulator.url, entries=entries, general="  max_wait_seconds: 1\n"))
    impasto_emulator.fault("status", status=429, headers={"retry-after": "30"})
    assert [(await gateway.generate(prompt=f"p{i}")).status for i in range(4)] == [200] * 4
    assert len(second.charges) == 4
    assert len(impasto_emulator.requests) <= 1


async def test_ten_times_what_it_can_do(start: Start, impasto_emulator: Emulator) -> None:
    """Eight pictures fit at a time, each takes 0.2 s, and callers come ten times as fast, whatever they are told."""
    gateway = await start(config(impasto_emulator.url, general=f"  max_bytes_in_flight: {1 << 24}\n"))
    impasto_emulator.fault("delay", seconds=0.2)
    calls: list[asyncio.Task[Answer]] = []
    for number in range(240):
        calls.append(asyncio.create_task(gateway.generate(prompt=f"p{number}")))
        await asyncio.sleep(0.0025)
    answers = await asyncio.gather(*calls)
    came = Counter(answer.status for answer in answers)
    assert set(came) == {200, 503}
    assert came[200] == len(impasto_emulator.charges) == len(impasto_emulator.requests) >= 16
    for answer in answers:
        if answer.status == 503:
            assert answer.error["code"] == "overloaded"
            assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    assert (await gateway.generate()).status == 200
    assert gateway.gateway._app.memory.used_bytes == 0


@pytest.mark.parametrize("text", ["1000000000", "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_a_wait_that_makes_no_sense_is_not_passed_on(start: Start, impasto_emulator: Emulator, text: str) -> None:
    own = entry("sd3", "stability/sd3.5-large", impasto_emulator.url, key=f"sk-of-the-lost-{len(text)}")
    gateway = await start(config(impasto_emulator.url, entries=own))
    impasto_emulator.fault("status", status=429, headers={"retry-after": text})
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(answer.headers["retry-after"]) <= 3600
    (model,) = gateway.gateway._app.runtime.models.values()
    assert model.deployments[0].cooldown_until - time.monotonic() <= 3600


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 60),
        ({"x-stainless-read-timeout": "600.0"}, 60),
        ({"x-stainless-read-timeout": "5"}, 5),
        ({"x-stainless-timeout": "7"}, 7),
        ({"x-stainless-read-timeout": "nan"}, 60),
        ({"x-stainless-read-timeout": "-1"}, 60),
        ({"x-stainless-read-timeout": "0"}, 60),
        ({"x-stainless-read-timeout": "inf"}, 60),
        ({"x-stainless-read-timeout": "soon"}, 60),
    ],
)
def test_the_time_that_a_caller_waits(headers: dict[str, str], expected: float) -> None:
    assert read_max_queue_wait(headers, 60) == expected
