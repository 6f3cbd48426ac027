"""A manifest on standard input: stored in the batch's folder, so that an interrupted run can continue with it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from impasto import ManifestError
from impasto_plugins.batch.ledger.filesystem import Disk, write_all
from impasto_plugins.batch.ledger.workspace import WorkspacePaths

STDIN = Path("-")
"""The name of standard input."""


@contextmanager
def copy_stdin(manifest: Path) -> Iterator[Path | None]:
    """Return standard input as a file if it is the manifest; otherwise None. It blocks.

    Raises ManifestError if there is no standard input.
    """
    if manifest != STDIN:
        yield None
        return
    if sys.stdin is None or sys.stdin.closed:
        raise ManifestError("can't read the manifest: standard input is closed")
    with NamedTemporaryFile(prefix="impasto-", suffix=".jsonl") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        yield Path(spool.name)


def choose_manifest(stdin_copy: Path, layout: WorkspacePaths) -> Path:
    """Return the copy of standard input or, if that is empty, an earlier run's manifest."""
    return layout.manifest if not stdin_copy.stat().st_size and layout.manifest.exists() else stdin_copy


def keep(stdin_copy: Path, layout: WorkspacePaths, disk: Disk) -> None:
    """Replace an earlier run's manifest with this one. Raises OSError."""
    part = layout.manifest.with_suffix(".part")
    file = disk.create(part)
    try:
        with stdin_copy.open("rb") as source:
            while piece := source.read(1 << 20):
                write_all(disk, file, piece)
        disk.sync(file)
    finally:
        disk.close(file)
    disk.rename(part, layout.manifest)
    disk.sync_folder(part.parent)
