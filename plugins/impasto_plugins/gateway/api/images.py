"""``images/generations``, ``images/edits`` and ``images/variations``; ``audio/generations`` and ``3d/generations``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import attrs
from aiohttp import HttpVersion11, web

from impasto import File
from impasto.ext import Makes, StoredCall
from impasto_plugins.fetched_jobs import ProviderJob
from impasto_plugins.gateway.calls import arguments
from impasto_plugins.gateway.calls.arguments import CallArguments
from impasto_plugins.gateway.calls.budgets import BudgetGuard
from impasto_plugins.gateway.calls.deployments import Model
from impasto_plugins.gateway.calls.execution import (
    CallOutcome,
    DeploymentCandidates,
    PreparedCall,
    UnfinishedJobs,
    execute_with_fallback,
    prepare,
)
from impasto_plugins.gateway.calls.provider_jobs import ProviderJobs
from impasto_plugins.gateway.calls.streamed_answers import AnswerSpools, PartialImages
from impasto_plugins.gateway.config.model import DAY_SECONDS
from impasto_plugins.gateway.errors import APIError, JobInProgress
from impasto_plugins.gateway.http.memory_budget import IMAGE_BYTES, MemoryReservation
from impasto_plugins.gateway.idempotency.fingerprint import Fingerprint
from impasto_plugins.gateway.idempotency.queue_mark import QueueMark
from impasto_plugins.gateway.idempotency.session import CallLabel, IdempotencySession, JobStarted
from impasto_plugins.gateway.telemetry.request_record import RECORD_KEY, UNKNOWN_MODEL

from . import jobs, responses
from .context import RequestContext
from .delivery import present_replay, store_for_urls
from .response_body import ResponseContent, present


@attrs.frozen(kw_only=True)
class CallKind:
    """The kind of call of a path. ``event``: the name of its stream's event, None without a stream."""

    name: str
    edit: bool
    vary: bool = False
    makes: Makes = "image"
    event: str | None


GENERATIONS = CallKind(name="generations", edit=False, event="image_generation.completed")
EDITS = CallKind(name="edits", edit=True, event="image_edit.completed")
VARIATIONS = CallKind(name="variations", edit=True, vary=True, event=None)
AUDIO = CallKind(name="audio", edit=False, makes="audio", event=None)
MODELS_3D = CallKind(name="3d", edit=False, makes="3d", event=None)


async def create_images(context: RequestContext, kind: CallKind) -> web.StreamResponse:
    """Read a call, run it, and respond with its images or its job. Raises APIError."""
    if "prefer" in context.request.headers and _prefers_job(context.request.headers.getall("prefer")):
        return await jobs.start_job(context, partial(_run_as_job, context, kind))
    with MemoryReservation(context.services.memory) as share, ExitStack() as files:
        request = await _read_call(context, kind, share, files)
        async with IdempotencySession(context.services.idempotency, request.fingerprint, share) as session:
            call = await request.ready(session)
            # One image in a response whose length may be unknown at its beginning can be sent while it arrives.
            is_single = call.first.n == 1 and call.first.response_format == "b64_json"
            is_single = is_single and context.request.version >= HttpVersion11
            store, stack = context.runtime.places.salvage, session.stack
            answers = AnswerSpools(share, stack, store, int(time.time()), is_single)
            if request.is_streamed and call.first.n == 1:
                answers.partial_images = PartialImages(stack.enter_context(MemoryReservation(context.services.memory)))
            making = _get_content(context, call, answers)
            if request.is_streamed and kind.event is not None:
                return await responses.respond_with_events(context, making, answers, kind.event)
            return await responses.respond(context, making, answers)


def _prefers_job(preferences: Sequence[str]) -> bool:
    """Return True if a ``Prefer`` header asks for a job (RFC 7240)."""
    words = (each.partition(";")[0].strip().lower() for each in ",".join(preferences).split(","))
    return "respond-async" in words


@attrs.frozen(kw_only=True, eq=False)
class _CallRequest:
    """A request for a call that was read, with the deployments that may run it."""

    model: Model
    candidates: DeploymentCandidates
    fingerprint: Fingerprint
    reservation: MemoryReservation
    is_streamed: bool

    async def ready(self, session: IdempotencySession) -> _ReadyCall:
        """Return the call, checked for a deployment. Raises APIError."""
        first = await self.candidates.next()
        assert first is not None  # noqa: S101 - the first is given, or all are refused
        self.reservation.reserve(first.n * IMAGE_BYTES)
        label = CallLabel(self.model.name, first.response_format)
        return _ReadyCall(
            first=first, others=self.candidates, session=session, reservation=self.reservation, label=label
        )


@attrs.frozen(kw_only=True, eq=False)
class _ReadyCall:
    """A call that can be made: ``first`` on one deployment, ``others`` as fallbacks."""

    first: PreparedCall
    others: DeploymentCandidates
    session: IdempotencySession
    reservation: MemoryReservation
    label: CallLabel


async def _read_call(
    context: RequestContext, kind: CallKind, share: MemoryReservation, files: ExitStack
) -> _CallRequest:
    """Read the request of a call. Its uploads live as long as ``files``. Raises APIError."""
    runtime, request = context.runtime, context.request
    call_args = await arguments.read_call_arguments(request, runtime.max_body_bytes, share, files)
    model = _find_model(context, call_args)
    if uploads := call_args.uploaded_file_ids():
        await _open_uploads(context, call_args, uploads, files)
    if runtime.config.general.log_prompts and isinstance(prompt := call_args.params.get("prompt"), str):
        request[RECORD_KEY].prompt = prompt
    is_streamed = _is_streamed(call_args, kind)
    fingerprint = await Fingerprint.create(request, context.caller, kind.name, call_args)
    check = partial(prepare, call_args=call_args, reservation=share, edit=kind.edit, vary=kind.vary, makes=kind.makes)
    return _CallRequest(
        model=model,
        candidates=DeploymentCandidates(model, check, model.by_preference()),
        fingerprint=fingerprint,
        reservation=share,
        is_streamed=is_streamed,
    )


async def _open_uploads(
    context: RequestContext, call_args: CallArguments, uploads: Mapping[str, str], files: ExitStack
) -> None:
    """Open the uploaded files that a call names; they live as long as ``files``. Raises APIError."""
    files_by_id: dict[str, File] = {}
    for id, word in uploads.items():
        files_by_id[id] = await context.services.open_upload(id, context.caller.digest, word)
        files.callback(files_by_id[id].close)
    call_args.resolve_uploads(files_by_id)


async def _get_content(context: RequestContext, call: _ReadyCall, spools: AnswerSpools) -> ResponseContent:
    """Run the call, or wait for it, and return the content for its caller. Raises APIError."""
    outcome, row = await call.session.get_outcome(partial(_execute, context, call, spools), call.label)
    call.reservation.resize(outcome.bytes_in_memory)
    return (
        await present(outcome)
        if row is None
        else await present_replay(context, row, outcome, call.reservation, call.session.stack)
    )


async def _run_as_job(context: RequestContext, kind: CallKind, job_started: JobStarted) -> None:
    """Run the call as a job. Raises APIError before it begins."""

    def mark_started(row: StoredCall) -> None:
        if not job_started.done():  # it may be made elsewhere after that
            job_started.set_result((row, False))

    with MemoryReservation(context.services.memory) as share, ExitStack() as files:
        request = await _read_call(context, kind, share, files)
        async with IdempotencySession(context.services.idempotency, request.fingerprint, share) as session:
            call = await request.ready(session)
            if request.is_streamed:
                message = "stream: a job can't be streamed; leave out stream, or the header Prefer: respond-async"
                raise APIError(400, message, code="invalid_value", param="stream")
            with ExitStack() as stack:
                answers = AnswerSpools(share, stack, context.runtime.places.salvage, int(time.time()))
                answers.job_seconds = DAY_SECONDS
                make = partial(_execute, context, call, answers, on_attempt=mark_started)
                await session.run_job(make, call.label, job_started)


async def _execute(
    context: RequestContext,
    call: _ReadyCall,
    spools: AnswerSpools,
    row: StoredCall | None,
    *,
    on_attempt: Callable[[StoredCall], object] | None = None,
) -> CallOutcome:
    """Run the call. ``on_attempt``: it is a job."""
    if on_attempt is not None and row is not None:
        spools.on_attempt = partial(on_attempt, row)

    async def on_job(prepared_call: PreparedCall, all_jobs: Sequence[ProviderJob]) -> None:
        await call.session.record_jobs(
            row, lambda: ProviderJobs.from_call(prepared_call, all_jobs, spools.created).to_json()
        )

    guard = BudgetGuard(context.services.state.budgets, context.services.late_writes, context.caller)
    leased, running = context.services.idempotency.in_flight.leased, call.session.running
    if leased is not None and running is not None and row is None and call.session.may_repeat:
        guard.begin = partial(leased.begin_row, running)
    async with QueueMark(context.services.state.calls, row) as mark:

        async def before_sending() -> None:
            await mark.remove()
            if leased is not None and running is not None:
                leased.check_lease(running)

        spools.before_sending = before_sending
        try:
            outcome = await execute_with_fallback(call.first, call.others, guard.charge, spools, on_job)
        except UnfinishedJobs as unfinished:
            provider_jobs = ProviderJobs.from_call(unfinished.prepared_call, unfinished.jobs, spools.created)
            raise JobInProgress.of(provider_jobs.to_json(), unfinished.error) from None
    if on_attempt is None and call.label.response_format == "url":  # a job's URLs are made when it is asked for
        return await store_for_urls(context, outcome)
    return outcome


def _find_model(context: RequestContext, call_args: CallArguments) -> Model:
    """Return the model of the path or the body, or the default one. Raises APIError."""
    record, runtime = context.request[RECORD_KEY], context.runtime
    if context.path_name:  # Azure's paths name it; what the body names too means nothing there
        call_args.model = context.path_name
    if call_args.model:
        record.model = UNKNOWN_MODEL
    model = runtime.find_model(call_args.model, context.caller)
    call_args.model = record.model = model.name
    return model


def _is_streamed(call_args: CallArguments, kind: CallKind) -> bool:
    stream = call_args.stream
    if stream is not None and not isinstance(stream, bool):
        raise APIError(400, "stream: must be true or false", code="invalid_value", param="stream")
    if stream and kind.event is None:
        raise APIError(400, "stream: this path can't stream; leave it out", code="invalid_value", param="stream")
    return stream is True
