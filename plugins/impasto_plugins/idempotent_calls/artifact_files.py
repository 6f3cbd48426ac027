"""Images and other bytes of stored calls: files in one folder, named by the call's id."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from impasto import File

MAX_MEMORY_BYTES = 32 << 20
"""The largest content that is read into memory."""

_OUTCOME = "json"

_CHUNK_BYTES = 1 << 20


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
                self._write(f"{id}.{number}", content)
            temporary_path = self._write(f"{id}.part", File.of(outcome.encode()))
            temporary_path.rename(self.folder / f"{id}.{_OUTCOME}")
        except (OSError, ValueError):  # ValueError: a file on the disk has changed
            self.delete(id)
            raise
        self._sync()

    def read_outcome(self, id: str) -> str | None:
        """Return the outcome of a call whose process ended before it could record it, or None. Raises OSError."""
        try:
            return (self.folder / f"{id}.{_OUTCOME}").read_text("utf-8")
        except FileNotFoundError:
            return None

    def read(self, id: str, number: int) -> bytes | File:
        """Return a content of a call; one of more than ``MAX_MEMORY_BYTES`` stays on the disk. Raises OSError."""
        path = self.folder / f"{id}.{number}"
        return path.read_bytes() if path.stat().st_size <= MAX_MEMORY_BYTES else File.of(path)

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

    def _write(self, name: str, content: File) -> Path:
        path = self.folder / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as target, content.open() as source:
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
            target.flush()
            os.fsync(fd)
        return path

    def _sync(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
