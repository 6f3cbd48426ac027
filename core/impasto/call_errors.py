"""Errors for a call that timed out, was closed or broke, by the evidence of what was sent."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from .errors import (
    MAX_PROBLEMS,
    BrokenPlugin,
    ChargeUnknown,
    ClientClosedError,
    ImpastoError,
    NotFound,
    NotSent,
    PollExpired,
    ResponseError,
    UnusableResult,
)
from .files import File
from .interrupts import pass_interrupt
from .records import MAX_ARTIFACTS, Artifact, Download, FailedArtifact, Pending, Result
from .redact import describe_error, printable, redact, secret_starts
from .wire import WireRequest

if TYPE_CHECKING:
    from .call import Call
    from .operation import Operation
    from .wire import WireResponse


_log = logging.getLogger("impasto")

_SHORTEST_START = 8
"""Characters of an answer that are looked for in a message; fewer could be a word of its own."""


_LONGEST_ID = 100_000
"""Characters of a job's id, which may be the addresses of its images."""

_MOST_CHAINED = 100
_LONGEST_CHAINED = 100_000
"""Characters of an error's texts in a traceback; a longer one holds a whole answer."""


def unknown_charge_text(call: Call) -> str:
    """Return the text for a call that may have been charged."""
    if not call.job:
        return "the request was sent; it may have been charged"
    job = f"job {_job_text(call.job)}"
    if call.images_wait:
        return f"the images of {job} are at the provider and may be charged; client.resume fetches its result"
    if call.cancellation:
        return f"{job} {call.cancellation}; it may have been charged"
    return f"{job} continues at the provider and may be charged; client.resume fetches its result"


def _job_text(job: str) -> str:
    """Return a job's id for a message. If it is an address, it has no query, which may be a signature."""
    return printable(re.sub(r"\?\S*", "", job) if "://" in job else job)


def timeout_error(call: Call) -> ImpastoError:
    """Return the error for a call whose time is over, or whose client was closed."""
    closed = call.deadline.is_closed
    what = "the client was closed" if closed else f"no result within {call.timeout:g} s"
    if call.possible_charges:
        return _charge_unknown(what, call)
    return (ClientClosedError if closed else NotSent)(f"{what}; nothing was sent")


def cancelled_error(call: Call) -> ChargeUnknown:
    """Return the error for an image that was not fetched, since the caller gave up."""
    return _charge_unknown("the call was cancelled", call)


def plugin_error(error: BaseException, call: Call) -> ImpastoError:
    """Return the error for a plugin that broke its contract."""
    what = error.message if type(error) is BrokenPlugin else f"a plugin raised {describe_error(error)}"
    return _charge_unknown(what, call) if call.possible_charges else BrokenPlugin(what)


def _charge_unknown(what: str, call: Call) -> ChargeUnknown:
    answer = call.answer
    return ChargeUnknown(
        f"{what}; {unknown_charge_text(call)}",
        status=answer.status if answer is not None else None,
        raw=answer.stream.received if answer is not None and answer.stream is not None else b"",
        request_id=answer.request_id if answer is not None else None,
    )


def answer_fault(error: BaseException, operation: Operation, response: WireResponse) -> str:
    """Return the text for a plugin that raised ``error`` while it normalized an answer, without the answer itself."""
    kind, raised = type(operation.dialect), describe_error(error)
    if len(start := response.body[:16].decode("utf-8", "replace")) > _SHORTEST_START and start in raised:
        raised = f"{raised.partition(start)[0]}[the answer]"
    plugin = f"{kind.__module__}.{kind.__qualname__}"
    return f"the answer could not be read: the plugin {plugin} raised {raised}; please report this to its author"


def job_missing_error(error: NotFound, call: Call, age: float, pending: Pending) -> ImpastoError:
    """Return the error for a job that the provider does not know, ``age`` seconds after it accepted it."""
    if call.request.job is not None:
        job = _job_text(pending.id)
        error.message = f"no result for job {job}: the id is unknown, the result has expired, or another key started it"
        return error
    if pending.result_ttl is not None and age >= pending.result_ttl:
        return PollExpired(f"the result of job {_job_text(pending.id)} has expired at the provider")
    return ChargeUnknown(
        f"the provider no longer knows job {_job_text(pending.id)}; it may have been charged",
        status=error.status,
        request_id=error.request_id,
    )


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
    identity: object = pending.id
    if call.pending is None and not (isinstance(identity, str) and 0 < len(identity) <= _LONGEST_ID):
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
        reason = each.finish_reason
        if reason is not None:
            texts = f"{texts}\n{reason}"
        is_plain = is_plain and type(each.seed) in _SEEDS and (reason is None or type(reason) is str)
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
    return isinstance(request, WireRequest) and type(value.index) is int


def is_failure(value: object) -> bool:
    """Return True for a failed artifact of a plugin's result that is one."""
    return isinstance(value, FailedArtifact) and type(value.index) is int and isinstance(value.error, ImpastoError)


def missing_artifact(index: int, count: int) -> FailedArtifact:
    """Return the failure of an image that an answer with several lacks."""
    error = UnusableResult(f"the answer lacks image {index + 1} of {count}; it may have been charged")
    error.billed = "unknown"  # unlike other unusable answers: nothing of it came
    return FailedArtifact(index=index, error=error)


def annotate(error: ImpastoError, call: Call) -> ImpastoError:
    """Add the model's name, the job's id and possible charges to the error, and remove the key from it."""
    error.operation = error.operation or call.request.operation
    error.id, error.count = error.id or call.job, call.request.count
    redact_error(error, call.secrets)
    if isinstance(error, ChargeUnknown):
        error.artifacts = error.artifacts or call.artifacts
    if error is call.refusal and error.billed == "no" and call.possible_charges:
        call._mark_attempt_free(job=True)  # noqa: SLF001 - the route's own side of a call, which no plugin has
        call.mark_not_charged(error)
    if error.billed == "no" and call.possible_charges:  # a job that runs on, an attempt before this one
        error.billed = "unknown"
    error.retryable = error.retryable and error.billed == "no"
    return error


def redact_error(error: ImpastoError, secrets: tuple[str, ...]) -> None:
    """Remove secrets from the error's texts and notes, and from its chain each error that shows one.

    Its texts may be a plugin's, and its provider's: what is not text becomes text, of a single line and bounded.
    """
    error.message = redact(_text(error.message, _LONGEST_MESSAGE), secrets)
    error.args = (error.message,)
    error.request_id = redact(_text(error.request_id), secrets) or None
    if error.billed not in _BILLED:
        error.billed = "unknown"
    if isinstance(error, ResponseError):
        error.name = redact(_text(error.name), secrets) or None
        messages: object = error.messages
        listed = messages[:MAX_PROBLEMS] if isinstance(messages, tuple | list) else (messages,) if messages else ()
        error.messages = tuple(redact(_text(each), secrets) for each in listed)
    if notes := getattr(error, "__notes__", None):
        notes[:] = [redact(note, secrets) for note in notes]
    chain, waiting = set[int](), list[BaseException]([error])
    # A traceback prints the whole chain, and its errors are those of plugins and libraries.
    while waiting and len(chain) < _MOST_CHAINED:
        each = waiting.pop()
        chain.add(id(each))
        for name in ("__cause__", "__context__"):
            behind = getattr(each, name)
            if behind is None or id(behind) in chain:
                continue
            if _shows_secret(behind, secrets):
                _log.debug("%s behind %s: %s", type(behind).__name__, type(error).__name__, REMOVED)
                setattr(each, name, None)
            else:
                waiting.append(behind)


_LONGEST_MESSAGE = 20_000
"""Characters of an error's message: more than all problems of a request have."""

_BILLED = ("no", "yes", "unknown")


def _text(value: object, longest: int = 600) -> str:
    if isinstance(value, str):
        return printable(value, longest)
    try:
        return "" if value is None else printable(str(value), longest)
    except BaseException as fault:  # noqa: BLE001 - a plugin's own class
        pass_interrupt(fault)
        return type(value).__name__


REMOVED = "a plugin's error held the key or a whole answer, and was removed"
"""The end of a line in the log, for the suite: the error is gone, and a plugin's author should know."""


def _shows_secret(error: BaseException, secrets: tuple[str, ...]) -> bool:
    try:
        if any(isinstance(each, str | bytes | bytearray) and len(each) > _LONGEST_CHAINED for each in error.args):
            return True  # its repr, such as that of a UnicodeDecodeError, would be a text of four times the answer
        text = f"{error!s} {error!r} {getattr(error, '__notes__', '')}"
        if len(text) > _LONGEST_CHAINED or redact(text, secrets) != text:
            return True
    except BaseException as fault:  # noqa: BLE001 - a plugin's own class of errors
        pass_interrupt(fault)
        return True
    return isinstance(error, BaseExceptionGroup) and any(_shows_secret(each, secrets) for each in error.exceptions)
