"""Images and other bytes of stored calls: files in one folder, named by the call's id."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from impasto import File
from impasto_plugins.stored_artifacts import read_content, sync_folder, write_content

MAX_MEMORY_BYTES = 32 << 20
"""The largest content that is read into memory."""

_OUTCOME, _WAITING = "json", "waiting"


@attrs.frozen
class ArtifactFiles:
    """A folder of images. Its methods block: use them in a thread."""

    folder: Path

    def save(self, id: str, outcome: str, contents: Sequence[File], *, first: int = 0, waits: bool = False) -> None:
        """Write a call's outcome to the disk, after the contents that it refers to, whose numbers begin at ``first``.

        ``waits``: for further images. Raises OSError or ValueError, and leaves nothing of it then.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary_path = self.folder / f"{id}.part"
        paths = [self.folder / f"{id}.{number}" for number in range(first, first + len(contents))]
        try:
            for path, content in zip(paths, contents, strict=True):
                write_content(path, content)
            write_content(temporary_path, File.of(outcome.encode()))
            temporary_path.rename(self.folder / f"{id}.{_WAITING if waits else _OUTCOME}")
        except (OSError, ValueError):  # ValueError: a file on the disk has changed
            for path in (*paths, temporary_path):
                with suppress(OSError):
                    path.unlink()
            raise
        sync_folder(self.folder)

    def read_outcome(self, id: str) -> str | None:
        """Return the outcome of a call whose process ended before it could record it, or None. Raises OSError."""
        return self._read_text(id, _OUTCOME)

    def read_part(self, id: str) -> tuple[str | None, int]:
        """Return the outcome of a call that waits for further images, or None, and a free number. Raises OSError."""
        numbers = [int(end) for path in self.folder.glob(f"{id}.*") if (end := path.suffix[1:]).isdecimal()]
        return self._read_text(id, _WAITING), max(numbers, default=-1) + 1

    def _read_text(self, id: str, kind: str) -> str | None:
        try:
            return (self.folder / f"{id}.{kind}").read_text("utf-8")
        except FileNotFoundError:
            return None

    def read(self, id: str, number: int) -> bytes | File:
        """Return a content of a call; one of more than ``MAX_MEMORY_BYTES`` stays on the disk. Raises OSError."""
        return read_content(self.folder / f"{id}.{number}", MAX_MEMORY_BYTES)

    def old_ids(self, seconds: float) -> set[str]:
        """Return the calls of artifacts that seem to be older than this: a clock may have been set."""
        oldest, ids = time.time() - seconds, set[str]()
        with suppress(OSError):
            for path in self.folder.iterdir():
                with suppress(OSError):  # another process was faster
                    if path.stat().st_mtime < oldest:
                        ids.add(path.name.partition(".")[0])
        return ids

    def delete(self, ids: Collection[str]) -> None:
        """Delete the artifacts of calls."""
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name.partition(".")[0] in ids:
                    path.unlink(missing_ok=True)
