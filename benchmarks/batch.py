"""Batches: what a row costs beside its call, how fast a manifest is looked at and a run taken up, what it holds."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own

from impasto import Artifact, Client, Registry, Result
from impasto_plugins.batch.batch import Batch, BatchSpec
from impasto_plugins.batch.classification import outcome_of_result
from impasto_plugins.batch.cli.reporters import PlainReporter
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.log import Ledger, ReadPosition, rows
from impasto_plugins.batch.ledger.recorder import artifact_row, intent_row
from impasto_plugins.batch.ledger.workspace import VERSION, LedgerHistory, WorkspacePaths
from impasto_plugins.batch.manifest.planner import Planner
from impasto_plugins.batch.manifest.reader import Manifest
from impasto_plugins.batch.manifest.rows import parse_row, tasks_of
from impasto_plugins.emulator import EmulatorSettings, serve

from .call import MODEL
from .environments import environment, version
from .floors import loop
from .measure import Ratio, compared, in_pairs
from .server import running

AT_ONCE = 64
CALLS = 512
ROWS = 100_000
EXTRA_US = 1_000.0
"""What a row may cost beside its call, in microseconds of CPU."""

PICTURES = 200

ROUNDS = 5


async def run(rounds: int) -> list[Ratio]:
    """Everything on this machine's own disk, fsync and all."""
    with tempfile.TemporaryDirectory(prefix="impasto-batch-") as folder:
        place = Path(folder)
        return [
            await _row(place, rounds),
            await _preflight(place, rounds),
            await _resume(place, rounds),
            await _memory(place),
        ]


async def peers(rounds: int) -> list[Ratio]:
    """Ray Data's processor of HTTP requests: the same pictures, half a second each, within the provider's own limit."""
    bin = environment("ray", "ray[data]", "aiohttp", "pydantic")
    theirs = [str(bin / "python"), str(Path(__file__).parent / "peers/ray_data.py"), str(PICTURES)]
    about = f"over Ray Data {version(bin, 'ray')}"
    seconds, most = list[tuple[float, float]](), list[tuple[float, float]]()
    with tempfile.TemporaryDirectory(prefix="impasto-batch-") as folder:
        manifest = a_manifest(Path(folder) / "pictures.jsonl", PICTURES)
        ours = [
            sys.executable,
            "-m",
            "impasto_plugins.cli",
            "batch",
            "run",
            str(manifest),
            "--rate",
            "150/10s",
            "--out",
        ]
        for number in range(2):
            mine = await asyncio.to_thread(_asked, [*ours, f"{folder}/{number}"])
            other = await asyncio.to_thread(_asked, theirs)
            seconds.append((mine[0], other[0]))
            most.append((mine[1], other[1]))
    return [
        compared(f"batch: {PICTURES} pictures, {about}", seconds, unit="s", most=1.0),
        compared("batch: most requests in 10 s, over 151", [(our, 151.0) for our, _ in most], unit="", most=1.0),
        compared(f"batch: most requests in 10 s, {about}", most, unit=""),
    ]


def _asked(command: list[str]) -> tuple[float, float]:
    """How long a command takes, and the most requests that came in 10 s of it. Each picture comes, and none twice."""
    with serve(EmulatorSettings(answer_seconds=0.5, image_scale=0.03125)) as emulator:
        variables = {**os.environ, "STABILITY_API_BASE": emulator.url, "STABILITY_API_KEY": loop.KEY}
        begun = time.monotonic()
        subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begun
        times = sorted(request.time for request in emulator.requests if request.method == "POST")
        assert len(emulator.charges) == PICTURES
        return seconds, float(max(bisect(times, each + 10) - at for at, each in enumerate(times)))


def a_manifest(path: Path, number: int) -> Path:
    words = "a lighthouse on a cliff at dusk, in the style of the old masters, with heavy strokes and a warm light"
    with path.open("w") as file:
        for index in range(number):
            row = {"id": f"img-{index:07d}", "model": MODEL, "prompt": f"{words} {index}", "seed": index + 1}
            file.write(json.dumps({**row, "aspect_ratio": "16:9"}) + "\n")
    return path


async def _row(place: Path, rounds: int) -> Ratio:
    """CPU of a row over that of ``client.run``; the limit is what it may cost beside the call."""
    manifest = a_manifest(place / "calls.jsonl", CALLS)
    given = [json.loads(line) for line in manifest.read_text().splitlines()]
    registry, count = Registry(), 0  # one for both, as the command has: to look for plugins is no row's work
    with running() as url:
        async with Client(registry=registry, api_key=loop.KEY, api_base=url) as client:

            async def ours() -> float:
                nonlocal count
                count += 1
                order = BatchSpec(manifest=manifest, out=place / f"out-{count}", concurrency=AT_ONCE, report=False)
                begun = time.process_time()
                status = await Batch(order, registry, PlainReporter()).run(client)
                assert status.done == CALLS
                return (time.process_time() - begun) / CALLS * 1e6

            async def bare() -> float:
                left = iter(given)

                async def worker() -> None:
                    for row in left:
                        params = {name: value for name, value in row.items() if name not in ("id", "model")}
                        await client.run(MODEL, **params)

                begun = time.process_time()
                await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
                return (time.process_time() - begun) / CALLS * 1e6

            pairs = await in_pairs(ours, bare, rounds)
    beside = [(row - call, EXTRA_US) for row, call in pairs]
    return compared("batch: a row beside its call, over 1 ms", beside, unit="µs CPU", most=1.0)


def _timed(work: Callable[[], object], number: int) -> Callable[[], Awaitable[float]]:
    async def measured() -> float:
        begun = time.process_time()
        work()
        return (time.process_time() - begun) / number * 1e6

    return measured


async def _preflight(place: Path, rounds: int) -> Ratio:
    """A manifest looked at, over the JSON decoder by itself: its speed is at least 0.35 of that."""
    path = a_manifest(place / "rows.jsonl", ROWS)

    def ours() -> None:
        plan = Planner(
            manifest=Manifest(path, Registry().operation), history=LedgerHistory(WorkspacePaths(place))
        ).plan()
        assert (plan.images, plan.invalid) == (ROWS, [])

    def decoder() -> None:
        with path.open("rb") as file:
            for line in file:
                json.loads(line)

    pairs = await in_pairs(_timed(ours, ROWS), _timed(decoder, ROWS), rounds)
    return compared("batch: preflight of a row, over json.loads", pairs, unit="µs CPU", most=1 / 0.35)


async def _resume(place: Path, rounds: int) -> Ratio:
    """A whole run taken up again, its pictures looked for, over reading its ledger."""
    path, layout = place / "rows.jsonl", WorkspacePaths(place / "resumed")
    _ledger(path, layout)

    def ours() -> None:
        history = LedgerHistory.read_ledger(layout, verify=True)
        preflight = Planner(manifest=Manifest(path, Registry().operation), history=history)
        plan = preflight.plan()
        assert (plan.to_do, plan.invalid, history.missing) == (0, [], [])
        assert list(preflight.to_do(plan)) == []

    def reading() -> None:
        assert sum(1 for _ in rows(layout.ledger, ReadPosition())) == 3 * ROWS + 1

    pairs = await in_pairs(_timed(ours, ROWS), _timed(reading, ROWS), rounds)
    return compared("batch: a run taken up, over reading its ledger", pairs, unit="µs CPU", most=2.0)


def _ledger(manifest: Path, layout: WorkspacePaths, most: int = ROWS) -> None:
    """The folder of a run that is through, its pictures empty files."""
    layout.staging.mkdir(parents=True)
    operation, ledger = Registry().operation(MODEL), Ledger(layout.ledger, Disk())
    ledger.open(ReadPosition())
    begun = {"row": "run", "version": VERSION, "at": 1.0, "process": "bench", "pid": 1, "strangers": {}}
    ledger.append({**begun, "pictures": most, "manifest": str(manifest)})
    with manifest.open("rb") as file:
        for _, line in zip(range(most), file, strict=False):
            (unit,) = tasks_of(parse_row(json.loads(line)), operation, manifest.parent, line=line)
            ledger.append(intent_row(unit, "0" * 16))
            picture = layout.root / f"{unit.id}.png"
            picture.touch()
            came = Artifact(data=b"", media_type="image/png", seed=1, finish_reason="SUCCESS")
            outcome = outcome_of_result(unit, Result(artifacts=(came,), request_id="0" * 32))
            modified = picture.stat().st_mtime_ns
            row = artifact_row(unit, outcome, came, path=picture.name, modified=modified)
            ledger.append(row)
            ledger.append({**row, "row": "done"})
    ledger.sync()
    ledger.close()


async def _memory(place: Path) -> Ratio:
    """What 100,000 pictures hold over what 1,000 do, in a process each; the limit is 20 MB."""
    small = WorkspacePaths(place / "small")
    _ledger(place / "rows.jsonl", small, 1_000)
    a_manifest(place / "few.jsonl", 1_000)
    pairs = []
    for _ in range(3):
        many = await asyncio.to_thread(_held, place / "rows.jsonl", place / "resumed")
        few = await asyncio.to_thread(_held, place / "few.jsonl", place / "small")
        pairs.append((many - few, 20.0))
    return compared("batch: memory of 100,000 over 1,000, over 20 MB", pairs, unit="MB RSS", most=1.0)


def _held(manifest: Path, out: Path) -> float:
    command = [sys.executable, "-m", __name__, str(manifest), str(out)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    history = LedgerHistory.read_ledger(WorkspacePaths(Path(sys.argv[2])), verify=True)
    preflight = Planner(manifest=Manifest(Path(sys.argv[1]), Registry().operation), history=history)
    preflight.plan()
    print(psutil.Process().memory_info().rss / 2**20)  # not the highest: that counts what forked this process
