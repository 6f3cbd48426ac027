"""The outcome of a call as JSON, and the bytes that came: of a result, or an error that may have cost something."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs

import impasto
from impasto import Artifact, ChargeUnknown, Cost, FailedArtifact, File, ImpastoError, Result, UnusableResult, Usage
from impasto_plugins.stored_artifacts import artifact_fields, artifact_of

Read = Callable[[int], bytes | File]
"""Returns the content of a number."""


def dump_outcome(outcome: Result | ImpastoError, first: int = 0) -> tuple[str, list[File]]:
    """Return the JSON of an outcome, and the contents that it refers to by their numbers, which begin at ``first``."""
    contents = _Contents(first=first)
    if isinstance(outcome, ImpastoError):
        payload: dict[str, object] = {"error": _dump_error(outcome, contents)}
    else:
        payload = {
            "artifacts": [_dump_artifact(each, contents) for each in outcome.artifacts],
            "failures": [{"index": each.index, "error": _dump_error(each.error, contents)} for each in outcome.errors],
            "warnings": outcome.warnings,
            "request_id": outcome.request_id,
            "cost": _fields(outcome.cost),
            "usage": _fields(outcome.usage),
            "possible_cost": _fields(outcome.possible_cost),
        }
    return json.dumps(payload, default=lambda _: None), contents.files  # a plugin's error may have any value


def is_failure(text: str) -> bool:
    """Return True if the outcome in this JSON is an error."""
    return "error" in json.loads(text)


def load_outcome(text: str, read: Read) -> Result | ImpastoError:
    """Return the outcome in this JSON. Raises what ``read`` raises."""
    payload = json.loads(text)
    if (error := payload.get("error")) is not None:
        return _load_error(error, read)
    return Result(
        artifacts=tuple(_load_artifact(each, read) for each in payload["artifacts"]),
        warnings=tuple(payload["warnings"]),
        errors=tuple(
            FailedArtifact(index=each["index"], error=_load_error(each["error"], read)) for each in payload["failures"]
        ),
        request_id=payload["request_id"],
        cost=Cost(**payload["cost"]) if payload["cost"] is not None else None,
        usage=Usage(**payload["usage"]) if payload["usage"] is not None else None,
        possible_cost=Cost(**payload["possible_cost"]) if payload["possible_cost"] is not None else None,
    )


def _fields(value: Cost | Usage | None) -> dict[str, object] | None:
    return None if value is None else attrs.asdict(value)


@attrs.define
class _Contents:
    """Contents of an outcome, with their numbers."""

    first: int
    files: list[File] = attrs.field(factory=list[File])

    def add(self, content: File) -> int:
        self.files.append(content)
        return self.first + len(self.files) - 1


def _dump_artifact(artifact: Artifact, contents: _Contents) -> dict[str, object]:
    return {"content": contents.add(artifact.content), "fields": artifact_fields(artifact)}


def _load_artifact(payload: Mapping[str, Any], read: Read) -> Artifact:
    return artifact_of(payload["fields"], read(payload["content"]))


def _dump_error(error: ImpastoError, contents: _Contents) -> dict[str, object]:
    name = next(each.__name__ for each in type(error).__mro__ if getattr(impasto, each.__name__, None) is each)
    message, facts = error.args
    payload = {"type": name, "message": message, "facts": dict(facts)}
    if error.artifacts:
        payload["artifacts"] = [_dump_artifact(each, contents) for each in error.artifacts]
    if isinstance(error, ChargeUnknown | UnusableResult) and (error.file is not None or error.raw):
        payload["raw"] = contents.add(error.file or File.of(error.raw))
    return payload


def _load_error(payload: Mapping[str, Any], read: Read) -> ImpastoError:
    kind: type[ImpastoError] = getattr(impasto, payload["type"])
    error = kind(payload["message"], payload["facts"])  # type: ignore[call-arg]  # see Rebuilt: the facts
    error.artifacts = tuple(_load_artifact(each, read) for each in payload.get("artifacts", ()))
    if isinstance(error, ChargeUnknown | UnusableResult) and "raw" in payload:
        content = read(payload["raw"])
        if isinstance(content, File):
            error.file = content
        else:
            error.raw = content
    return error
