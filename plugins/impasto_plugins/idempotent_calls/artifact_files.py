"""Artifacts of stored calls: files in one folder, named by the call's id."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from impasto import Artifact, File

_CHUNK_BYTES = 1 << 20


@attrs.frozen
class ArtifactFiles:
    """A folder of artifacts. Its methods block: use them in a thread."""

    folder: Path

    def save(self, id: str, artifacts: Sequence[Artifact]) -> list[dict[str, object]]:
        """Write a call's artifacts to the disk and return the fields that describe them.

        Raises OSError, and leaves nothing then.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            for index, artifact in enumerate(artifacts):
                self._write(f"{id}.{index}", artifact)
        except OSError:
            self.delete(id)
            raise
        self._sync()
        content = ("_data", "file")
        return [attrs.asdict(each, filter=lambda field, _: field.name not in content) for each in artifacts]

    def load(self, id: str, fields: Sequence[Mapping[str, Any]], *, max_memory_bytes: int) -> tuple[Artifact, ...]:
        """Return a call's artifacts; larger ones than ``max_memory_bytes`` stay on disk. Raises OSError."""
        return tuple(self._read(f"{id}.{index}", each, max_memory_bytes) for index, each in enumerate(fields))

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

    def _write(self, name: str, artifact: Artifact) -> None:
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as target, artifact.content.open() as source:
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
            target.flush()
            os.fsync(fd)

    def _read(self, name: str, fields: Mapping[str, Any], max_memory_bytes: int) -> Artifact:
        path = self.folder / name
        if path.stat().st_size <= max_memory_bytes:
            return Artifact(data=path.read_bytes(), **fields)
        return Artifact(file=File.of(path), **fields)

    def _sync(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
