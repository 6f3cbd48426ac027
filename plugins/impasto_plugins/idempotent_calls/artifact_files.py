"""Images and other bytes of stored calls: files in one folder, named by the call's id."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from impasto import File
from impasto_plugins.stored_artifacts import read_content, sync_folder, write_content

MAX_MEMORY_BYTES = 32 << 20
"""The largest content that is read into memory."""

_OUTCOME = "json"


@attrs.frozen
class ArtifactFiles:
    """A folder of images. Its methods block: use them in a thread."""

    folder: Path

    def save(self, id: str, outcome: str, contents: Sequence[File]) -> None:
        """Write a call's outcome to the disk, after the contents that it refers to.

        Raises OSError or ValueError, and leaves nothing then.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            for number, content in enumerate(contents):
                write_content(self.folder / f"{id}.{number}", content)
            temporary_path = self.folder / f"{id}.part"
            write_content(temporary_path, File.of(outcome.encode()))
            temporary_path.rename(self.folder / f"{id}.{_OUTCOME}")
        except (OSError, ValueError):  # ValueError: a file on the disk has changed
            self.delete(id)
            raise
        sync_folder(self.folder)

    def read_outcome(self, id: str) -> str | None:
        """Return the outcome of a call whose process ended before it could record it, or None. Raises OSError."""
        try:
            return (self.folder / f"{id}.{_OUTCOME}").read_text("utf-8")
        except FileNotFoundError:
            return None

    def read(self, id: str, number: int) -> bytes | File:
        """Return a content of a call; one of more than ``MAX_MEMORY_BYTES`` stays on the disk. Raises OSError."""
        return read_content(self.folder / f"{id}.{number}", MAX_MEMORY_BYTES)

    def delete(self, id: str) -> None:
        """Delete a call's artifacts."""
        for path in self.folder.glob(f"{id}.*"):
            with suppress(OSError):
                path.unlink()

    def delete_old(self, seconds: float) -> None:
        """Delete artifacts that are older than this, whatever call they belong to."""
        oldest = time.time() - seconds
        with suppress(OSError):
            for path in self.folder.iterdir():
                with suppress(OSError):  # another process was faster
                    if path.stat().st_mtime < oldest:
                        path.unlink()
