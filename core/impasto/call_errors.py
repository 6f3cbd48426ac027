"""Errors for a call that timed out, was closed or broke, by the evidence of what was sent."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, NoReturn

from .advice import RESUME_ADVICE
from .errors import (
    MAX_PROBLEMS,
    BrokenPlugin,
    ChargeUnknown,
    ClientClosedError,
    ConfigError,
    ImpastoError,
    InvalidRequest,
    NotFound,
    NotSent,
    PollExpired,
    ResponseError,
    SpendLimitExceeded,
    TransportError,
    UnusableResult,
)
from .files import File
from .interrupts import pass_interrupt
from .records import FailedArtifact, Pending, is_valid_cost
from .redact import describe_error, printable, redact, redact_bytes

if TYPE_CHECKING:
    from .call import Call
    from .costs import Cost
    from .operation import Operation
    from .wire import WireResponse


_log = logging.getLogger("impasto")

_SHORTEST_START = 8
"""Characters of an answer that are looked for in a message; fewer could be a word of its own."""


_MOST_CHAINED = 100
_LONGEST_CHAINED = 100_000
"""Characters of an error's texts in a traceback; a longer one holds a whole answer."""


def unknown_charge_text(call: Call) -> str:
    """Return the text for a call that may have been charged."""
    if not call.job:
        return "the request was sent; it may have been charged"
    job = f"job {job_text(call.job)}"
    if call.images_wait:
        return f"the images of {job} are at the provider and may be charged{RESUME_ADVICE}"
    if call.cancellation:
        return f"{job} {call.cancellation}; it may have been charged"
    return f"{job} continues at the provider and may be charged{RESUME_ADVICE}"


OF_NOTHING_SENT = (ClientClosedError, ConfigError, InvalidRequest, NotSent, SpendLimitExceeded)
"""Errors that say that nothing was sent. A plugin can't mean an answer with them."""


def unfetched_error(what: str, error: BaseException, charge: str) -> ChargeUnknown:
    """Return the error for a result that its address does not give, which can be fetched later.

    ``charge``: what is known of the charge, in words.
    """
    reason = error.message if isinstance(error, ImpastoError) else f"a plugin raised {describe_error(error)}"
    return ChargeUnknown(f"{what} could not be fetched: {reason.partition(';')[0]}; {charge}{RESUME_ADVICE}")


def job_text(job: str) -> str:
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


def with_status(error: ImpastoError, response: WireResponse) -> ImpastoError:
    """Return a plugin's error with the answer's status, by which polls of an address that refuses end."""
    if isinstance(error, TransportError) and error.status is None:
        error.status = response.status
    return error


def raise_fault(error: BaseException, call: Call) -> NoReturn:
    """Raise the error for a plugin that broke its contract, with the plugin's own behind it if that shows no secret."""
    fault = plugin_error(error, call)
    fault.__cause__ = error  # before the secrets are removed: a traceback prints the whole chain
    annotate(fault, call)
    raise fault from fault.__cause__


def _charge_unknown(what: str, call: Call) -> ChargeUnknown:
    answer = call.answer
    error = ChargeUnknown(
        f"{what}; {unknown_charge_text(call)}",
        status=answer.status if answer is not None else None,
        raw=answer.stream.received if answer is not None and answer.stream is not None else b"",
        request_id=answer.request_id if answer is not None else None,
    )
    error.file = call.file
    return error


def answer_fault(error: BaseException, operation: Operation, response: WireResponse) -> str:
    """Return the text for a plugin that raised ``error`` while it normalized an answer, without the answer itself."""
    kind, raised = type(operation.dialect), describe_error(error)
    if len(start := response.body[:16].decode("utf-8", "replace")) > _SHORTEST_START and start in raised:
        raised = f"{raised.partition(start)[0]}[the answer]"
    plugin = f"{kind.__module__}.{kind.__qualname__}"
    return f"the answer could not be read: the plugin {plugin} raised {raised}; please report this to its author"


def job_missing_error(error: NotFound, call: Call, age: float, pending: Pending) -> ImpastoError:
    """Return the error for a job that the provider does not know, ``age`` seconds after it accepted it."""
    if call.request.job is not None and not pending.is_ready:
        job = job_text(pending.id)
        error.message = f"no result for job {job}: the id is unknown, the result has expired, or another key started it"
        return error
    if pending.result_ttl is not None and age >= pending.result_ttl:
        return PollExpired(f"the result of job {job_text(pending.id)} has expired at the provider")
    message = f"the provider no longer knows job {job_text(pending.id)}; it may have been charged"
    if pending.is_ready:  # the address of the result lacks it, which says nothing of the job
        message = error.message
    return ChargeUnknown(message, status=error.status, request_id=error.request_id)


def missing_artifact(index: int, count: int) -> FailedArtifact:
    """Return the failure of an image that an answer with several lacks."""
    error = UnusableResult(f"the answer lacks image {index + 1} of {count}; it may have been charged")
    error.billed = "unknown"  # unlike other unusable answers: nothing of it came
    return FailedArtifact(index=index, error=error)


def annotate(error: ImpastoError, call: Call, cost: Cost | None = None) -> ImpastoError:
    """Add the model's name, the job's id and possible charges to the error, and remove the key from it.

    ``cost``: that of the tokens which the error names.
    """
    error.operation = error.operation or call.request.operation
    error.id, error.count = error.id or call.job, call.request.count
    if not error.request_id and call.answer is not None:
        error.request_id = call.answer.request_id
    redact_error(error, call.secrets)
    if isinstance(error, ChargeUnknown):
        error.artifacts = error.artifacts or call.artifacts
    if error is call.refusal and error.billed == "no" and call.possible_charges:
        call._mark_attempt_free(job=True)  # noqa: SLF001 - the route's own side of a call, which no plugin has
        call.mark_not_charged(error)
    if error.billed == "no" and call.possible_charges:  # a job that runs on, an attempt before this one
        error.billed = "unknown"
    cost = None if error.billed == "no" else error.cost or cost or call.job_cost
    error.cost = cost if is_valid_cost(cost) else None
    error.retryable = error.retryable and error.billed == "no"
    return error


def redact_error(error: ImpastoError, secrets: tuple[str, ...]) -> None:
    """Remove secrets from the error's texts, notes and bytes, and from its chain each error that shows one.

    Its texts may be a plugin's, and its provider's: what is not text becomes text, of a single line and bounded.
    """
    error.message = redact(_text(error.message, _LONGEST_MESSAGE), secrets)
    error.args = (error.message,)
    error.request_id = redact(_text(error.request_id), secrets) or None
    if error.billed not in _BILLED:
        error.billed = "unknown"
    if isinstance(error, ChargeUnknown | UnusableResult):
        raw: object = error.raw
        error.raw = redact_bytes(raw, secrets) if isinstance(raw, bytes) else b""
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


def redacted_file(file: File, secrets: tuple[str, ...]) -> File:
    """Return the file of an error, or its bytes without the secrets if it shows one. Call it in a thread."""
    end = b""
    with file.open() as source:
        while piece := source.read(_PIECE):
            chunk = end + piece
            if redact_bytes(chunk, secrets) != chunk:
                return File.of(redact_bytes(file.read(), secrets))
            end = piece[-_LONGEST_OVERLAP:]
    return file


_PIECE = 1 << 20
_LONGEST_OVERLAP = 16
"""Bytes by which a secret is recognized, at most."""

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
