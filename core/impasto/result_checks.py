"""The checks of a plugin's result or job: the reasons why it can't be used, and what is left out of one that can."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import attrs

from .call_errors import redact_error
from .errors import BrokenPlugin, ImpastoError
from .files import File
from .records import MAX_ARTIFACTS, Artifact, Download, FailedArtifact, Pending, Result, is_valid_cost
from .redact import redact, secret_starts
from .wire import WireRequest, WireResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import Call
    from .costs import Cost, Usage


_LONGEST_ID = 100_000
"""Characters of a job's id, which may be the addresses of its images."""


def address_problem(request: WireRequest, call: Call) -> str:
    """Return the reason why a request for a job's state or image can't be sent; empty if it can."""
    if request.method != "GET":
        return f"a plugin polls its job with a {request.method}, not a GET"
    if request.url is not None:
        try:
            call.account.check_url(request.url)
        except BrokenPlugin as error:
            return f"the answer leads to an address that is not followed: {error.message}"
    return ""


def _pending_problem(pending: Pending, call: Call) -> str:
    """Return the reason why a job can't be followed, empty if it can."""
    downloads: object = pending.downloads
    errors: object = pending.errors
    if not isinstance(downloads, tuple) or not all(map(_is_download, downloads)):
        return "the downloads of a plugin's job must be a tuple of Download"
    if not isinstance(errors, tuple) or not all(map(is_failure, errors)):
        return "the errors of a plugin's job must be a tuple of FailedArtifact"
    if (count := len(downloads) + len(errors)) > MAX_ARTIFACTS:
        return f"the answer contains {count:,} artifacts; at most {MAX_ARTIFACTS} are accepted"
    if call.pending is None and not _is_id(pending.id):
        return f"the id of a plugin's job must be text of 1 to {_LONGEST_ID:,} characters"
    if downloads or errors:
        call.has_odd_result = True
    poll: object = pending.poll
    if not (poll is None or isinstance(poll, WireRequest)):
        return "the poll of a plugin's job must be a WireRequest"
    if pending.poll is None:
        is_known = downloads or call.pending is not None
        return "" if is_known else "a plugin accepts a job without the request that polls it"
    return address_problem(pending.poll, call)


_NOT_ARTIFACTS = "the artifacts of the plugin's result must be a tuple of Artifact"
_SEEDS = (int, type(None))  # no bool
_TEXTS = (str, type(None))


def result_problem(outcome: object, call: Call) -> str:
    """Return the reason why a plugin's result or job can't be used, empty if it can."""
    if isinstance(outcome, Pending):
        return _pending_problem(outcome, call)
    if not isinstance(outcome, Result):
        return f"normalize_response returned {type(outcome).__name__}, not a Result or a Pending"
    artifacts: object = outcome.artifacts
    if not isinstance(artifacts, tuple):
        return _NOT_ARTIFACTS
    if len(artifacts) > MAX_ARTIFACTS:
        return f"the answer contains {len(artifacts):,} artifacts; at most {MAX_ARTIFACTS} are accepted"
    is_whole = bool(artifacts)
    is_plain, texts = outcome.warnings == () and outcome.errors == (), outcome.request_id or ""
    if type(texts) is not str:
        is_plain, texts = False, ""
    for each in artifacts:  # one loop, and nothing called in it: benchmark `dispatch`
        if not isinstance(each, Artifact):
            return _NOT_ARTIFACTS
        data: object = each._data  # noqa: SLF001 - ``data`` reads the file
        is_valid = isinstance(data, bytes) if each.file is None else isinstance(each.file, File)
        if not is_valid or not isinstance(each.media_type, str):
            return "an artifact of the plugin's result must have bytes or a File, and a media type as text"
        is_whole = is_whole and (each.file is not None or data != b"")
        reason, prompt = each.finish_reason, each.revised_prompt
        if reason is not None or prompt is not None:
            texts = f"{texts}\n{reason}\n{prompt}"
            is_plain = is_plain and type(reason) in _TEXTS and type(prompt) in _TEXTS
        is_plain = is_plain and type(each.seed) in _SEEDS
    if not artifacts and outcome.errors:
        errors: object = outcome.errors
        if isinstance(errors, tuple) and all(map(is_failure, errors)):
            return ""
        return "the errors of the plugin's result must be a tuple of FailedArtifact"
    if not (is_whole or (artifacts and call.is_proven_free)):
        return "the answer contains no artifact, or an empty one"
    for secret in call.secrets:
        for start in secret_starts(secret):
            is_plain = is_plain and start not in texts
    if not is_plain:
        call.has_odd_result = True
    return ""


def _is_download(value: object) -> bool:
    if not isinstance(value, Download):
        return False
    request: object = value.request
    response: object = value.response
    is_there = response is None or isinstance(response, WireResponse)
    return isinstance(request, WireRequest) and type(value.index) is int and is_there


def is_failure(value: object) -> bool:
    """Return True for a failed artifact of a plugin's result that is one."""
    return isinstance(value, FailedArtifact) and type(value.index) is int and isinstance(value.error, ImpastoError)


def checked_result(
    result: Result, call: Call, cost_of_tokens: Callable[[Usage | None], Cost | None] = lambda _: None
) -> Result:
    """Return the result with usable warnings, errors and request id, and without the key in any text of it.

    A warning names what was left out. The artifacts were checked when the plugin returned them. ``cost_of_tokens``
    returns the cost of an error that states its tokens alone.
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
        cost = None if failure.error.billed == "no" else failure.error.cost or cost_of_tokens(failure.error.usage)
        failure.error.cost = cost if is_valid_cost(cost) else None
    artifacts = tuple(_checked(each, secrets, wrong) for each in result.artifacts)
    return attrs.evolve(
        result,
        artifacts=artifacts,
        request_id=redact(request_id, secrets) if isinstance(request_id, str) else None,
        warnings=(*(redact(each, secrets) for each in warnings), *wrong),
        errors=failures,
    )


def checked_pending(pending: Pending, call: Call) -> Pending:
    """Return the job without the times that are none, which a provider may have chosen: NaN, or less than nothing.

    Its id is recorded and shown: if it has the key in it, it is one that can't be resumed. The polls are as they were.
    """
    times = (pending.interval, pending.first, pending.result_ttl)
    id = redact(pending.id, call.secrets) if call.pending is None else pending.id
    if id == pending.id and all(map(_is_time, times)):
        return pending
    interval, first, result_ttl = (each if _is_time(each) else None for each in times)
    return attrs.evolve(pending, id=id, interval=interval, first=first, result_ttl=result_ttl)


def id_of_accepted(outcome: object, call: Call) -> str | None:
    """Return the id of a job that was accepted and can't be followed, by which it may be resumed."""
    if call.job is None and isinstance(outcome, Pending) and _is_id(outcome.id):
        return redact(outcome.id, call.secrets)
    return None


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ID


def _is_time(value: object) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= cast("float", value) < math.inf)


def _left_out(name: str, expected: str, value: object, wrong: list[str]) -> None:
    wrong.append(f"the plugin's result has an invalid {name}: it must be {expected}, not {type(value).__name__}")


def _checked(artifact: Artifact, secrets: tuple[str, ...], wrong: list[str]) -> Artifact:
    texts: dict[str, str | None] = {}
    for name in ("finish_reason", "revised_prompt"):
        text: object = getattr(artifact, name)
        if text is not None and not isinstance(text, str):
            _left_out(name, "text", text, wrong)
        texts[name] = redact(text, secrets) if isinstance(text, str) else None
    has_seed = artifact.seed is None or type(artifact.seed) is int  # no bool
    if not has_seed:
        _left_out("seed", "a whole number", artifact.seed, wrong)
    return attrs.evolve(
        artifact,
        seed=artifact.seed if has_seed else None,
        finish_reason=texts["finish_reason"],
        revised_prompt=texts["revised_prompt"],
    )
