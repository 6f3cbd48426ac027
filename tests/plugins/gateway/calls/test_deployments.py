"""Several entries with one name: shared load, and standing in for each other only where nothing was charged."""

import asyncio
from typing import Any

import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import Running, Start, config, entry

CLOSED = "http://127.0.0.1:9"


async def both(start: Start, first: str, other: str, general: str = "") -> Running:
    name = "stability/sd3.5-large"
    entries = entry("sd3", name, first, "sk-first-deployment") + entry("sd3", name, other, "sk-other-deployment")
    return await start(config(first, entries=entries, general=general))


async def test_the_load_is_shared(start: Start, impasto_emulator: Emulator, second: Emulator) -> None:
    gateway = await both(start, impasto_emulator.url, second.url)
    impasto_emulator.fault("delay", seconds=0.2)
    second.fault("delay", seconds=0.2)
    answers = await asyncio.gather(*(gateway.generate() for _ in range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    assert (len(impasto_emulator.charges), len(second.charges)) == (4, 4)


@pytest.mark.parametrize("status", [401, 402, 500, 503])
async def test_another_stands_in_where_nothing_was_charged(
    start: Start, impasto_emulator: Emulator, second: Emulator, status: int
) -> None:
    gateway = await both(start, impasto_emulator.url, second.url, "  timeout: 10\n")
    impasto_emulator.fault("status", status=status)
    answers = [await gateway.generate() for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert len(impasto_emulator.charges) == 0
    assert len(second.charges) == 4


async def test_one_that_can_not_be_reached_is_stood_in_for(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await both(start, CLOSED, impasto_emulator.url, "  timeout: 2\n")
    answers = await asyncio.gather(*(gateway.generate() for _ in range(4)))
    assert [answer.status for answer in answers] == [200] * 4
    assert len(impasto_emulator.charges) == 4


@pytest.mark.parametrize(
    "case",
    [
        ("charge_unknown", {"kind": "truncate"}),
        ("charge_unknown", {"kind": "reset"}),
        ("charge_unknown", {"kind": "status", "status": 502, "body": "html"}),
        ("unusable_result", {"kind": "status", "status": 200, "body": "empty"}),
        ("moderation_blocked", {"kind": "status", "status": 403, "name": "content_moderation"}),
        ("provider_refused", {"kind": "status", "status": 422}),
    ],
    ids=str,
)
async def test_nobody_stands_in_where_it_may_have_been_charged_or_would_fail_again(
    start: Start, impasto_emulator: Emulator, second: Emulator, case: tuple[str, dict[str, Any]]
) -> None:
    code, fault = case
    gateway = await both(start, impasto_emulator.url, second.url)
    impasto_emulator.fault(**fault)
    second.fault(**fault)
    assert (await gateway.generate()).error["code"] == code
    assert len(impasto_emulator.requests) + len(second.requests) == 1


async def test_of_several_pictures_one_that_may_be_charged_keeps_all_here(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    gateway = await both(start, impasto_emulator.url, second.url)
    for emulator in (impasto_emulator, second):
        emulator.fault("status", status=401, times=2)
        emulator.fault("truncate")
    answer = await gateway.generate(n=3)
    assert answer.error["code"] == "charge_unknown"
    assert len(impasto_emulator.requests) + len(second.requests) == 3
    assert len(impasto_emulator.charges) + len(second.charges) == 1


async def test_a_deployment_that_failed_rests(start: Start, impasto_emulator: Emulator, second: Emulator) -> None:
    gateway = await both(start, impasto_emulator.url, second.url)
    impasto_emulator.fault("status", status=401)
    for _ in range(8):
        assert (await gateway.generate()).status == 200
    assert len(impasto_emulator.requests) <= 1
    impasto_emulator.clear_faults()
    second.fault("status", status=401)
    assert (await gateway.generate()).status == 200  # at rest, but better than none


async def test_where_all_fail_the_last_is_told(start: Start, impasto_emulator: Emulator, second: Emulator) -> None:
    gateway = await both(start, impasto_emulator.url, second.url)
    for emulator in (impasto_emulator, second):
        emulator.fault("status", status=402)
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"]) == (502, "provider_account")
    assert len(impasto_emulator.requests) == len(second.requests) == 1


async def test_a_parameter_that_one_deployment_lacks_picks_the_other(start: Start, impasto_emulator: Emulator) -> None:
    direct = entry("sd3", "stability/sd3.5-large", impasto_emulator.url)
    lacking = entry("sd3", "stability/stable-image-core", impasto_emulator.url)
    gateway = await start(config(impasto_emulator.url, entries=lacking + direct))
    for _ in range(4):
        assert (await gateway.generate(cfg_scale=5)).status == 200
    assert {request.target for request in impasto_emulator.requests} == {"/v2beta/stable-image/generate/sd3"}
    answer = await gateway.generate(cfg_scale=50, prompt="")
    assert answer.error["param"] == "prompt"  # what the first of them says
