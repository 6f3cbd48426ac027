"""Keys with limits: what they may spend is exact, whatever happens to the calls and to the gateway."""

import asyncio
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import attrs
import openai
import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import Answer, Running, Serve, Start, config, entry, key_entry, sdk_client
from tests.plugins.gateway.records import database

KEY = "sk-studio-" + "k" * 24
OTHER = "sk-other-" + "k" * 24
NOON = 1_790_856_000.0
"""Of 1 October 2026, UTC."""

SD3 = "stability/sd3.5-large"
"""0.065 USD a picture."""


async def limited(start: Start, base: str, *, entries: str = "", **limits: Any) -> Running:
    """A gateway whose client has a key with these limits."""
    keys = "keys:\n" + key_entry("studio", KEY, **limits) + key_entry("other", OTHER, models="[sd3]", **limits)
    running = await start(config(base, entries=entries, more=keys))
    running.session.headers["authorization"] = f"Bearer {KEY}"
    return running


async def outcomes(calls: list[Awaitable[Answer]]) -> dict[str, list[Answer]]:
    """The answers of calls made side by side, by their codes."""
    found: dict[str, list[Answer]] = {}
    for answer in await asyncio.gather(*calls):
        found.setdefault("made" if answer.status == 200 else str(answer.error["code"]), []).append(answer)
    return found


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"rpm": 10}, "rate_limit_exceeded"),
        ({"images_per_day": 10}, "insufficient_quota"),
        ({"usd_per_month": 0.65}, "insufficient_quota"),
    ],
    ids=["rpm", "images_per_day", "usd_per_month"],
)
async def test_of_fifty_calls_with_means_for_ten_ten_are_made(
    start: Start, impasto_emulator: Emulator, limits: dict[str, Any], code: str
) -> None:
    gateway = await limited(start, impasto_emulator.url, **limits)
    found = await outcomes([gateway.generate() for _ in range(50)])
    assert {name: len(answers) for name, answers in found.items()} == {"made": 10, code: 40}
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 10
    for refused in found[code]:
        assert refused.status == 429
        assert refused.headers["x-should-retry"] == str(code == "rate_limit_exceeded").lower()
        assert int(refused.headers["retry-after"]) > 0
        assert refused.error["message"]
        assert "nothing was sent" in refused.error["message"]
    gateway.session.headers["authorization"] = f"Bearer {OTHER}"  # another key has means of its own
    assert (await gateway.generate()).status == 200


async def test_they_hold_across_workers_restarts_and_reloads(
    serve: Serve, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    models = entry("sd3", SD3, impasto_emulator.url)

    def text(name: str, images: int) -> str:
        keys = key_entry(name, KEY, images_per_day=images, usd_per_month=1)
        return config(impasto_emulator.url, entries=models, more=f"keys:\n{keys}")

    async def calls(url: str, n: int) -> list[str]:
        async def one() -> str:
            async with sdk_client(url, KEY) as sdk:  # its own socket
                try:
                    return "made" if (await sdk.images.generate(model="sd3", prompt="p")).data else "nothing"
                except openai.RateLimitError as error:
                    return str(error.code)

        return sorted(await asyncio.gather(*(one() for _ in range(n))))

    process, url = await asyncio.to_thread(serve, text("studio", 10), "--workers", "2")
    assert await calls(url, 50) == ["insufficient_quota"] * 40 + ["made"] * 10
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0
    process, url = await asyncio.to_thread(serve, text("studio", 10))
    assert await calls(url, 2) == ["insufficient_quota"] * 2
    (tmp_path / "config.yaml").write_text(text("renamed", 12))
    process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(60):
        while await calls(url, 1) == ["insufficient_quota"]:
            await asyncio.sleep(0.05)
    assert await calls(url, 2) == ["insufficient_quota", "made"]
    assert len(impasto_emulator.charges) == 12


async def test_n_pictures_count_n(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url, images_per_day=10)
    found = await outcomes([gateway.generate(n=4) for _ in range(3)])
    assert (len(found["made"]), len(found["insufficient_quota"])) == (2, 1)
    assert "10 images a day, and 2 are left" in (found["insufficient_quota"][0].error["message"] or "")
    assert (await gateway.generate(n=3)).status == 429
    assert (await gateway.generate(n=2)).status == 200
    assert len(impasto_emulator.charges) == 10


@pytest.mark.parametrize(
    ("fault", "spent"),
    [
        ({"kind": "status", "status": 401}, 0),
        ({"kind": "status", "status": 422}, 0),
        ({"kind": "status", "status": 403, "name": "content_moderation"}, 0),
        ({"kind": "truncate"}, 1),
        ({"kind": "reset"}, 1),
        ({"kind": "status", "status": 502, "body": "html"}, 1),
        ({"kind": "status", "status": 200, "body": "empty"}, 1),
    ],
    ids=str,
)
async def test_a_possible_charge_is_spent_and_nothing_else(
    start: Start, impasto_emulator: Emulator, fault: dict[str, Any], spent: int
) -> None:
    gateway = await limited(start, impasto_emulator.url, images_per_day=3, usd_per_month=3 * 0.065)
    impasto_emulator.fault(**fault, times=1)
    assert (await gateway.generate()).status != 200
    found = await outcomes([gateway.generate() for _ in range(5)])
    assert len(found["made"]) == 3 - spent


async def test_of_several_pictures_the_lost_ones_are_settled_each(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url, images_per_day=5)
    impasto_emulator.fault("status", status=401, times=1)
    impasto_emulator.fault("truncate", times=1)
    assert len((await gateway.generate(n=4)).json["data"]) == 2
    assert (await gateway.generate(n=3)).status == 429  # 3 of 5 may have been charged
    assert (await gateway.generate(n=2)).status == 200


async def test_an_attempt_elsewhere_is_paid_by_itself(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    entries = entry("sd3", SD3, impasto_emulator.url) + entry("sd3", "stability/stable-image-core", second.url)
    gateway = await limited(start, "", entries=entries, rpm=2, usd_per_month=0.095)  # one of 0.065 and one of 0.03
    impasto_emulator.fault("status", status=401)
    answers = [await gateway.generate(), await gateway.generate()]
    assert [answer.headers["x-impasto-cost-usd"] for answer in answers] == ["0.03", "0.03"]
    assert len(second.charges) == 2
    assert (await gateway.generate()).error["code"] == "rate_limit_exceeded"


async def test_without_a_price_there_is_no_spending_within_a_limit(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url, usd_per_month=100)
    (deployment,) = gateway.gateway._app.runtime.models["sd3"].deployments
    deployment.operation = attrs.evolve(deployment.operation, price=None)
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
    assert "price of this model is unknown" in (answer.error["message"] or "")
    assert not impasto_emulator.requests


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [({"rpm": 2}, 61), ({"images_per_day": 2}, 12 * 3600), ({"usd_per_month": 0.13}, 31 * 86_400 - 12 * 3600)],
    ids=str,
)
async def test_a_refusal_says_when_there_is_more(
    start: Start, impasto_emulator: Emulator, limits: dict[str, Any], seconds: int
) -> None:
    gateway = await limited(start, impasto_emulator.url, **limits)
    now, data = NOON, database(gateway)
    data.clock = lambda: now
    assert [(await gateway.generate()).status for _ in range(2)] == [200, 200]
    refused = await gateway.generate()
    assert (refused.status, refused.headers["retry-after"]) == (429, str(seconds))
    now += seconds - 1
    assert (await gateway.generate()).status == 429
    now += 1
    assert (await gateway.generate()).status == 200


async def test_the_sdk_waits_for_a_minute_that_passes_only(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url, images_per_day=1)
    sdk = gateway.sdk.with_options(api_key=KEY, max_retries=2)
    await sdk.images.generate(model="sd3", prompt="p")
    with pytest.raises(openai.RateLimitError) as caught:
        await sdk.images.generate(model="sd3", prompt="p")
    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "insufficient_quota")
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert len(impasto_emulator.requests) == 1


async def test_a_key_without_limits_needs_no_disk(start: Start, impasto_emulator: Emulator, state: Path) -> None:
    state.parent.mkdir()
    state.touch()  # a file where the folder should be
    keys = "keys:\n" + key_entry("studio", KEY, rpm=5) + key_entry("other", OTHER, models="[sd3]")
    gateway = await start(config(impasto_emulator.url, more=keys))
    assert (await gateway.generate()).status == 200
    gateway.session.headers["authorization"] = f"Bearer {OTHER}"
    assert (await gateway.generate()).status == 200
    gateway.session.headers["authorization"] = f"Bearer {KEY}"
    refused = await gateway.generate()
    assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
    assert str(state) not in (refused.error["message"] or "")
    assert len(impasto_emulator.requests) == 2
    state.unlink()  # and it is mended without a new start
    assert (await gateway.generate()).status == 200


async def test_past_usage_is_forgotten(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url, rpm=5, images_per_day=5, usd_per_month=5)
    data, now = database(gateway), NOON
    data.clock = lambda: now
    await gateway.generate()

    async def rows() -> set[str]:
        await gateway.gateway._state.budgets.delete_old()
        return await data.write(lambda db: {what for (what,) in db.execute("SELECT what FROM budgets")})

    assert await rows() == {"requests", "images", "nano_usd"}
    now += 61
    assert await rows() == {"images", "nano_usd"}
    now += 86_400
    assert await rows() == {"nano_usd"}
    now += 31 * 86_400
    assert await rows() == set()


@pytest.mark.parametrize("back", [600, 86_400, 40 * 86_400], ids=["ten minutes", "a day", "a month"])
async def test_a_clock_that_is_set_back_locks_no_key_and_forgets_no_cost(
    start: Start, impasto_emulator: Emulator, back: int
) -> None:
    """What was counted in the future counts as made now: a minute later the key may go on, within its budgets."""
    keys = key_entry("a", KEY, rpm=2, images_per_day=4, usd_per_month=1)
    models = entry("sd3", SD3, impasto_emulator.url)
    gateway = await start(config(impasto_emulator.url, entries=models, more=f"keys:\n{keys}"))
    gateway.session.headers["authorization"] = f"Bearer {KEY}"
    now = 1_700_000_000.0
    data = database(gateway)
    data.clock = lambda: now
    assert [(await gateway.generate()).status for _ in range(3)] == [200, 200, 429]
    now -= back
    refused = await gateway.generate()
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) <= 61
    now += 62
    assert [(await gateway.generate()).status for _ in range(2)] == [200, 200]
    now += 62
    refused = await gateway.generate()
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert len(impasto_emulator.charges) == 4
