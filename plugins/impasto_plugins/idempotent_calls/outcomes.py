"""The outcome of a call as JSON, with its artifacts beside it: a result, or an error that may have cost something."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

import impasto
from impasto import Artifact, Cost, FailedArtifact, ImpastoError, Result, Usage


def dump_outcome(outcome: Result | ImpastoError, artifacts: Sequence[Mapping[str, object]]) -> str:
    """Return the JSON of an outcome; ``artifacts``: the fields of those that are stored."""
    if isinstance(outcome, ImpastoError):
        return json.dumps({"error": _dump_error(outcome), "artifacts": artifacts})
    failures = [{"index": each.index, "error": _dump_error(each.error)} for each in outcome.errors]
    content = {
        "warnings": outcome.warnings,
        "request_id": outcome.request_id,
        "cost": _fields(outcome.cost),
        "usage": _fields(outcome.usage),
        "possible_cost": _fields(outcome.possible_cost),
    }
    return json.dumps({"result": content, "failures": failures, "artifacts": artifacts})


def load_artifact_fields(text: str) -> list[dict[str, Any]]:
    """Return the fields of the artifacts in the JSON of an outcome."""
    fields: list[dict[str, Any]] = json.loads(text).get("artifacts", [])
    return fields


def load_outcome(text: str, artifacts: tuple[Artifact, ...]) -> Result | ImpastoError:
    """Return the outcome in this JSON, with its artifacts."""
    payload = json.loads(text)
    if (error := payload.get("error")) is not None:
        failure = _load_error(error)
        failure.artifacts = artifacts
        return failure
    content = payload["result"]
    return Result(
        artifacts=artifacts,
        warnings=tuple(content["warnings"]),
        errors=tuple(
            FailedArtifact(index=each["index"], error=_load_error(each["error"])) for each in payload["failures"]
        ),
        request_id=content["request_id"],
        cost=Cost(**content["cost"]) if content["cost"] is not None else None,
        usage=Usage(**content["usage"]) if content["usage"] is not None else None,
        possible_cost=Cost(**content["possible_cost"]) if content["possible_cost"] is not None else None,
    )


def _fields(value: Cost | Usage | None) -> dict[str, object] | None:
    return None if value is None else attrs.asdict(value)


def _dump_error(error: ImpastoError) -> dict[str, object]:
    name = next(each.__name__ for each in type(error).__mro__ if getattr(impasto, each.__name__, None) is each)
    message, facts = error.args
    return {"type": name, "message": message, "facts": dict(facts)}


def _load_error(fields: Mapping[str, Any]) -> ImpastoError:
    kind: type[ImpastoError] = getattr(impasto, fields["type"])
    return kind(fields["message"], fields["facts"])  # type: ignore[call-arg]  # see Rebuilt: the facts
