"""Disks that are full, small or broken: nothing is asked for that could not be kept, and what came is not lost."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from impasto_plugins.batch.batch import Batch
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.publication import link_or_rename
from impasto_plugins.emulator import Emulator
from tests.plugins.batch.conftest import Run, Write, ledger_rows, many


@contextmanager
def tiny(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own. Skips the test where none can be mounted."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


class Faulty(Disk):
    """Fails at the calls of one name, from one of them on."""

    def __init__(self, name: str, first: int, number: int) -> None:
        self.calls = 0
        call = getattr(Disk, name)

        def failing(*args: Any) -> Any:
            self.calls += 1
            if self.calls >= first:
                raise OSError(number, os.strerror(number))
            return call(self, *args)

        setattr(self, name, failing)


@contextmanager
def failing(name: str, first: int, number: int) -> Iterator[None]:
    with patch("impasto_plugins.batch.cli.run.Batch", partial(Batch, disk=Faulty(name, first, number))):
        yield


def test_f46_a_disk_without_room_is_told_before_anything_is_sent(
    batch: Run, manifest: Write, tmp_path: Path, impasto_emulator: Emulator
) -> None:
    manifest(*many(3))
    with tiny(tmp_path / "disk", "64k"):
        done = batch("run", "manifest.jsonl", "--out", "disk/out")
        assert done.exit_code == 2
        assert "can't use 'disk/out': No space left on device" in done.stderr
    assert impasto_emulator.requests == []


def test_f46_a_disk_that_fills_up(batch: Run, manifest: Write, tmp_path: Path, impasto_emulator: Emulator) -> None:
    manifest(*many(30))
    with tiny(tmp_path / "disk", "10m") as disk:
        done = batch("run", "manifest.jsonl", "--out", "disk/out", "--concurrency", "8")
        assert done.exit_code == 1, "there is room for two pictures at once"
        assert "'disk/out' can't be written: No space left on device" in done.stderr
        charged = len(impasto_emulator.charges)
        assert charged < 30
        assert sum(row["row"] == "done" for row in ledger_rows(disk / "out")) == charged, "what was paid for is there"
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        assert batch("run", "manifest.jsonl", "--out", "disk/out").exit_code == 0
    assert len(impasto_emulator.charges) == 30


def test_f46_the_last_rows_of_a_full_disk_have_the_reserve(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    class Full(Disk):
        """Has no room for rows until the reserve is given up."""

        is_given_up = False

        def remove(self, path: Path) -> None:
            self.is_given_up = self.is_given_up or path.name == "reserve"
            super().remove(path)

        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            if b'"done"' in bytes(data[:40]) and not self.is_given_up:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(descriptor, data)

    manifest(*many(3))
    with patch("impasto_plugins.batch.cli.run.Batch", partial(Batch, disk=Full())):
        assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert sum(row["row"] == "done" for row in ledger_rows(Path("out"))) == 3


CALLS = ("create", "reserve", "write", "overwrite", "sync", "link", "sync_folder", "truncate")


@pytest.mark.parametrize(("first", "name"), [(1, "append"), *((first, name) for name in CALLS for first in (1, 4))])
def test_f47_a_call_that_fails_stops_the_run_and_loses_nothing(
    batch: Run, manifest: Write, impasto_emulator: Emulator, name: str, first: int
) -> None:
    manifest(*many(6))
    number = errno.EIO if first == 1 else errno.ENOSPC
    with failing(name, first, number):
        broken = batch("run", "manifest.jsonl", "--out", "out", "--concurrency", "2")
    assert broken.exit_code in (1, 2), "each of these calls is made as often as that"
    assert os.strerror(number) in broken.output
    charged = {charge.seed for charge in impasto_emulator.charges}
    lines = [line for line in broken.stderr.splitlines() if "it is saved in" in line]
    again = batch("run", "manifest.jsonl", "--out", "out")
    rows = ledger_rows(Path("out"))
    last = {row["id"]: row["row"] for row in rows if "id" in row}
    assert set(last.values()) <= {"done", "ambiguous"}
    assert len(impasto_emulator.charges) == len({charge.seed for charge in impasto_emulator.charges}), "none twice"
    failures = [id for id, kind in last.items() if kind == "ambiguous"]
    assert len(failures) <= 2, "no more than were in flight"
    assert len(last) == 6
    assert charged <= {charge.seed for charge in impasto_emulator.charges}
    for line in lines:  # it was kept outside, for its owner
        path = Path(line.rpartition("it is saved in '")[2].rstrip("'"))
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()
        path.parent.rmdir()
    assert again.exit_code == (1 if failures else 0)


def test_f47_files_that_may_not_grow(manifest: Write, environment: dict[str, str], impasto_emulator: Emulator) -> None:
    manifest(*many(3))
    words = [sys.executable, "-m", "impasto_plugins.cli", "batch", "run", "manifest.jsonl", "--out", "out"]
    done = subprocess.run(
        words,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert done.returncode == 1
    assert "'out' can't be written: File too large; nothing was sent" in done.stderr
    assert impasto_emulator.requests == []


def test_f47_few_descriptors(
    batch: Run, manifest: Write, environment: dict[str, str], impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("delay", seconds=0.2)
    manifest(*many(60))
    words = [sys.executable, "-m", "impasto_plugins.cli", "batch", "run", "manifest.jsonl", "--out", "out"]
    done = subprocess.run(
        words,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    )
    assert "Traceback" not in done.stderr
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert len(impasto_emulator.charges) == 60


def test_a_file_system_without_hard_links_overwrites_no_image(tmp_path: Path) -> None:
    class Linkless(Disk):
        def link(self, path: Path, name: Path) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    staged, taken, free = (tmp_path / name for name in ("staged", "a.png", "a-1.png"))
    staged.write_bytes(b"ours")
    taken.write_bytes(b"another's")
    assert not link_or_rename(Linkless(), staged, taken)
    assert link_or_rename(Linkless(), staged, free)
    assert (taken.read_bytes(), free.read_bytes(), staged.exists()) == (b"another's", b"ours", False)
