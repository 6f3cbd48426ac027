"""A manifest on standard input: kept in the batch's folder, so that a run that was stopped can go on with it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from impasto import ManifestError
from impasto_plugins.batch.ledger.filesystem import Disk, write_all
from impasto_plugins.batch.ledger.workspace import Layout

STDIN = Path("-")
"""How standard input is named."""


@contextmanager
def taken(manifest: Path) -> Iterator[Path | None]:
    """What comes on standard input, as a file, where that is the manifest; else None. It blocks.

    Raises ManifestError where there is no standard input.
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


def chosen(piped: Path, layout: Layout) -> Path:
    """What came, or, where nothing did, what an earlier run kept."""
    return layout.manifest if not piped.stat().st_size and layout.manifest.exists() else piped


def keep(piped: Path, layout: Layout, disk: Disk) -> None:
    """Puts what came in the place of what an earlier run kept. Raises OSError."""
    part = layout.manifest.with_suffix(".part")
    file = disk.create(part)
    try:
        with piped.open("rb") as source:
            while piece := source.read(1 << 20):
                write_all(disk, file, piece)
        disk.sync(file)
    finally:
        disk.close(file)
    disk.rename(part, layout.manifest)
    disk.sync_folder(part.parent)
