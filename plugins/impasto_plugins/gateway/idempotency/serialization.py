"""A call's outcome as JSON for its row, with its images beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Set as AbstractSet
from contextlib import suppress

import attrs

from impasto import Artifact, Cost, File, Usage
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.calls.streamed_answers import MAX_MEMORY_BYTES
from impasto_plugins.gateway.errors import REPLAYED_HEADERS, APIError
from impasto_plugins.gateway.storage.contents import ContentStore, StoreError
from impasto_plugins.stored_artifacts import artifact_fields, artifact_of

_STORING_SECONDS = 60.0
"""Seconds after which a file has its row."""


@attrs.frozen
class OutcomeFiles:
    """The images of outcomes, named by their row's id and their places in the call."""

    contents: ContentStore

    async def save(self, outcomes: Mapping[str, CallOutcome]) -> dict[str, str]:
        """Store the images of these rows, and return the JSON of each whose images are stored."""
        names = {
            id: [f"{id}.{place}" for place in outcome.places or range(len(outcome.artifacts))]
            for id, outcome in outcomes.items()
        }
        images = {
            name: artifact.content
            for id, outcome in outcomes.items()
            for name, artifact in zip(names[id], outcome.artifacts, strict=True)
        }
        stored = await self.contents.save(images)
        if incomplete := {id for id in outcomes if not stored >= {*names[id]}}:
            with suppress(StoreError):  # they are deleted as strays later
                await self.contents.delete([name for id in incomplete for name in names[id] if name in stored])
        return {id: dump_outcome(outcome) for id, outcome in outcomes.items() if id not in incomplete}

    async def add(self, id: str, outcome: CallOutcome, places: AbstractSet[int]) -> bool:
        """Store those images of a stored outcome that are at these places; return False if that failed."""
        pairs = zip(outcome.places, outcome.artifacts, strict=True)
        images = {f"{id}.{place}": artifact.content for place, artifact in pairs if place in places}
        return await self.contents.save(images) >= images.keys()

    async def load(self, id: str, outcome: str) -> CallOutcome | None:
        """Return a stored outcome, None if an image of it is missing. Raises StoreError."""
        payload = json.loads(outcome)
        artifacts = list[Artifact]()
        images = payload["artifacts"]
        places = tuple(payload.get("places") or range(len(images)))
        for place, fields in zip(places, images, strict=True):
            if (content := await self.contents.open(f"{id}.{place}")) is None:
                return None
            artifacts.append(artifact_of(fields, await asyncio.to_thread(_in_memory, content)))
        return CallOutcome(
            artifacts=tuple(artifacts),
            places=places,
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

    async def stored_ids(self) -> set[str]:
        """Return the ids of images that must have a row by now. Raises StoreError."""
        return {_id_of(name) for name, age in (await self.contents.ages()).items() if age > _STORING_SECONDS}

    async def remove(self, expired: AbstractSet[str], missing: AbstractSet[str], *, lifetime: float) -> int:
        """Delete the images of expired rows, and those whose rows are missing if they are older than ``lifetime``.

        ``lifetime`` is in seconds. Return the number of younger images whose rows are missing: these were lost, and the
        images are paid for. Raises StoreError.
        """
        ages = await self.contents.ages()
        strays = {name for name in ages if _id_of(name) in missing - expired}
        old = {name for name in strays if ages[name] > lifetime}
        await self.contents.delete([name for name in ages if _id_of(name) in expired or name in old])
        return len(strays - old)


def _in_memory(content: File) -> bytes | File:
    """Return a content; a large one stays on the disk."""
    if content.size > MAX_MEMORY_BYTES:
        return content
    data = content.read()
    content.close()
    return data


def _id_of(name: str) -> str:
    return name.partition(".")[0]


def dump_outcome(outcome: CallOutcome | APIError) -> str:
    """Return a row's JSON for an outcome without images, or with images that are stored already."""
    if isinstance(outcome, APIError):
        return json.dumps({name: getattr(outcome, name) for name in ("status", "message", "type", "code", "param")})
    images = [artifact_fields(each) for each in outcome.artifacts]
    cost = attrs.asdict(outcome.cost) if outcome.cost is not None else None
    usage = attrs.asdict(outcome.usage) if outcome.usage is not None else None
    return json.dumps({**attrs.asdict(outcome, recurse=False), "artifacts": images, "cost": cost, "usage": usage})


def load_failure(outcome: str) -> APIError:
    """Return the failure in a row's JSON."""
    return APIError(**json.loads(outcome), should_retry=False, not_charged=False, headers=dict(REPLAYED_HEADERS))
