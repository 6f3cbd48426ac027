"""``client.batch``: from a program, with a folder and without."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

import impasto
from impasto import BatchStopped, ConfigError, InvalidRequest, Outcome, StorageError
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.descriptors import open_descriptors
from tests.images import png

from .conftest import CREATIVE, ledger_rows, lines, many, row


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
    async def rows() -> AsyncIterator[dict[str, object]]:
        for request in many(4):
            yield request

    first = await all_of(client.batch(rows(), out=tmp_path / "out"))
    assert all(outcome.path is not None and outcome.path.is_file() for outcome in first.values())
    assert [open_descriptors(path) for path in (tmp_path / "out").glob("*.png")] == [0] * 4, "each is closed"
    again = await all_of(client.batch([*many(6)], out=tmp_path / "out"))
    assert [outcome.state for outcome in again.values()] == ["done"] * 6
    assert again["picture-0", 0].path == tmp_path / "out" / "picture-0.png"
    assert len(impasto_emulator.charges) == 6
    assert len(lines(tmp_path / "out" / "results.jsonl")) == 6
    other = await all_of(impasto.run_batch(client, [row("picture-0", prompt="another")], out=tmp_path / "out"))
    assert "of other content" in str(other["picture-0", 0].error)


async def stopped(outcomes: AsyncIterator[Outcome]) -> tuple[BatchStopped, list[Outcome]]:
    """Return the error that ends a batch, and the outcomes before it."""
    before: list[Outcome] = []
    with pytest.raises(BatchStopped) as caught:
        async for outcome in outcomes:
            before.append(outcome)  # noqa: PERF401 - those before the error count
    assert not isinstance(caught.value, ConfigError)
    return caught.value, before


async def test_a_budget_stops_it(client: impasto.Client, impasto_emulator: Emulator) -> None:
    error, before = await stopped(client.batch(many(9), budget_usd=0.1))
    assert "the budget of 0.10 USD is used up" in str(error)
    assert (error.reason, error.billed) == ("budget", "yes")
    assert len(impasto_emulator.charges) == len(before) == 3


async def test_a_spend_limit_of_the_client_stops_it(impasto_emulator: Emulator) -> None:
    async with impasto.Client(api_key=KEY, api_base=impasto_emulator.url, spend_limit_usd=0.04) as client:
        error, _ = await stopped(client.batch(many(9), concurrency=1))
    assert (error.reason, error.billed) == ("budget", "yes")
    assert isinstance(error.__cause__, impasto.SpendLimitExceeded)
    assert len(impasto_emulator.charges) == 1


@pytest.mark.parametrize(("status", "reason"), [(401, "unauthorized"), (402, "payment")])
async def test_a_key_that_is_refused_stops_it(
    client: impasto.Client, impasto_emulator: Emulator, status: int, reason: str
) -> None:
    impasto_emulator.fault("status", status=status)
    error, before = await stopped(client.batch(many(9), concurrency=1))
    assert (error.reason, error.billed, len(before)) == (reason, "no", 1)


async def test_failures_stop_it(client: impasto.Client, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=502, body="html")
    error, _ = await stopped(client.batch(many(9), concurrency=1, max_failures="1"))
    assert (error.reason, error.billed) == ("max_failures", "unknown"), "the images may have been charged"


async def test_a_full_disk_stops_it(
    client: impasto.Client, impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, calls = Disk.reserve, count()

    def full(self: Disk, descriptor: int, size: int) -> None:
        if next(calls) > 2:  # the reserve, and two images
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(self, descriptor, size)

    monkeypatch.setattr(Disk, "reserve", full)
    error, before = await stopped(client.batch(many(9), out=tmp_path / "out", concurrency=1))
    assert (error.reason, error.billed) == ("storage", "yes")
    assert isinstance(error.__cause__, StorageError)
    assert "No space left on device; nothing was sent" in str(error)
    assert [outcome.state for outcome in before] == ["done", "done", "refused"]
    assert len(impasto_emulator.charges) == len(lines(tmp_path / "out" / "results.jsonl")) == 2


async def test_results_that_can_not_be_written_are_reported_after_the_images(
    client: impasto.Client, impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Disk, path: Path, name: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Disk, "rename", full)
    outcomes = client.batch(many(2), out=tmp_path / "out")
    assert [(await anext(outcomes)).state, (await anext(outcomes)).state] == ["done", "done"]
    with pytest.raises(StorageError, match="results could not be written: No space left on device") as caught:
        await anext(outcomes)
    assert caught.value.billed == "yes"


async def test_an_error_of_the_requests_themselves_cancels_no_image_in_flight(
    client: impasto.Client, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    impasto_emulator.fault("delay", seconds=0.2, target="/v2beta/")

    async def requests() -> AsyncIterator[dict[str, object]]:
        for request in many(3):
            yield request
        raise LookupError("the database is away")

    outcomes = client.batch(requests(), out=tmp_path / "out")
    states = [(await anext(outcomes)).state for _ in range(3)]
    assert states == ["done"] * 3
    with pytest.raises(LookupError, match="the database is away"):
        await anext(outcomes)
    assert len(impasto_emulator.charges) == len(lines(tmp_path / "out" / "results.jsonl")) == 3


async def test_leaving_early_keeps_a_record(client: impasto.Client, impasto_emulator: Emulator, tmp_path: Path) -> None:
    impasto_emulator.fault("delay", seconds=30, target="/v2beta/")
    outcomes = client.batch(many(3), out=tmp_path / "out")
    waiting = asyncio.ensure_future(anext(outcomes))
    while sum(row["row"] == "intent" for row in await asyncio.to_thread(ledger_rows, tmp_path / "out")) < 3:
        await asyncio.sleep(0.05)
    while len(impasto_emulator.requests) < 3:
        await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await outcomes.aclose()
    rows = await asyncio.to_thread(ledger_rows, tmp_path / "out")
    assert sum(row["row"] == "ambiguous" for row in rows) == 3


async def test_whoever_takes_slowly_is_sent_no_more(client: impasto.Client, impasto_emulator: Emulator) -> None:
    outcomes = client.batch(many(40), concurrency=2)
    await anext(outcomes)
    await asyncio.sleep(0.3)
    assert len(impasto_emulator.requests) <= 3
    await outcomes.aclose()


async def test_an_unknown_option_is_named_with_the_allowed_ones(client: impasto.Client) -> None:
    with pytest.raises(TypeError) as caught:
        client.batch([row("a")], budget=5)  # type: ignore[call-arg]  # what the test is about
    message = str(caught.value)
    assert message.startswith("unknown batch option 'budget'; did you mean budget_usd? Allowed: out, staging, ")


@pytest.mark.parametrize("settings", [{"concurrency": 0}, {"budget_usd": -1}, {"max_failures": "x"}])
async def test_wrong_settings(client: impasto.Client, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        await all_of(client.batch([row("a")], **settings))  # type: ignore[arg-type]  # what the test is about


async def test_an_empty_name_is_not_the_current_folder(client: impasto.Client, impasto_emulator: Emulator) -> None:
    with pytest.raises(ConfigError, match="the output folder has an empty name"):
        await anext(client.batch(many(1), out=""))
    assert impasto_emulator.requests == []
