"""Gateways with a data directory each and one PostgreSQL database."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.sweep import sweep
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.gateway.conftest import MASTER, Answer, Running, Start, config, key_entry
from tests.postgres import own_server

PATH = "/v1/images/generations"
KEY = "sk-studio-" + "k" * 24


async def replica(start: Start, base: str, state: str | Path, data: Path, more: str = "") -> Running:
    """A gateway with a data directory of its own."""
    return await start(config(base, general=f"  state: {state}\n  data_dir: {data}\n", more=more))


async def test_a_budget_for_ten_is_ten_over_two_replicas(
    start: Start, impasto_emulator: Emulator, postgres: str, tmp_path: Path
) -> None:
    keys = "keys:\n" + key_entry("studio", KEY, images_per_day=10)
    url = impasto_emulator.url
    replicas = [await replica(start, url, postgres, tmp_path / name, keys) for name in ("one", "two")]
    for each in replicas:
        each.session.headers["authorization"] = f"Bearer {KEY}"
    answers = await asyncio.gather(*(each.generate() for each in replicas * 15))
    assert sorted(answer.status for answer in answers) == [200] * 10 + [429] * 20
    assert len(impasto_emulator.charges) == 10


async def test_an_idempotency_key_at_two_replicas_at_once_is_one_charge(
    start: Start, impasto_emulator: Emulator, postgres: str, tmp_path: Path
) -> None:
    replicas = [await replica(start, impasto_emulator.url, postgres, tmp_path / name) for name in ("one", "two")]
    headers = {"authorization": f"Bearer {MASTER}", "idempotency-key": "once"}
    body = {"model": "sd3", "prompt": "p"}
    await asyncio.gather(*(each.ask("POST", PATH, json=body, headers=headers) for each in replicas))
    assert len(impasto_emulator.charges) == 1


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
async def test_a_clock_that_is_set_ahead_pays_for_nothing_again(
    kind: str, start: Start, impasto_emulator: Emulator, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = request.getfixturevalue("tmp_path")
    state = request.getfixturevalue("postgres") if kind == "postgres" else tmp_path / "state"
    headers = {"authorization": f"Bearer {MASTER}", "idempotency-key": "once"}
    body = {"model": "sd3", "prompt": "p", "response_format": "url"}
    images = list[bytes]()
    unset = time.time
    for day in range(3):  # each time a gateway that begins with another clock
        monkeypatch.setattr("time.time", lambda day=day: unset() + day * 86_400)
        gateway = await replica(start, impasto_emulator.url, state, tmp_path / "data")
        app = gateway.gateway._app
        await sweep(app.runtime, app.state, app.idempotency.store, app.batches)
        answer = await gateway.ask("POST", PATH, json=body, headers=headers)
        assert answer.status == 200
        url = answer.json["data"][0]["url"]
        images.append((await gateway.ask("GET", f"/v1{url.partition('/v1')[2]}")).body)
    assert images[0].startswith(b"\x89PNG")
    assert images == images[:1] * 3
    assert len(impasto_emulator.charges) == 1


async def test_a_call_with_a_budget_has_few_round_trips(
    start: Start, impasto_emulator: Emulator, postgres: str, tmp_path: Path
) -> None:
    """For an SDK: its record with the reservation, the permit, and its end. A key has a record and an outcome too."""
    keys = "keys:\n" + key_entry("studio", KEY, images_per_day=100)
    gateway = await replica(start, impasto_emulator.url, postgres, tmp_path / "one", keys)
    store = gateway.gateway._state
    assert isinstance(store, PostgresState)

    async def trips(prompt: str, header: str, value: str) -> int:
        before, body = store.round_trips, {"model": "sd3", "prompt": prompt}
        headers = {"authorization": f"Bearer {KEY}", header: value}
        assert (await gateway.ask("POST", PATH, json=body, headers=headers)).status == 200
        await gateway.idle()
        return store.round_trips - before

    # The least of some: the lease is renewed now and then.
    assert min([await trips(each, "x-stainless-retry-count", "0") for each in "abcd"][1:]) <= 3
    assert min([await trips(each, "idempotency-key", each) for each in "efgh"][1:]) <= 5


@pytest.mark.usefixtures("short_window")
async def test_under_load_a_database_that_is_killed_costs_nothing_twice(
    start: Start, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    """While it is away calls are refused, and nothing is sent. Callers repeat them, and pay once for each."""
    keys = "keys:\n" + key_entry("studio", KEY, images_per_day=1_000)
    (tmp_path / "images").mkdir()
    with own_server() as server:
        two = [await replica(start, impasto_emulator.url, server.dsn(), tmp_path / "images", keys) for _ in "ab"]
        outcomes: dict[int, int] = {}
        refusals: list[Answer] = []
        seeds, gateways, is_over = count(1), cycle(two), False

        async def ask(seed: int) -> int:
            headers = {"authorization": f"Bearer {KEY}", "idempotency-key": f"{seed}"}
            body = {"model": "sd3", "prompt": "p", "seed": seed}
            while (answer := await next(gateways).ask("POST", PATH, json=body, headers=headers)).status == 503:
                refusals.append(answer)
                await asyncio.sleep(0.02)
            return answer.status

        async def work() -> None:
            while not is_over:
                seed = next(seeds)
                outcomes[seed] = await ask(seed)

        async def wait_for(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(60):
                while not condition():
                    await asyncio.sleep(0.01)

        workers = [asyncio.create_task(work()) for _ in range(8)]
        await wait_for(lambda: len(outcomes) > 20)
        await asyncio.to_thread(server.kill)
        await wait_for(lambda: len(refusals) > 20)
        sent = len(impasto_emulator.requests)
        refusals.clear()
        await wait_for(lambda: len(refusals) > 50)
        budget_alone = {"authorization": f"Bearer {KEY}"}
        refusals.append(await two[0].ask("POST", PATH, json={"model": "sd3", "prompt": "p"}, headers=budget_alone))
        assert len(impasto_emulator.requests) == sent, "a request was sent while the database was away"
        assert {(each.status, each.headers["x-should-retry"]) for each in refusals} == {(503, "true")}
        assert all(each.headers["retry-after"] for each in refusals)
        await asyncio.to_thread(server.start)
        goal = len(outcomes) + 20
        await wait_for(lambda: len(outcomes) >= goal)
        is_over = True
        await asyncio.gather(*workers)
        for each in two:
            await each.idle()
    charges = Counter(charge.seed for charge in impasto_emulator.charges)
    assert max(charges.values()) == 1
    assert {seed for seed, status in outcomes.items() if status == 200} <= {*charges}
    assert set(outcomes.values()) <= {200, 502}
    unknown = sum(status == 502 for status in outcomes.values())
    assert unknown <= len(workers), "only a call that ran while the database was killed may be unknown"
