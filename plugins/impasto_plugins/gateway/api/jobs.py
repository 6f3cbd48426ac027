"""Jobs: ``Prefer: respond-async`` returns an id at once; ``images/jobs/{id}`` returns the state and result.

A job looks like OpenAI's response, with ``id``, ``status`` and times added; a failure is its ``error``.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import attrs
from aiohttp import web

from impasto.ext import StoredCall
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.calls.provider_jobs import ProviderJobs
from impasto_plugins.gateway.calls.queue_timeout import max_queue_wait
from impasto_plugins.gateway.calls.runtime import Runtime
from impasto_plugins.gateway.errors import REPLAYED_HEADERS, APIError
from impasto_plugins.gateway.http.memory_budget import IMAGE_BYTES, MemoryReservation
from impasto_plugins.gateway.idempotency.in_flight import InFlightCall
from impasto_plugins.gateway.idempotency.session import JobStarted
from impasto_plugins.gateway.idempotency.store import KEY_SECONDS
from impasto_plugins.gateway.storage.failures import storage_required

from . import responses
from .context import RequestContext, Services
from .delivery import present_replay

_ID = re.compile(r"[0-9a-f]{64}")
_POLL_SECONDS = "2"
FIRST_PAUSE, LAST_PAUSE = 5.0, 600.0
"""Seconds until a paid image is asked for again whose host has refused it: each time twice as long."""

_STATUS = {"running": "in_progress", "done": "completed", "failed": "failed"}


async def start_job(
    context: RequestContext, work: Callable[[JobStarted], Coroutine[object, object, None]]
) -> web.StreamResponse:
    """Begin a call and respond with its id while it runs. Raises APIError."""
    job_started: JobStarted = asyncio.get_running_loop().create_future()
    context.services.spawn(_run_job(work(job_started), job_started))
    await asyncio.wait([job_started])
    row, is_replayed = job_started.result()
    headers = {
        "location": f"/v1/images/jobs/{row.id}",
        "preference-applied": "respond-async",
        "retry-after": _POLL_SECONDS,
        **(REPLAYED_HEADERS if is_replayed else {}),
    }
    response = _json_response(_job_payload(row), status=202, headers=headers)
    with suppress(ConnectionError):  # the caller left
        await context.begin(response)
        await response.write_eof()

    def on_decided(is_read: bool) -> None:
        if is_read:  # a retry finds the job only if its caller did not learn the id
            context.services.spawn(context.services.idempotency.store.forget_content(row))

    if row.identity == row.content:
        context.services.idempotency.track_delivery(context.request, on_decided)
    return response


async def get_job(context: RequestContext) -> web.StreamResponse:
    """Respond with the state of a job. Raises APIError."""
    repeats, row = context.services.idempotency, None
    with storage_required("looked up"):
        if _ID.fullmatch(context.path_name) is not None:
            row = await repeats.find_row(context.path_name, context.caller.digest)
    if row is None:
        message = "unknown job: it does not exist, belongs to another key, or has expired"
        raise APIError(404, message, code="not_found")
    if row.state == "running":
        return _json_response(_job_payload(row), headers={"retry-after": _POLL_SECONDS})
    with MemoryReservation(context.services.memory) as share:
        share.reserve(IMAGE_BYTES)
        try:
            outcome = await repeats.store.load(row)
        except APIError as failure:
            return _json_response({**_job_payload(row), "status": "failed", **failure.to_json()})
        share.resize(outcome.bytes_in_memory)
        with ExitStack() as stack:
            content = await present_replay(context, row, outcome, share, stack)
            return await responses.respond_with(
                context, attrs.evolve(content, is_replayed=False), json.dumps(_job_payload(row)).encode()
            )


async def resume_job(services: Services, row: StoredCall, call: InFlightCall) -> None:
    """Fetch a call's jobs that its caller, or a dead worker, no longer waits for."""
    with suppress(APIError), MemoryReservation(services.memory) as memory, ExitStack() as stack:  # an error is stored
        make = partial(_fetch, ProviderJobs.from_json(row.jobs), services.runtime, memory, stack)
        await services.idempotency.run_and_record(row, call, make, has_id=lambda: True)


async def _fetch(
    provider_jobs: ProviderJobs, runtime: Runtime, memory: MemoryReservation, stack: ExitStack
) -> CallOutcome:
    """Fetch jobs, again and again while their images are at a host that does not give them. Raises APIError."""
    pause, end = FIRST_PAUSE, time.monotonic() + KEY_SECONDS
    while True:
        await memory.wait_for_paid(provider_jobs.room)
        try:
            return await provider_jobs.fetch(runtime, memory, stack)
        except APIError as failure:
            if not failure.can_be_fetched or time.monotonic() + pause > end:
                raise
        stack.close()
        memory.resize(0)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE)


async def _run_job(work: Coroutine[object, object, None], job_started: JobStarted) -> None:
    max_queue_wait.set(math.inf)  # nobody waits
    try:
        await work
    except BaseException as error:  # raised where the start of the job is awaited
        if job_started.done():
            raise
        if isinstance(error, asyncio.CancelledError):
            job_started.cancel()
            raise
        job_started.set_exception(error)


def _job_payload(row: StoredCall) -> dict[str, object]:
    return {
        "id": row.id,
        "object": "image.job",
        "status": _STATUS[row.state],
        "created_at": int(row.created),
        "expires_at": int(row.expires),
        "model": row.model,
    }


def _json_response(payload: object, **options: Any) -> web.Response:
    return web.Response(body=json.dumps(payload).encode(), content_type="application/json", **options)
