"""A batch outlives its process: killed, ended in peace, or run beside other workers."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from impasto_plugins.batch.ledger.log import ReadPosition, rows
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.images import drawn
from tests.plugins.gateway.conftest import Running, Serve, config, entry, sdk_client
from tests.plugins.gateway.idempotency.test_workers import watched

from .conftest import EDIT, finish, line, results, submit


def lines(number: int) -> list[dict[str, object]]:
    """Each with a seed of its own, by which its charges are known."""
    return [line(f"p{i}", seed=i + 1) for i in range(number)]


def charges(emulator: Emulator) -> Counter[int]:
    return Counter(charge.seed or 0 for charge in emulator.charges)


async def some(emulator: Emulator, number: int) -> None:
    async with asyncio.timeout(60):
        while len(emulator.charges) < number:
            await asyncio.sleep(0.02)


async def look(client: openai.AsyncOpenAI, batch: Any, emulator: Emulator, number: int, *, ambiguous: int) -> None:
    """All lines have one outcome, nothing is paid twice, and what is doubtful is said to be."""
    batch = await finish(client, batch)
    assert batch.status == "completed"
    assert max(charges(emulator).values()) == 1
    outputs = await results(client, batch.output_file_id)
    failures = await results(client, batch.error_file_id) if batch.error_file_id is not None else {}
    assert outputs.keys() | failures.keys() == {f"p{i}" for i in range(number)}
    assert not outputs.keys() & failures.keys()
    assert {each["error"]["code"] for each in failures.values()} <= {"charge_unknown"}
    assert len(failures) <= ambiguous
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (number, len(outputs), len(failures))
    assert len(emulator.charges) >= len(outputs)


async def test_killed_it_goes_on_at_the_next_start(serve: Serve, impasto_emulator: Emulator) -> None:
    text = config(impasto_emulator.url, more="batches: {concurrency: 4}\n")
    impasto_emulator.fault("delay", seconds=0.1)
    process, url = await asyncio.to_thread(serve, text)
    async with sdk_client(url) as client:
        batch = await submit(client, lines(30))
    for done in (6, 16):
        await some(impasto_emulator, done)
        process.kill()
        process, url = await asyncio.to_thread(serve, text)
    async with sdk_client(url) as client:
        await look(client, batch, impasto_emulator, 30, ambiguous=8)


async def completed_lines(client: openai.AsyncOpenAI, id: str) -> int:
    counts = (await client.batches.retrieve(id)).request_counts
    assert counts is not None
    return counts.completed


async def test_its_completed_lines_never_become_fewer(serve: Serve, impasto_emulator: Emulator) -> None:
    text = config(impasto_emulator.url, more="batches: {concurrency: 4}\n")
    impasto_emulator.fault("delay", seconds=0.2)
    process, url = await asyncio.to_thread(serve, text)
    completed = list[int]()
    async with asyncio.timeout(60), sdk_client(url) as client:
        batch = await submit(client, lines(60))
        while not completed or completed[-1] < 5:
            completed.append(await completed_lines(client, batch.id))
    process.kill()
    _, url = await asyncio.to_thread(serve, text)
    async with asyncio.timeout(60), sdk_client(url) as client:
        while (await client.batches.retrieve(batch.id)).status != "completed":
            completed.append(await completed_lines(client, batch.id))
    assert completed == sorted(completed)


async def test_ended_in_peace_it_goes_on_at_the_next_start(
    serve: Serve, impasto_emulator: Emulator, state: Path
) -> None:
    text = config(impasto_emulator.url, more="batches: {concurrency: 4}\n")
    impasto_emulator.fault("delay", seconds=0.2)
    process, url = await asyncio.to_thread(serve, text)
    async with sdk_client(url) as client:
        batch = await submit(client, lines(80))
    await some(impasto_emulator, 5)
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0
    stopped = len(impasto_emulator.charges)
    assert stopped < 80
    (folder,) = (state / "batches" / "runs").iterdir()
    read = await asyncio.to_thread(lambda: list(rows(WorkspacePaths(folder).ledger, ReadPosition())))
    kinds = Counter(row["row"] for _, row in read)
    assert (kinds["done"], kinds["ambiguous"]) == (stopped, 0)
    impasto_emulator.clear_faults()
    _, url = await asyncio.to_thread(serve, text)
    async with sdk_client(url) as client:
        await look(client, batch, impasto_emulator, 80, ambiguous=0)
    assert len(impasto_emulator.charges) == 80


def _kinds(state: Path) -> set[str]:
    """Return the kinds of rows in the ledgers of all batches."""
    folders = (state / "batches" / "runs").glob("*")
    return {row["row"] for folder in folders for _, row in rows(WorkspacePaths(folder).ledger, ReadPosition())}


@pytest.mark.parametrize("key", [KEY, "sk-" + "rotated-" * 5], ids=["same key", "another key"])
async def test_a_job_of_the_providers_is_fetched_by_the_next_start_with_its_key(
    serve: Serve, impasto_emulator: Emulator, state: Path, key: str
) -> None:
    def text(key: str) -> str:
        return config(
            impasto_emulator.url, entries=entry("creative", "stability/upscale-creative", impasto_emulator.url, key)
        )

    not_polled = text(KEY).replace("poll_interval: 0.05", "poll_interval: 600")
    process, url = await asyncio.to_thread(serve, not_polled)
    uri = "data:image/png;base64," + base64.b64encode(drawn("PNG", size=(128, 128))).decode()
    async with sdk_client(url) as client:
        batch = await submit(client, [line("job", EDIT, model="creative", images=[{"image_url": uri}])], EDIT)
    async with asyncio.timeout(60):
        while "accepted" not in await asyncio.to_thread(_kinds, state):
            await asyncio.sleep(0.02)
    process.kill()
    assert [each.method for each in impasto_emulator.requests] == ["POST"]
    _, url = await asyncio.to_thread(serve, text(key))
    async with sdk_client(url) as client:
        batch = await finish(client, batch)
        assert batch.status == "completed"
        if key == KEY:
            assert "job" in await results(client, batch.output_file_id)
        else:
            failed = (await results(client, batch.error_file_id))["job"]
            assert (failed["error"]["code"], failed["error"]["billed"]) == ("charge_unknown", "unknown")
            assert failed["response"]["status_code"] == 502
    assert len(impasto_emulator.charges) == 1


async def test_of_several_workers_one_runs_it_and_another_takes_it_over(
    serve: Serve, impasto_emulator: Emulator, state: Path
) -> None:
    impasto_emulator.fault("delay", seconds=0.15)
    text = config(impasto_emulator.url, more="batches: {concurrency: 4}\n")
    process, url = await asyncio.to_thread(serve, text, "--workers", "2")
    async with sdk_client(url) as client:
        batch = await submit(client, lines(30))
        await some(impasto_emulator, 5)
        lock = WorkspacePaths(state / "batches" / "runs" / batch.id).lock
        async with asyncio.timeout(60):
            while len(owners := holders(process.pid, lock)) != 1:  # the other looks whether it is free
                await asyncio.sleep(0.01)
            os.kill(owners[0], signal.SIGKILL)
            while owners[0] in (child.pid for child in psutil.Process(process.pid).children()):
                await asyncio.sleep(0.01)
    async with sdk_client(url) as client:
        await look(client, batch, impasto_emulator, 30, ambiguous=4)
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0


def holders(pid: int, path: Path) -> list[int]:
    """The workers that have a file open."""
    return [
        child.pid
        for child in psutil.Process(pid).children()
        if any(each.path == str(path) for each in child.open_files())
    ]


def halves(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def nuls(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def doubled(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def without_mark(path: Path) -> None:
    path.unlink()
    WorkspacePaths(path.parent.parent).high_water.unlink()


DAMAGE: list[Callable[[Path], None]] = [Path.unlink, halves, nuls, without_mark]
MORE_DAMAGE: list[Callable[[Path], None]] = [
    lambda path: shutil.rmtree(path.parent),
    lambda path: shutil.rmtree(path.parent.parent),
    emptied,
    doubled,
]


@pytest.mark.parametrize("damage", [DAMAGE, MORE_DAMAGE], ids=["ledgers", "folders"])
async def test_a_ledger_that_is_missing_or_damaged_ends_its_batch_and_pays_nothing_again(
    serve: Serve, impasto_emulator: Emulator, state: Path, damage: list[Callable[[Path], None]]
) -> None:
    text = config(impasto_emulator.url, more="batches: {concurrency: 2}\n")
    impasto_emulator.fault("delay", seconds=0.2)
    process, url = await asyncio.to_thread(serve, text)
    async with sdk_client(url) as client:
        batches = [
            await submit(client, [line(f"p{i}", seed=100 * number + i + 1) for i in range(40)])
            for number in range(len(damage))
        ]
    async with asyncio.timeout(60):
        while {seed // 100 for seed, times in charges(impasto_emulator).items() if times} != set(range(len(damage))):
            await asyncio.sleep(0.02)
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0
    paid = charges(impasto_emulator)
    assert len(paid) < 40 * len(damage)
    for batch, harm in zip(batches, damage, strict=True):
        await asyncio.to_thread(harm, WorkspacePaths(state / "batches" / "runs" / batch.id).ledger)
    impasto_emulator.clear_faults()
    _, url = await asyncio.to_thread(serve, text)
    async with sdk_client(url) as client:
        for batch in batches:
            over = await finish(client, batch)
            assert over.status == "failed"
            (error,) = over.errors.data
            assert error.code == "storage_error"
            assert "missing or damaged, so it can't continue" in error.message
            assert str(state) not in error.message
    assert charges(impasto_emulator) == paid


async def test_a_file_and_a_batch_that_were_accepted_outlive_a_loss_of_power(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = watched(gateway, monkeypatch)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines(1)))
    assert batch.status == "completed"
    written = [each for each in events if "UPDATE objects" in each or "INTO objects" in each]
    assert len(written) > 2
    assert {each.split()[0] for each in written} == {"2"}, "SQLite's FULL"
