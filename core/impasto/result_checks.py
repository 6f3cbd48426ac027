"""The check of a plugin's result or job beyond what it can't do without: what is invalid costs no paid image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import attrs

from .call_errors import is_failure, redact_error
from .records import Artifact, Pending, Result
from .redact import redact

if TYPE_CHECKING:
    from .call import Call


def checked_result(result: Result, call: Call) -> Result:
    """Return the result with usable warnings, errors and request id, and without the key in any text of it.

    A warning names what was left out. The artifacts were checked when the plugin returned them.
    """
    request_id: object = result.request_id
    secrets, wrong = call.secrets, list[str]()
    if not (request_id is None or isinstance(request_id, str)):
        _left_out("request_id", "text", request_id, wrong)
    texts: object = result.warnings
    warnings = [each for each in texts if isinstance(each, str)] if isinstance(texts, tuple | list) else []
    if not isinstance(texts, tuple) or len(warnings) < len(texts):
        _left_out("warnings", "a tuple of text", texts, wrong)
    found: object = result.errors
    failures = tuple(each for each in found if is_failure(each)) if isinstance(found, tuple | list) else ()
    if not isinstance(found, tuple) or len(failures) < len(found):
        _left_out("errors", "a tuple of FailedArtifact", found, wrong)
    for failure in failures:
        failure.error.operation = failure.error.operation or call.request.operation
        redact_error(failure.error, secrets)
    artifacts = tuple(_checked(each, secrets, wrong) for each in result.artifacts)
    return attrs.evolve(
        result,
        artifacts=artifacts,
        request_id=redact(request_id, secrets) if isinstance(request_id, str) else None,
        warnings=(*(redact(each, secrets) for each in warnings), *wrong),
        errors=failures,
    )


def checked_pending(pending: Pending) -> Pending:
    """Return the job without the times that are none, which a provider may have chosen: NaN, or less than nothing."""
    times = (pending.interval, pending.first, pending.result_ttl)
    valid = [each if _is_time(each) else None for each in times]
    if all(map(_is_time, times)):
        return pending
    return attrs.evolve(pending, interval=valid[0], first=valid[1], result_ttl=valid[2])


def _is_time(value: object) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= cast("float", value) < math.inf)


def _left_out(name: str, expected: str, value: object, wrong: list[str]) -> None:
    wrong.append(f"the plugin's result has an invalid {name}: it must be {expected}, not {type(value).__name__}")


def _checked(artifact: Artifact, secrets: tuple[str, ...], wrong: list[str]) -> Artifact:
    reason: object = artifact.finish_reason
    if reason is not None and not isinstance(reason, str):
        _left_out("finish_reason", "text", reason, wrong)
    has_seed = artifact.seed is None or type(artifact.seed) is int  # no bool
    if not has_seed:
        _left_out("seed", "a whole number", artifact.seed, wrong)
    return attrs.evolve(
        artifact,
        finish_reason=redact(reason, secrets) if isinstance(reason, str) else None,
        seed=artifact.seed if has_seed else None,
    )
