"""What a call came to, as JSON for its row and as picture files beside it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from impasto import Artifact, Cost, File
from impasto_plugins.gateway.calls.execution import Done
from impasto_plugins.gateway.calls.streamed_answers import HELD
from impasto_plugins.gateway.errors import REPLAYED, Failure

_log = logging.getLogger("impasto.gateway")

_PIECE = 1 << 20
_STRAY_SECONDS = 3600.0
"""After which a file without a row is nobody's."""


@attrs.frozen
class Files:
    """The picture files of a data directory: those of a row have its id. All of it is for a thread."""

    folder: Path

    def save(self, outcomes: Mapping[str, Done]) -> dict[str, str]:
        """Write the images of these rows, and return the JSON of each whose images have reached the disk."""
        saved: dict[str, str] = {}
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for id, done in outcomes.items():
                if self._save_all(id, done):
                    saved[id] = told(done)
            _sync(self.folder)
        except OSError as error:
            _log.error("images that were paid for could not be kept: %s", error.strerror)
            for id in saved:
                self._remove(id, outcomes[id])
            return {}
        return saved

    def load(self, id: str, outcome: str) -> Done:
        """What was saved. Raises OSError."""
        given = json.loads(outcome)
        return Done(
            artifacts=tuple(self._artifact(f"{id}.{i}", each) for i, each in enumerate(given["artifacts"])),
            warnings=tuple(given["warnings"]),
            lost=tuple(given["lost"]),
            cost=Cost(**given["cost"]) if given["cost"] is not None else None,
            created=given["created"],
            names=tuple(given["names"]),
            urls=tuple(given["urls"]),
            urls_end=given["urls_end"],
        )

    def remove_strays(self, has_row: Callable[[str], bool]) -> None:
        """Removes old files that no row names."""
        old = time.time() - _STRAY_SECONDS
        with suppress(OSError):
            for each in list(os.scandir(self.folder)):
                if each.stat().st_mtime < old and not has_row(each.name.partition(".")[0]):
                    Path(each.path).unlink(missing_ok=True)

    def _save_all(self, id: str, done: Done) -> bool:
        try:
            for i, artifact in enumerate(done.artifacts):
                self._save(f"{id}.{i}", artifact)
        except OSError as error:
            _log.error("an image that was paid for could not be kept: %s", error.strerror)
            self._remove(id, done)
            return False
        return True

    def _remove(self, id: str, done: Done) -> None:
        for i in range(len(done.artifacts)):
            with suppress(OSError):
                (self.folder / f"{id}.{i}").unlink()

    def _save(self, name: str, artifact: Artifact) -> None:
        number = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(number, "wb") as target, artifact.content.open() as source:
            shutil.copyfileobj(source, target, _PIECE)
            target.flush()
            os.fsync(number)

    def _artifact(self, name: str, given: Mapping[str, Any]) -> Artifact:
        path = self.folder / name
        if path.stat().st_size <= HELD:
            return Artifact(data=path.read_bytes(), **given)
        return Artifact(data=b"", file=File.of(path), **given)


def told(outcome: Done | Failure) -> str:
    """A row's JSON of what has no pictures, or has them on the disk already."""
    if isinstance(outcome, Failure):
        return json.dumps({name: getattr(outcome, name) for name in ("status", "message", "type", "code", "param")})
    content = ("data", "file")
    pictures = [attrs.asdict(each, filter=lambda field, _: field.name not in content) for each in outcome.artifacts]
    cost = attrs.asdict(outcome.cost) if outcome.cost is not None else None
    return json.dumps({**attrs.asdict(outcome, recurse=False), "artifacts": pictures, "cost": cost})


def failed(outcome: str) -> Failure:
    """The failure that a row's JSON tells of, told again."""
    return Failure(**json.loads(outcome), should_retry=False, free=False, headers=dict(REPLAYED))


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
