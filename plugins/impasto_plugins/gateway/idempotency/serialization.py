"""A call's outcome as JSON for its row, with image files beside it."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Set as AbstractSet
from contextlib import suppress
from pathlib import Path

import attrs

from impasto import Cost, Usage
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.calls.streamed_answers import MAX_MEMORY_BYTES
from impasto_plugins.gateway.errors import REPLAYED_HEADERS, APIError
from impasto_plugins.stored_artifacts import artifact_fields, artifact_of, read_content, sync_folder, write_content

_log = logging.getLogger("impasto.gateway")

_STORING_SECONDS = 60.0
"""Seconds after which a file has its row."""


@attrs.frozen
class OutcomeFiles:
    """The image files of a data directory, named by their row's id. Use it in a thread."""

    folder: Path

    def save(self, outcomes: Mapping[str, CallOutcome]) -> dict[str, str]:
        """Write the images of these rows, and return the JSON of each whose images have reached the disk."""
        json_by_id: dict[str, str] = {}
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for id, outcome in outcomes.items():
                if self._save_images(id, outcome):
                    json_by_id[id] = dump_outcome(outcome)
            sync_folder(self.folder)
        except OSError as error:
            _log.error("paid images could not be stored: %s", error.strerror)
            for id in json_by_id:
                self._remove(id, outcomes[id])
            return {}
        return json_by_id

    def load(self, id: str, outcome: str) -> CallOutcome:
        """Return a stored outcome. Raises OSError."""
        payload = json.loads(outcome)
        return CallOutcome(
            artifacts=tuple(
                artifact_of(fields, read_content(self.folder / f"{id}.{i}", MAX_MEMORY_BYTES))
                for i, fields in enumerate(payload["artifacts"])
            ),
            warnings=tuple(payload["warnings"]),
            lost=tuple(payload["lost"]),
            cost=Cost(**payload["cost"]) if payload["cost"] is not None else None,
            created=payload["created"],
            names=tuple(payload["names"]),
            urls=tuple(payload["urls"]),
            urls_end=payload["urls_end"],
            is_open=payload.get("is_open", False),
            usage=Usage(**usage) if (usage := payload.get("usage")) is not None else None,
        )

    def stored_ids(self) -> set[str]:
        """Return the ids of files that must have a row by now."""
        oldest, ids = time.time() - _STORING_SECONDS, set[str]()
        with suppress(OSError):
            ids.update(_id_of(each) for each in list(os.scandir(self.folder)) if each.stat().st_mtime < oldest)
        return ids

    def remove(self, expired: AbstractSet[str], missing: AbstractSet[str], *, lifetime: float) -> int:
        """Delete the files of expired rows, and files whose rows are missing if they are older than ``lifetime``.

        ``lifetime`` is in seconds. Return the number of younger files whose rows are missing: these were lost, and the
        images are paid for.
        """
        now, strays = time.time(), 0
        with suppress(OSError):
            for each in list(os.scandir(self.folder)):
                id = _id_of(each)
                if id in expired or (id in missing and now - each.stat().st_mtime > lifetime):
                    Path(each.path).unlink(missing_ok=True)
                elif id in missing:
                    strays += 1
        return strays

    def _save_images(self, id: str, outcome: CallOutcome) -> bool:
        try:
            for i, artifact in enumerate(outcome.artifacts):
                write_content(self.folder / f"{id}.{i}", artifact.content, only_new=True)
        except OSError as error:
            _log.error("a paid image could not be stored: %s", error.strerror)
            self._remove(id, outcome)
            return False
        return True

    def _remove(self, id: str, outcome: CallOutcome) -> None:
        for i in range(len(outcome.artifacts)):
            with suppress(OSError):
                (self.folder / f"{id}.{i}").unlink()


def _id_of(file: os.DirEntry[str]) -> str:
    return file.name.partition(".")[0]


def dump_outcome(outcome: CallOutcome | APIError) -> str:
    """Return a row's JSON for an outcome without images, or with images already on disk."""
    if isinstance(outcome, APIError):
        return json.dumps({name: getattr(outcome, name) for name in ("status", "message", "type", "code", "param")})
    images = [artifact_fields(each) for each in outcome.artifacts]
    cost = attrs.asdict(outcome.cost) if outcome.cost is not None else None
    usage = attrs.asdict(outcome.usage) if outcome.usage is not None else None
    return json.dumps({**attrs.asdict(outcome, recurse=False), "artifacts": images, "cost": cost, "usage": usage})


def load_failure(outcome: str) -> APIError:
    """Return the failure in a row's JSON."""
    return APIError(**json.loads(outcome), should_retry=False, not_charged=False, headers=dict(REPLAYED_HEADERS))
