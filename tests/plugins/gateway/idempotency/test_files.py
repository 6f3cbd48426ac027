"""The image files of a promise: whole on the disk before it is made, and none is left of one that can't be kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from impasto import Artifact
from impasto_plugins.gateway.calls.execution import Done
from impasto_plugins.gateway.idempotency.serialization import Files
from tests.pictures import png

IMAGES = (png(8, 8), png(9, 9))


def done() -> Done:
    artifacts = tuple(Artifact(data=data, media_type="image/png") for data in IMAGES)
    return Done(artifacts=artifacts, warnings=(), lost=(), cost=None, created=0)


def test_an_image_is_whole_when_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are still in a buffer then are gone after a loss of power, and the image is paid for again."""
    sizes, fsync = list[int](), os.fsync

    def noted(number: int) -> None:
        if stat.S_ISREG((status := os.fstat(number)).st_mode):
            sizes.append(status.st_size)
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted)
    files = Files(tmp_path / "pictures")
    saved = files.save({"a": done()})
    assert sizes == [len(data) for data in IMAGES]
    assert [each.data for each in files.load("a", saved["a"]).artifacts] == list(IMAGES)


def test_half_of_a_promise_leaves_no_image_behind(tmp_path: Path) -> None:
    files = Files(tmp_path)
    (tmp_path / "a.1").mkdir()  # the second image can't be written
    saved = files.save({"a": done(), "b": done()})
    assert list(saved) == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b.0", "b.1"]


def test_images_of_a_folder_that_can_not_be_synced_are_not_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def broken(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(5, "Input/output error")
        fsync(number)

    monkeypatch.setattr(os, "fsync", broken)
    assert Files(tmp_path).save({"a": done(), "b": done()}) == {}
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_on_the_machine_can_read_the_images(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    Files(folder).save({"a": done()})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
