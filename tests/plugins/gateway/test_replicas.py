"""Gateways with a data directory each and one PostgreSQL database."""

from __future__ import annotations

import asyncio
from pathlib import Path

from impasto_plugins.emulator import Emulator
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.gateway.conftest import MASTER, Running, Start, config, key_entry
from tests.postgres import own_server

KEY = "sk-studio-" + "k" * 24


async def replica(start: Start, base: str, state: str, data: Path, more: str = "") -> Running:
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
    await asyncio.gather(*(each.ask("POST", "/v1/images/generations", json=body, headers=headers) for each in replicas))
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
        assert (await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)).status == 200
        await gateway.idle()
        return store.round_trips - before

    # The least of some: the lease is renewed now and then.
    assert min([await trips(each, "x-stainless-retry-count", "0") for each in "abcd"][1:]) <= 3
    assert min([await trips(each, "idempotency-key", each) for each in "efgh"][1:]) <= 5


async def test_without_the_database_calls_are_refused_and_nothing_is_sent(
    start: Start, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    keys = "keys:\n" + key_entry("studio", KEY, images_per_day=10)
    with own_server() as server:
        gateway = await replica(start, impasto_emulator.url, server.dsn(), tmp_path / "one", keys)
        gateway.session.headers["authorization"] = f"Bearer {KEY}"
        assert (await gateway.generate()).status == 200
        await asyncio.to_thread(server.kill)
        answer = await gateway.generate()
        assert answer.status == 503
        assert answer.headers["retry-after"]
        assert answer.headers["x-should-retry"] == "true"
        assert len(impasto_emulator.requests) == 1
        await asyncio.to_thread(server.start)
        assert (await gateway.generate()).status == 200
        assert len(impasto_emulator.charges) == 2
        await gateway.idle()
