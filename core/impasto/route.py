"""A model's route to its provider: the request loop around the hooks of its plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import attrs
import pluggy

from .call_errors import (
    OF_NOTHING_SENT,
    annotate,
    answer_fault,
    cancelled_error,
    raise_fault,
    redact_error,
    redacted_file,
    timeout_error,
    unknown_charge_text,
    with_status,
)
from .composition import compose, direct_call, wrong_type
from .errors import (
    BrokenPlugin,
    ImpastoError,
    InvalidRequest,
    JobFailed,
    NotFound,
    NotSent,
    PaymentRequired,
    PermissionDenied,
    Problem,
    RateLimited,
    Unauthorized,
    UnusableResult,
)
from .fanout import combined_error
from .interrupts import finish, pass_interrupt
from .jobs import JobPolling
from .operation import Operation
from .permission import Permission, running
from .records import Handler, Pending, Result
from .redact import redact
from .request_headers import COMMON_HEADERS, authorized, check_header
from .result_checks import checked_pending, checked_result, id_of_accepted, result_problem
from .retry_after import retry_after
from .server_events import EVENT_STREAM
from .streaming import NormalizeEvent, is_event_stream, read_stream, result_of_events
from .wire import WireRequest, WireResponse

if TYPE_CHECKING:
    from .call import Call


_OF_ONE_REQUEST = (NotFound, PaymentRequired, PermissionDenied, RateLimited, Unauthorized)
"""Errors that refuse a request. As the answer to a poll they do not prove that the job was free."""


def _sender(hook: pluggy.HookRelay, operation: Operation, normalize_event: NormalizeEvent | None) -> Handler:
    """Return the innermost handler: one exchange, its evidence, and the error that the answer means."""
    carry, classify, is_artifact_body = map(direct_call, (hook.send, hook.classify_error, hook.is_artifact_body))
    authorize, sign = (direct_call(each) if each.get_hookimpls() else None for each in (hook.authorize, hook.sign))

    async def send(wire: WireRequest) -> WireResponse:
        call = wire.call
        if wire.method == "POST":
            running.get().use(call)
        call.deadline.start(call.timeout)  # the time spent waiting for a slot and for the rate does not count
        if wire.url is not None:
            if wire.method != "GET":
                raise BrokenPlugin("a request with a url must be a GET: a paid one goes to the provider's base URL")
            wire = attrs.evolve(wire, url=call.account.check_url(wire.url))
        if (authorize or sign) and not wire.anonymous:
            wire = await authorized(wire, authorize, sign)
        for name, value in wire.headers.items():
            if not (type(value) is str and value.isascii() and value.isprintable() and name in COMMON_HEADERS):
                check_header(name, value)
        if call.is_recorded:
            await call.before_send(wire)
        try:
            response = await carry(wire=wire)
        except NotSent as error:
            redact_error(error, call.secrets)
            call.mark_not_sent(error)
            raise
        if not isinstance(response, WireResponse):
            raise wrong_type("send", response, "a WireResponse")
        failure: object = None
        if normalize_event is not None and is_event_stream(response):
            response, failure = await read_stream(call, response, normalize_event, operation)
        elif response.stream is not None:
            raw = call.has_spools and is_artifact_body(request=call.request, response=response) is True
            response = await call.read_body(response, raw=raw)
        if response.result is None and failure is None:
            failure = classify(request=call.request, response=response)
        if wire.method == "GET":
            call.retry_after = retry_after(response.headers) or 0.0
        if failure is None:
            if call.is_refused:
                call.is_refused = False
            return response
        if not isinstance(failure, ImpastoError) or isinstance(failure, OF_NOTHING_SENT):
            raise wrong_type("classify_error", failure, "an ImpastoError for an answer")
        redact_error(with_status(failure, response), call.secrets)
        if isinstance(failure, JobFailed):
            call.refusal = failure
        if failure.billed == "no":
            call._mark_attempt_free()  # noqa: SLF001 - the route's own side of a call, which no plugin has
            call.mark_not_charged(failure)
            if authorize is not None and isinstance(failure, Unauthorized) and not wire.anonymous:
                failure.retryable, call.is_refused = not call.is_refused, True  # once more, with another token
        raise failure

    return send


@attrs.frozen(eq=False)
class Route:
    """One operation bound to its transport and middleware, ready to call."""

    operation: Operation
    transform: Callable[..., WireRequest | Pending]
    send: Handler
    normalize: Callable[..., Result | Pending]
    normalize_event: NormalizeEvent | None = None

    @classmethod
    def open(
        cls, operation: Operation, transport: object, middleware: Sequence[object] = (), *, retries: object = None
    ) -> Route:
        """Register the plugins and compose the middleware, once. Raises BrokenPlugin.

        ``retries``: the plugin whose middleware owns retries, and may send a paid request again.
        """
        hook, wrap = compose(operation, transport, middleware, retries)
        streams = operation.streams or len(hook.normalize_event.get_hookimpls()) > 1
        events = direct_call(hook.normalize_event) if streams else None
        send = wrap(_sender(hook, operation, events))
        return cls(operation, direct_call(hook.transform_request), send, direct_call(hook.normalize_response), events)

    async def __call__(self, call: Call, *, poll_interval: float | None) -> Result:
        """Run one call: transform, send, classify, normalize. A job is polled to its end, under the call's deadline."""
        if call.request.stream and self.normalize_event is None:
            call.request = attrs.evolve(call.request, stream=False)  # the model does not stream
        result: Result | None = None
        token = running.set(permission := Permission(call))
        # Every way out passes here, so that each error is reported with the bill that the evidence allows.
        try:
            with call.deadline:
                outcome = await self._run(call, poll_interval)
            outcome = checked_result(outcome, call, self.operation.cost_of_tokens) if call.has_odd_result else outcome
            if outcome.usage is not None and outcome.cost is None:
                outcome = self.operation.priced_by_usage(outcome)
            result = outcome.completed(
                call.price,
                call.request,
                is_free=not call._posts and call.is_proven_free,  # noqa: SLF001 - fewer calls: benchmark `dispatch`
                earlier_attempts=call._unknown,  # noqa: SLF001 - as its evidence
            )
            if call._unknown:  # noqa: SLF001 - as its evidence
                result = _with_charge_warning(result, call)
            return result
        except TimeoutError as error:
            if not call.deadline.is_over:  # a plugin's own
                raise_fault(error, call)
            raise annotate(timeout_error(call), call) from None
        except asyncio.CancelledError as cancelled:
            if not call.deadline.is_cancelled():  # nobody but a plugin: a task group would pass over it in silence
                raise_fault(cancelled, call)
            if call.possible_charges:
                note = f"{call.request.operation}: {unknown_charge_text(call)}"
                cancelled.add_note(redact(note, call.secrets))  # the provider chose the job's id
                vars(cancelled)["error"] = annotate(cancelled_error(call), call)
            raise
        except ImpastoError as error:
            # BrokenPlugin means that nothing was charged, so it can't stand for a call that may have been.
            if isinstance(error, BrokenPlugin) and call.possible_charges:
                raise_fault(error, call)
            try:
                annotate(error, call, self.operation.cost_of_tokens(error.usage))
            except BaseException as fault:  # noqa: BLE001 - a plugin's own class of errors, which lacks what every error has
                pass_interrupt(fault)
                raise_fault(error, call)
            raise
        except BaseException as error:  # a plugin broke its contract: a possible charge must still be reported
            if isinstance(error, GeneratorExit) and not call.deadline.is_in_task():
                raise  # the coroutine is closed
            pass_interrupt(error)
            raise_fault(error, call)
        finally:
            # Tasks that a plugin left running can't send anything any more. The refusal's traceback leads back to the
            # call, and so does a timer's context: they would hold the whole answer.
            call._is_over, call.refusal, permission.call = True, None, None  # noqa: SLF001 - the route's own side
            try:  # noqa: SIM105 - each call comes here, and suppress calls three functions more
                running.reset(token)
            except ValueError:  # the coroutine is closed from another context, which has its own
                pass
            if call.on_end:
                call.finish(result)

    async def _run(self, call: Call, poll_interval: float | None) -> Result:
        request = call.request
        try:
            wire = self.transform(request=request, account=call.account)
        except AttributeError as error:
            if request.job is None or error.obj is not request.params:
                raise
            raise _no_jobs() from error
        if isinstance(wire, Pending) and request.job is not None:
            return await self._resume(call, wire, poll_interval)
        if not isinstance(wire, WireRequest):
            raise wrong_type("transform_request", wire, "a WireRequest")
        if request.job is None:
            response = await self.send(wire.with_call(call))
            outcome = await self._outcome(call, response)
            if not isinstance(outcome, Pending):
                return outcome
            return await self._follow(call, outcome, poll_interval)
        if wire.method != "GET":
            raise _no_jobs()
        return await self._resume(call, Pending(id=request.job, poll=wire), poll_interval)

    async def _resume(self, call: Call, pending: Pending, poll_interval: float | None) -> Result:
        if problem := result_problem(pending, call):
            raise BrokenPlugin(problem)
        call.begin()
        return await self._follow(call, pending, poll_interval)

    async def _follow(self, call: Call, pending: Pending, poll_interval: float | None) -> Result:
        call.mark_job_accepted(pending)
        if call.is_recorded:
            await finish(call.record_job(pending))
        return await JobPolling(call, poll_interval, self.send, self._outcome).run(pending)

    async def _outcome(self, call: Call, response: WireResponse) -> Result | Pending:
        if not isinstance(response, WireResponse):
            raise wrong_type("a middleware", response, "a WireResponse")
        if response.result is not None:
            return response.result
        if response.file is None:
            return self._normalize(call, response)
        try:
            return await asyncio.to_thread(self._normalize, call, response)  # it is read from disk
        except UnusableResult as error:
            error.file = await asyncio.to_thread(redacted_file, response.file, call.secrets)
            raise

    def _normalize(self, call: Call, response: WireResponse) -> Result | Pending:
        problem, job = "", None
        cause: BaseException | None = None
        try:
            if self.normalize_event is not None and response.media_type == EVENT_STREAM:  # of a cache
                outcome: object = result_of_events(response.body, call.request, self.normalize_event)
            else:
                outcome = self.normalize(request=call.request, response=response, account=call.account)
        except OF_NOTHING_SENT as error:
            problem, cause = answer_fault(error, self.operation, response), error
        except ImpastoError as error:
            if call.job is None or not isinstance(error, _OF_ONE_REQUEST):
                call.refusal = error
            with_status(error, response)
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a plugin makes of a paid answer, its bytes are kept
            pass_interrupt(error)
            problem, cause = answer_fault(error, self.operation, response), error
        else:
            problem = result_problem(outcome, call)
            if not problem and isinstance(outcome, Result) and not outcome.artifacts:  # each image has its error
                call.refusal = combined_error([each.error for each in outcome.errors])
                raise call.refusal
            if not problem:
                if not isinstance(outcome, Pending):
                    return cast("Result", outcome)
                if outcome.downloads:
                    call.answer = response  # see fetch_images
                return checked_pending(outcome, call)
            job = id_of_accepted(outcome, call)
        unusable = UnusableResult(
            problem, raw=response.body, media_type=response.media_type, request_id=response.request_id
        )
        unusable.id = job
        raise unusable from cause


def _no_jobs() -> InvalidRequest:
    """Return the error for a job of a model whose plugin would send a paid request for it."""
    return InvalidRequest([Problem("id", "this model answers at once: it has no jobs to resume")])


def _with_charge_warning(result: Result, call: Call) -> Result:
    warning = f"{call.unknown_attempts} earlier attempts may have been charged too (Retry.on_ambiguous)"
    return attrs.evolve(result, warnings=(*result.warnings, warning))
