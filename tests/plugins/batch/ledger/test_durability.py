"""Single faults among good calls, and what outlasts them: nothing is sent without a durable intent, nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest
from attrs import evolve

from impasto import (
    Artifact,
    Call,
    ChargeUnknown,
    ContentFiltered,
    Cost,
    JobFailed,
    Pending,
    PollExpired,
    Result,
    UnusableResult,
    WireRequest,
)
from impasto_plugins.batch.batch import Batch
from impasto_plugins.batch.classification import outcome_of_error, outcome_of_result
from impasto_plugins.batch.filenames import Template
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.inspection import is_running
from impasto_plugins.batch.ledger.log import ReadPosition, rows
from impasto_plugins.batch.ledger.publication import staging_path
from impasto_plugins.batch.ledger.recorder import LedgerRecorder
from impasto_plugins.batch.ledger.recovery import recover
from impasto_plugins.batch.ledger.workspace import Workspace, WorkspacePaths
from impasto_plugins.batch.tasks import ImageTask, Outcome
from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.batch.conftest import Run, Write, ledger_rows, lines, many

from .volatile import Platter, Volatile

OUT = Path("out")
RUN = ("run", "manifest.jsonl", "--out", "out", "--concurrency", "1")


class OnceAfter(Disk):
    """Fails once: the first sync, or the write itself, of a ledger's row of one kind; all other calls are good."""

    def __init__(self, kind: str, call: str) -> None:
        self.mark, self.call = f'"row":"{kind}"'.encode(), call
        self.is_next = self.is_over = False

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if self.mark in bytes(data[:60]) and not self.is_over:
            self.is_next = True
            if self.call == "write":
                self.is_over, self.is_next = True, False
                return super().write(descriptor, bytes(data)[: len(data) // 2])
        return super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        if self.call == "sync" and self.is_next:
            self.is_over, self.is_next = True, False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)


def ran_on(disk: Disk, batch: Run) -> Any:
    with patch("impasto_plugins.batch.cli.run.Batch", partial(Batch, disk=disk)):
        return batch(*RUN)


def test_one_intent_that_is_not_on_the_disk_stops_the_run_before_it_is_sent(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(3))
    disk = OnceAfter("intent", "sync")
    done = ran_on(disk, batch)
    assert disk.is_over
    assert done.exit_code == 1
    assert "can't be written: " in done.stderr
    assert "nothing was sent" in done.stderr
    assert impasto_emulator.requests == []
    assert batch(*RUN).exit_code == 0, "it was no damage"
    assert len(impasto_emulator.charges) == 3


@pytest.mark.parametrize("kind", ["run", "intent", "staged", "done"])
def test_half_a_row_that_a_full_disk_left_is_taken_back(
    batch: Run, manifest: Write, impasto_emulator: Emulator, kind: str
) -> None:
    """The reserve makes room for the row, and the ledger is whole."""
    manifest(*many(3))
    disk = OnceAfter(kind, "write")
    assert ran_on(disk, batch).exit_code == 0
    assert disk.is_over
    assert batch(*RUN).exit_code == 0
    assert len(impasto_emulator.charges) == 3


@pytest.mark.parametrize("kind", ["run", "done", "ambiguous"])
def test_one_sync_of_the_ledger_that_fails_stops_the_run_and_pays_nothing_twice(
    batch: Run, manifest: Write, impasto_emulator: Emulator, kind: str
) -> None:
    manifest(*many(4))
    if kind == "ambiguous":
        impasto_emulator.fault("reset", charged=True, times=1)
    disk = OnceAfter(kind, "sync")
    done = ran_on(disk, batch)
    assert disk.is_over
    assert done.exit_code == (2 if kind == "run" else 1)
    assert len(impasto_emulator.requests) == (0 if kind == "run" else 1), "nothing more was asked for"
    paths = [line.rpartition("saved in '")[2].rstrip("'") for line in done.stderr.splitlines() if "saved in" in line]
    for path in map(Path, paths):
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
        path.parent.rmdir()
    batch(*RUN)
    charged = [charge.seed for charge in impasto_emulator.charges]
    assert sorted(set(charged), key=str) == sorted(charged, key=str)
    last = {row["id"]: row["row"] for row in ledger_rows(OUT) if "id" in row}
    assert len(last) == 4
    assert set(last.values()) <= {"done", "ambiguous"}


CALL = cast(Call, SimpleNamespace(account=SimpleNamespace(fingerprint="k" * 64), job=None, possible_charges=1))
JOB = Pending(id="job", poll=WireRequest(target="/results/job", method="GET"), result_ttl=3600.0)
UNIT = ImageTask(id="a", index=0, n=1, model="a/model", cost=Cost(usd=1.0, as_of=""), sha256="0" * 64)
BYTES = b"\x89PNG half of it"


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[tuple[LedgerRecorder, Platter]]:
    platter = Platter()
    async with await Workspace.open(tmp_path / "out", Volatile(platter)) as folder:
        await folder.submit(folder.begin(1))
        yield LedgerRecorder(folder, Template()), platter


async def left(keeping: LedgerRecorder, platter: Platter) -> list[dict[str, Any]]:
    """The rows that a loss of power leaves, if of what was not synced nothing survives."""
    root = keeping.folder.layout.root

    def lose() -> list[dict[str, Any]]:
        platter.lose_power(root, None)
        return [dict(row) for _, row in rows(WorkspacePaths(root).ledger, ReadPosition())]

    return await asyncio.to_thread(lose)


ENDS: dict[str, Callable[[], Outcome]] = {
    "done": lambda: outcome_of_result(UNIT, Result(artifacts=(Artifact(data=png(8, 8), media_type="image/png"),))),
    "ambiguous": lambda: outcome_of_error(UNIT, ChargeUnknown("lost", raw=BYTES)),
    "unusable": lambda: outcome_of_error(UNIT, UnusableResult("cut", raw=BYTES)),
    "filtered": lambda: outcome_of_error(UNIT, _filtered()),
    "expired": lambda: outcome_of_error(UNIT, PollExpired("late")),
}


def _filtered() -> ContentFiltered:
    error = ContentFiltered("blurred", status=200, name="CONTENT_FILTERED")
    error.artifacts = (Artifact(data=BYTES, media_type="image/png"),)
    error.billed = "unknown"
    return error


@pytest.mark.parametrize("kind", ENDS)
async def test_charges_are_known_after_a_loss_of_power(keeping: tuple[LedgerRecorder, Platter], kind: str) -> None:
    keeper, platter = keeping
    await keeper.record_intent(UNIT, CALL)
    await keeper.store_result(UNIT, ENDS[kind]())
    last = (await left(keeper, platter))[-1]
    assert last["row"] == kind
    for name in last.get("kept", ()):
        path = keeper.folder.layout.root / name
        assert await asyncio.to_thread(path.read_bytes) == BYTES, "what came is kept"
    assert ("kept" in last) is (kind in ("ambiguous", "unusable", "filtered"))


async def test_an_intent_and_a_jobs_id_are_known_after_a_loss_of_power(keeping: tuple[LedgerRecorder, Platter]) -> None:
    keeper, platter = keeping
    await keeper.record_intent(UNIT, CALL)
    await keeper.record_job(UNIT, CALL, JOB)
    found = await left(keeper, platter)
    assert [row["row"] for row in found] == ["run", "intent", "accepted"]
    assert found[-1]["job"] == "job"


async def test_an_intent_alone_is_known_after_a_loss_of_power(keeping: tuple[LedgerRecorder, Platter]) -> None:
    keeper, platter = keeping
    await keeper.record_intent(UNIT, CALL)
    assert (await left(keeper, platter))[-1]["row"] == "intent"


@pytest.mark.parametrize(("charges", "state", "again"), [(0, "refused", True), (1, "ambiguous", False)])
async def test_an_image_that_was_never_sent_is_not_ambiguous_after_a_hard_stop(
    keeping: tuple[LedgerRecorder, Platter], charges: int, state: str, again: bool
) -> None:
    keeper, _ = keeping
    call = cast(Call, SimpleNamespace(account=CALL.account, job=None, possible_charges=charges))
    await keeper.record_intent(UNIT, call)
    keeper.record_cancelled(UNIT, call)
    await keeper.folder.submit(keeper.folder.write_row({"row": "note"}, on_disk=False))  # after it, in the same thread
    row = next(row for row in await asyncio.to_thread(ledger_rows, keeper.folder.layout.root) if row["row"] == state)
    assert (row["again"], row["billed"]) == (again, "no" if charges == 0 else "unknown")


def test_the_bytes_of_an_answer_that_was_cut_are_kept(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("truncate", times=1)
    manifest(*many(1))
    assert batch(*RUN).exit_code == 1
    (line,) = lines(OUT / "errors.jsonl")
    (path,) = line["error"]["kept"]  # type: ignore[index]
    data = (OUT / path).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert b"IEND" not in data


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_folder_is_closed_only_when_the_last_row_is_in_its_ledger(tmp_path: Path, is_cancelled: bool) -> None:
    """A run that is cancelled abandons its calls and closes its folder in one breath."""
    entered, release = threading.Event(), threading.Event()

    class Slow(Disk):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            if b'"row":"note"' in bytes(data):
                entered.set()
                assert release.wait(60)
            return super().write(descriptor, data)

    folder = await Workspace.open(tmp_path / "out", Slow())
    await folder.submit(folder.begin(1))
    folder.submit(folder.write_row({"row": "note"}, on_disk=True))
    await asyncio.to_thread(entered.wait, 60)
    closing = asyncio.create_task(folder.__aexit__(None, None, None))
    await asyncio.wait({closing}, timeout=0.1)
    if is_cancelled:
        closing.cancel()
        await asyncio.wait({closing}, timeout=0.1)
    release.set()
    await asyncio.wait({closing})
    assert closing.cancelled() is is_cancelled
    found = await asyncio.to_thread(
        lambda: [row["row"] for _, row in rows(WorkspacePaths(tmp_path / "out").ledger, ReadPosition())]
    )
    assert found == ["run", "note"]
    async with await Workspace.open(tmp_path / "out", Disk()):
        await folder.__aexit__(None, None, None)
        assert await asyncio.to_thread(is_running, folder.layout), "another's descriptor was closed"


async def test_a_run_reports_how_many_images_the_last_one_left(tmp_path: Path) -> None:
    async with await Workspace.open(tmp_path / "out", Disk()) as folder:
        await folder.submit(folder.begin(2))
        keeper = LedgerRecorder(folder, Template())
        for id in ("whole", "lost"):
            unit = evolve(UNIT, id=id)
            await keeper.record_intent(unit, CALL)
            os.close(keeper._staged.pop(unit).file)
        await asyncio.to_thread(staging_path(folder.layout, "whole", 0).write_bytes, png(8, 8))
    async with await Workspace.open(tmp_path / "out", Disk()) as folder:
        found = await recover(folder, LedgerRecorder(folder, Template()), frozenset())
    assert [" 1 image that " in note or " 1 image came " in note for note in found.notes()] == [True, True]


def test_contents_and_names_are_synced_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests replace the disk's calls, so this is the one that looks at the calls themselves."""
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    disk, folder = Disk(), tmp_path / "new"
    disk.make_folder(folder)
    assert synced == [tmp_path.stat().st_ino]
    file = folder / "file"
    with file.open("wb") as reader:
        disk.sync(reader.fileno())
    disk.sync_folder(folder)
    assert synced[1:] == [file.stat().st_ino, folder.stat().st_ino]


async def test_a_staged_image_that_was_changed_is_not_uploaded(tmp_path: Path) -> None:
    class Bucket:
        async def upload(self, staged: Path, row: object) -> str:
            raise AssertionError("uploaded")

    row = {"id": "a", "index": 0, "sha256": "0" * 64, "modified": 0, "bytes": 7}
    async with await Workspace.open(tmp_path / "out", Disk()) as folder:
        await asyncio.to_thread(staging_path(folder.layout, "a", 0).write_bytes, b"another")
        with pytest.raises(OSError, match="was changed by another program"):
            await LedgerRecorder(folder, Template()).upload(cast("Any", Bucket()), row)


def test_a_job_that_failed_is_not_polled_again() -> None:
    failed = JobFailed("the provider reports that the job failed")
    failed.id = "job-1"
    assert outcome_of_error(UNIT, failed).state == "ambiguous"
    failure = ChargeUnknown("no result within 5 s")
    failure.id = "job-1"
    assert outcome_of_error(UNIT, failure).state == "pending"


@pytest.mark.parametrize(("is_kept", "state"), [(True, "pending"), (False, "expired")])
def test_a_charged_image_is_fetched_again_for_as_long_as_its_provider_keeps_it(is_kept: bool, state: str) -> None:
    error = ChargeUnknown("image 1 could not be fetched")
    error.id, error.billed = "job-1", "yes"
    assert outcome_of_error(evolve(UNIT, is_kept=is_kept), error).state == state
