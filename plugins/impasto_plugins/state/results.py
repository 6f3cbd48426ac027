"""Results beside a store: with a new one nobody would know what was paid for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def folder_with_results(folders: Sequence[Path]) -> Path | None:
    """Return the first of the folders that has files, or None."""
    return next((folder for folder in folders if folder.is_dir() and any(folder.iterdir())), None)
