"""``client.batch``: from a program, with a folder and without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import impasto
from impasto import ConfigError, InvalidRequest, Outcome
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.pictures import png

from .conftest import CREATIVE, lines, many, row, told


@pytest.fixture
async def client(impasto_emulator: Emulator) -> AsyncIterator[impasto.Client]:
    async with impasto.Client(api_key=KEY, api_base=impasto_emulator.url, poll_interval=0.05) as client:
        yield client


async def all_of(outcomes: AsyncIterator[Outcome]) -> dict[tuple[str, int], Outcome]:
    return {(outcome.id, outcome.index): outcome async for outcome in outcomes}


async def test_each_outcome_as_it_comes(client: impasto.Client, impasto_emulator: Emulator) -> None:
    requests = [
        row("two", n=2, seed=5),
        row("job", model=CREATIVE, image=png(64, 64)),
        row("bad", prompt="[public_figure]"),
        row("wrong", sede=1),
        "none",
    ]
    found = await all_of(client.batch(requests))  # type: ignore[arg-type]  # one is no mapping
    assert {key: outcome.state for key, outcome in found.items()} == {
        ("two", 0): "done",
        ("two", 1): "done",
        ("job", 0): "done",
        ("bad", 0): "refused",
        ("wrong", 0): "refused",
        ("", 0): "refused",
    }
    assert isinstance(found["wrong", 0].error, InvalidRequest)
    assert isinstance(found["", 0].error, InvalidRequest)
    artifact, cost = found["two", 1].artifact, found["job", 0].cost
    assert artifact is not None
    assert artifact.seed == 6
    assert cost is not None
    assert cost.usd == 0.6
    assert len(impasto_emulator.charges) == 3


async def test_a_folder_keeps_it(client: impasto.Client, impasto_emulator: Emulator, tmp_path: Path) -> None:
    async def given() -> AsyncIterator[dict[str, object]]:
        for request in many(4):
            yield request

    first = await all_of(client.batch(given(), out=tmp_path / "out"))
    assert all(outcome.path is not None and outcome.path.is_file() for outcome in first.values())
    again = await all_of(client.batch([*many(6)], out=tmp_path / "out"))
    assert [outcome.state for outcome in again.values()] == ["done"] * 6
    assert again["picture-0", 0].path == tmp_path / "out" / "picture-0.png"
    assert len(impasto_emulator.charges) == 6
    assert len(lines(tmp_path / "out" / "results.jsonl")) == 6
    other = await all_of(impasto.run_batch(client, [row("picture-0", prompt="another")], out=tmp_path / "out"))
    assert "with other content" in str(other["picture-0", 0].error)


async def test_a_budget_stops_it(client: impasto.Client, impasto_emulator: Emulator) -> None:
    with pytest.raises(ConfigError, match="the budget of 0.10 USD is used up"):
        await all_of(client.batch(many(9), budget_usd=0.1))
    assert len(impasto_emulator.charges) == 3


async def test_leaving_early_keeps_a_record(client: impasto.Client, impasto_emulator: Emulator, tmp_path: Path) -> None:
    impasto_emulator.fault("delay", seconds=30, target="/v2beta/")
    outcomes = client.batch(many(3), out=tmp_path / "out")
    waiting = asyncio.ensure_future(anext(outcomes))
    while sum(row["row"] == "intent" for row in await asyncio.to_thread(told, tmp_path / "out")) < 3:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await outcomes.aclose()
    rows = await asyncio.to_thread(told, tmp_path / "out")
    assert sum(row["row"] == "ambiguous" for row in rows) == 3


async def test_whoever_takes_slowly_is_sent_no_more(client: impasto.Client, impasto_emulator: Emulator) -> None:
    outcomes = client.batch(many(40), concurrency=2)
    await anext(outcomes)
    await asyncio.sleep(0.3)
    assert len(impasto_emulator.requests) <= 3
    await outcomes.aclose()


@pytest.mark.parametrize("settings", [{"concurrency": 0}, {"budget_usd": -1}, {"max_failures": "x"}])
async def test_wrong_settings(client: impasto.Client, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        await all_of(client.batch([row("a")], **settings))  # type: ignore[arg-type]  # what the test is about
