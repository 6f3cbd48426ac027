"""Several entries with one name: shared load, and standing in for each other only where nothing was charged."""

import asyncio
import socket
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from impasto import Unauthorized
from impasto_plugins.emulator import SHORT, Emulator, serve as emulate
from impasto_plugins.gateway.calls.deployments import COOLDOWN_FAILURES
from tests.images import drawn
from tests.plugins.gateway.conftest import Running, Start, config, entry
from tests.plugins.gateway.raw import until

pytestmark = pytest.mark.waits

PICTURE = "data:image/png;base64," + b64encode(drawn("PNG", size=(128, 128))).decode()
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


async def test_one_that_can_not_be_reached_costs_no_time_if_there_is_another(
    start: Start, impasto_emulator: Emulator
) -> None:
    """The retries of a connection take 2 s at least: the default policy outlasts an outage of that length."""
    name = "stability/sd3.5-large"
    first = entry("sd3", name, CLOSED, "sk-first-deployment").replace("      model:", "      order: 1\n      model:")
    entries = first + entry("sd3", name, impasto_emulator.url, "sk-other-deployment")
    gateway = await start(config(CLOSED, entries=entries))
    async with asyncio.timeout(1.9):
        answer = await gateway.generate(n=2)
    assert (answer.status, len(answer.json["data"]), len(impasto_emulator.charges)) == (200, 2, 2)


async def test_one_that_can_be_reached_soon_is_asked_again_if_the_other_fails(start: Start, second: Emulator) -> None:
    """The first deployment is restarted; the other one refuses its key."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    gateway = await both(start, f"http://127.0.0.1:{port}", second.url)
    second.fault("status", status=401)
    asking = asyncio.create_task(gateway.generate())
    await until(lambda: bool(second.requests))
    async with Emulator(attrs.evolve(SHORT, port=port)) as restarted:
        answer = await asking
        assert (answer.status, len(restarted.charges)) == (200, 1)


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


async def test_the_last_error_is_reported_if_all_fail(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    gateway = await both(start, impasto_emulator.url, second.url)
    for emulator in (impasto_emulator, second):
        emulator.fault("status", status=402)
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"]) == (502, "provider_account")
    assert len(impasto_emulator.requests) == len(second.requests) == 1


KEYS = ("sk-first-of-three", "sk-second-of-three", "sk-third-of-three")


def three(*bases: str, model: str = "stability/sd3.5-large") -> str:
    """A configuration with a deployment for each base, with as many keys, and the default longest wait of 60 s."""
    return config(bases[0], entries="".join(map(entry, ["sd3"] * 3, [model] * 3, bases, KEYS)))


@pytest.mark.parametrize("headers", [{}, {"retry-after": "60"}, {"retry-after": "1"}, {"retry-after": "0"}], ids=str)
async def test_a_key_that_is_held_back_is_not_waited_for_while_another_deployment_is_left(
    start: Start, impasto_emulator: Emulator, second: Emulator, headers: dict[str, str]
) -> None:
    """As long as the longest wait or shorter: whoever is asked first, the picture comes from the other at once."""
    gateway = await start(three(impasto_emulator.url, second.url))
    impasto_emulator.fault("status", status=429, headers=headers)
    async with asyncio.timeout(30):
        answers = [await gateway.generate(prompt=f"p{i}", n=2) for i in range(3)]
    assert [(each.status, len(each.json["data"])) for each in answers] == [(200, 2)] * 3
    assert len(second.charges) == 6
    assert not impasto_emulator.charges


async def test_an_edit_goes_to_the_other_deployment_too(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    gateway = await start(three(impasto_emulator.url, second.url, model="stability/erase"))
    for emulator, times in ((impasto_emulator, 2), (second, 1)):
        emulator.fault("status", status=429, headers={"retry-after": "0.3"}, times=times)
    body = {"model": "sd3", "images": [{"image_url": PICTURE}], "mask": PICTURE}
    async with asyncio.timeout(30):
        answer = await gateway.ask("POST", "/v1/images/edits", json=body)
    assert answer.status == 200, answer.body[:300]
    assert len(impasto_emulator.charges) + len(second.charges) == 1


@pytest.fixture
def third() -> Iterator[Emulator]:
    with emulate(SHORT) as emulator:
        yield emulator


async def test_if_all_are_busy_the_first_free_one_is_waited_for(
    start: Start, impasto_emulator: Emulator, second: Emulator, third: Emulator
) -> None:
    gateway = await start(three(impasto_emulator.url, second.url, third.url))
    for emulator, seconds in ((impasto_emulator, "50"), (second, "0.5"), (third, "40")):
        emulator.fault("status", status=429, headers={"retry-after": seconds}, times=1)
    async with asyncio.timeout(30):
        answer = await gateway.generate()
    assert answer.status == 200, answer.body[:300]
    assert [len(each.requests) for each in (impasto_emulator, second, third)] == [1, 2, 1]
    assert [len(each.charges) for each in (impasto_emulator, second, third)] == [0, 1, 0]


async def test_of_several_images_those_that_were_refused_for_now_are_waited_for_beside_one_that_came(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    """Elsewhere they would be asked for with all the others once more."""
    gateway = await start(three(impasto_emulator.url, second.url))
    for emulator in (impasto_emulator, second):
        emulator.fault("status", status=429, headers={"retry-after": "0.3"}, times=1)
    answer = await gateway.generate(n=3)
    assert (answer.status, len(answer.json["data"])) == (200, 3)
    assert len(impasto_emulator.charges) + len(second.charges) == 3
    assert not (impasto_emulator.charges and second.charges)


async def test_failures_count_in_a_row_and_not_in_a_life(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    """A deployment that fails now and then is asked as often as ever."""
    gateway = await start(three(impasto_emulator.url, second.url))
    (model,) = gateway.gateway._app.runtime.models.values()
    failing, other = model.deployments
    for _ in range(2 * COOLDOWN_FAILURES):
        impasto_emulator.fault("status", status=503, times=3)  # a call tries that often
        other.running = 99  # so that the first is the one to ask
        assert (await gateway.generate()).status == 200
        impasto_emulator.clear_faults()
        assert (await gateway.generate()).status == 200
        assert (failing.failures, failing.is_cooling_down()) == (0, False)
    assert len(second.charges) == len(impasto_emulator.charges) == 2 * COOLDOWN_FAILURES
    for _ in range(COOLDOWN_FAILURES):
        impasto_emulator.fault("status", status=503, times=3)
        assert (await gateway.generate()).status == 200
    assert failing.is_cooling_down()


async def test_a_deployment_that_answers_rests_no_longer(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    gateway = await start(three(impasto_emulator.url, second.url))
    (model,) = gateway.gateway._app.runtime.models.values()
    resting, other = model.deployments
    for each in (resting, other):
        each.record_failure(Unauthorized("a key that was dead for a while", status=401))
    assert resting.is_cooling_down()
    assert (await gateway.generate()).status == 200
    assert not (resting.is_cooling_down() and other.is_cooling_down())


async def test_a_parameter_that_one_deployment_lacks_picks_the_other(start: Start, impasto_emulator: Emulator) -> None:
    direct = entry("sd3", "stability/sd3.5-large", impasto_emulator.url)
    lacking = entry("sd3", "stability/stable-image-core", impasto_emulator.url)
    gateway = await start(config(impasto_emulator.url, entries=lacking + direct))
    for _ in range(4):
        assert (await gateway.generate(cfg_scale=5)).status == 200
    assert {request.target for request in impasto_emulator.requests} == {"/v2beta/stable-image/generate/sd3"}
    answer = await gateway.generate(cfg_scale=50, prompt="")
    assert answer.error["param"] == "prompt"  # what the first of them says
