"""Requests with thousands of mistakes: the answer names a few of them, soon, and is no longer for all the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from impasto import Client, InvalidRequest, aimage_generation
from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import Running, Start, config
from tests.plugins.gateway.raw import HEADERS, JSON, POST, Lag, send

NAMES: dict[str, Any] = {f"stepz_{number}": number for number in range(49_000)}
MANY: dict[str, dict[str, Any]] = {
    "unknown names": NAMES,
    "unknown names in extra_body": {"extra_body": NAMES},
    "long names": {"x" * 9_000 + str(number): 1 for number in range(200)},
    "wrong items of a list": {"image": ["no image"] * 49_000},
    "wrong words": {"n": "x" * 400_000, "seed": "y" * 400_000, "aspect_ratio": "z" * 400_000, "size": "w" * 90_000},
}
MOST_BYTES = 32_000


@pytest.mark.parametrize("drop", [False, True], ids=["refused", "dropped"])
@pytest.mark.parametrize("name", MANY)
async def test_an_answer_does_not_grow_with_the_mistakes_of_its_request(
    start: Start, impasto_emulator: Emulator, name: str, drop: bool
) -> None:
    more = "litellm_settings:\n  drop_params: true\n" if drop else ""
    gateway = await start(config(impasto_emulator.url, more=more))
    body = json.dumps({"model": "sd3", "prompt": "p", **MANY[name]}).encode()
    head = POST + HEADERS + JSON + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with Lag() as lag:
        answer = await send(gateway.url, head + body)
    dropped = drop and "names" in name
    assert answer.status == (200 if dropped else 400), answer.data[:500]
    assert len(answer.data) < MOST_BYTES
    assert len(impasto_emulator.requests) == dropped
    assert lag.longest < 1  # seconds of work; it was a third of one for the names alone, twice that if traced


async def test_each_entrance_lists_a_few_problems_and_counts_the_rest(standing: Running) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await aimage_generation(prompt="p", model="stability/sd3.5-large", api_key="sk-x", **NAMES)
    async with Client(api_key="sk-x") as client:
        with pytest.raises(InvalidRequest) as by_client:
            await client.run("stability/sd3.5-large", prompt="p", **NAMES)
    for error in (refused.value, by_client.value):
        assert len(error.problems) <= 36
        assert len(str(error)) < MOST_BYTES
        assert "more problems" in str(error)
