"""The image files of a promise: whole on the disk before it is made, and none is left of one that can't be kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import attrs
import pytest

from impasto import Artifact
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.idempotency import serialization
from impasto_plugins.gateway.idempotency.serialization import OutcomeFiles
from impasto_plugins.gateway.storage.contents import FolderContents
from tests.descriptors import open_descriptors
from tests.images import png

IMAGES = (png(8, 8), png(9, 9))


def done() -> CallOutcome:
    artifacts = tuple(Artifact(data=data, media_type="image/png") for data in IMAGES)
    return CallOutcome(artifacts=artifacts, warnings=(), lost=(), cost=None, created=0)


async def test_an_image_is_whole_when_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are still in a buffer then are gone after a loss of power, and the image is paid for again."""
    sizes, fsync = list[int](), os.fsync

    def noted(number: int) -> None:
        if stat.S_ISREG((status := os.fstat(number)).st_mode):
            sizes.append(status.st_size)
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted)
    files = OutcomeFiles(FolderContents(tmp_path / "pictures"))
    saved = await files.save({"a": done()})
    assert sizes == [len(data) for data in IMAGES]
    outcome = await files.load("a", saved["a"])
    assert outcome is not None
    assert [each.data for each in outcome.artifacts] == list(IMAGES)


async def test_half_of_a_promise_leaves_no_image_behind(tmp_path: Path) -> None:
    files = OutcomeFiles(FolderContents(tmp_path))
    (tmp_path / "a.1").mkdir()  # the second image can't be written
    saved = await files.save({"a": done(), "b": done()})
    assert list(saved) == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b.0", "b.1"]


async def test_two_workers_may_store_the_result_of_one_job(tmp_path: Path) -> None:
    """The second finds the same images; others take none away from the first."""
    files = OutcomeFiles(FolderContents(tmp_path))
    first = await files.save({"a": done()})
    assert await files.save({"a": done()}) == first
    artifacts = tuple(Artifact(data=data, media_type="image/png") for data in reversed(IMAGES))
    assert await files.save({"a": attrs.evolve(done(), artifacts=artifacts)}) == {}
    outcome = await files.load("a", first["a"])
    assert outcome is not None
    assert [each.data for each in outcome.artifacts] == list(IMAGES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.0", "a.1"]


async def test_a_file_system_without_links_has_images_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*paths: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    files = OutcomeFiles(FolderContents(tmp_path))
    assert list(await files.save({"a": done()})) == ["a"]
    assert [(tmp_path / name).read_bytes() for name in ("a.0", "a.1")] == list(IMAGES)


async def test_images_of_a_folder_that_can_not_be_synced_are_not_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def broken(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(5, "Input/output error")
        fsync(number)

    monkeypatch.setattr(os, "fsync", broken)
    assert await OutcomeFiles(FolderContents(tmp_path)).save({"a": done(), "b": done()}) == {}
    assert list(tmp_path.iterdir()) == []


async def test_nobody_else_on_the_machine_can_read_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    await OutcomeFiles(FolderContents(folder)).save({"a": done()})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("fails", [False, True], ids=["synced", "can't be synced"])
async def test_a_promise_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A gateway that keeps a thousand answers is not deaf for want of descriptors."""

    def broken(number: int) -> None:
        raise OSError(5, "Input/output error")

    if fails:
        monkeypatch.setattr(os, "fsync", broken)
    for number in range(4):
        await OutcomeFiles(FolderContents(tmp_path)).save({str(number): done()})
    assert open_descriptors(tmp_path) == 0
    assert sum(map(open_descriptors, tmp_path.iterdir())) == 0


async def test_a_file_without_a_row_is_removed_when_its_row_would_have_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then its row may be on its way, or was lost: the image was paid for."""
    monkeypatch.setattr("impasto_plugins.gateway.storage.contents.time.time", lambda: 10_000.0)
    ages = (0, 59, 61, 3599, 3600, 3601)
    for age in ages:
        for kind in ("stored", "expired", "stray"):
            path = tmp_path / f"{kind}{age}.0"
            path.touch()
            os.utime(path, (10_000 - age, 10_000 - age))
    files = OutcomeFiles(FolderContents(tmp_path))
    missing = {id for id in await files.stored_ids() if id.startswith("stray")}
    assert await files.remove({f"expired{age}" for age in ages}, missing, lifetime=3600) == 3
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"stored{age}.0" for age in ages),
        *(f"stray{age}.0" for age in ages[:-1]),
    }


async def test_a_missing_folder_has_no_strays(tmp_path: Path) -> None:
    files = OutcomeFiles(FolderContents(tmp_path / "missing"))
    assert await files.stored_ids() == set()
    assert await files.remove(set(), {"x"}, lifetime=0) == 0


@pytest.mark.parametrize("is_large", [False, True])
async def test_an_image_that_may_be_in_memory_is_and_a_larger_one_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    monkeypatch.setattr(serialization, "MAX_MEMORY_BYTES", len(IMAGES[0]) - is_large)
    files = OutcomeFiles(FolderContents(tmp_path))
    outcome = await files.load("a", (await files.save({"a": done()}))["a"])
    assert outcome is not None
    (first, _) = outcome.artifacts
    assert (first.data, first.file is not None) == (IMAGES[0], is_large)
    with first.content.open() as source:
        assert source.read() == IMAGES[0]
