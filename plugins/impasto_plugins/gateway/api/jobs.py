"""Jobs: ``Prefer: respond-async`` is answered at once with an id; ``images/jobs/{id}`` tells what came of the call.

A job is told like an answer of OpenAI's, with ``id``, ``status`` and times beside; its failure is its ``error``.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import attrs
from aiohttp import web

from impasto_plugins.gateway.calls.provider_jobs import Accepted
from impasto_plugins.gateway.calls.queue_timeout import patience
from impasto_plugins.gateway.calls.runtime import Setup
from impasto_plugins.gateway.errors import REPLAYED, Failure, unknown
from impasto_plugins.gateway.http.memory_budget import PICTURE_BYTES
from impasto_plugins.gateway.idempotency import serialization
from impasto_plugins.gateway.idempotency.coordinator import WATCH_SECONDS, Begun, Repeats, promised
from impasto_plugins.gateway.idempotency.in_flight import Flight
from impasto_plugins.gateway.idempotency.store import Row

from . import responses
from .context import Exchange
from .delivery import shown_again

_ID = re.compile(r"[0-9a-f]{64}")
_POLL_SECONDS = "2"
_STATUS = {"running": "in_progress", "done": "completed", "failed": "failed"}


def is_asked_for(request: web.BaseRequest) -> bool:
    """Whether a request asks to be a job."""
    preferences = ",".join(request.headers.getall("prefer", [])).split(",")
    return any(each.partition(";")[0].strip().lower() == "respond-async" for each in preferences)


async def start(exchange: Exchange, work: Callable[[Begun], Coroutine[object, object, None]]) -> web.StreamResponse:
    """Begins a call and answers with its id, while it is made. Raises Failure."""
    begun: Begun = asyncio.get_running_loop().create_future()
    exchange.services.spawn(_begun(work(begun), begun))
    await asyncio.wait([begun])
    row, replayed = begun.result()
    headers = {
        "location": f"/v1/images/jobs/{row.id}",
        "preference-applied": "respond-async",
        "retry-after": _POLL_SECONDS,
        **(REPLAYED if replayed else {}),
    }
    response = _answer(_told(row), status=202, headers=headers)
    with suppress(ConnectionError):  # the caller left
        await exchange.begin(response)
        await response.write_eof()

    def decided(read: bool) -> None:
        if read:  # a retry finds the job only if its caller did not learn the id
            exchange.services.spawn(exchange.services.repeats.kept.settle(row))

    if row.identity == row.content:
        exchange.services.repeats.follow(exchange.request, decided)
    return response


async def job(exchange: Exchange) -> web.StreamResponse:
    """What became of a job. Raises Failure."""
    repeats, row = exchange.services.repeats, None
    with promised("looked up"):
        if _ID.fullmatch(exchange.tail) is not None:
            row = await _found(repeats, exchange.tail, exchange.caller.digest)
    if row is None:
        said = "there is no such job, or it is another key's, or it has expired"
        raise Failure(404, said, code="not_found")
    if row.state == "running":
        return _answer(_told(row), headers={"retry-after": _POLL_SECONDS})
    with exchange.services.flow.share() as share:
        share.take(PICTURE_BYTES)
        try:
            done = await repeats.kept.load(row)
        except Failure as failure:
            return _answer({**_told(row), "status": "failed", **failure.body()})
        share.settle(sum(len(artifact.data) for artifact in done.artifacts))
        made = await shown_again(exchange, row, done)
        return await responses.whole(exchange, attrs.evolve(made, replayed=False), json.dumps(_told(row)).encode())


async def resume(setup: Setup, repeats: Repeats, row: Row, flight: Flight) -> None:
    """Fetches what a worker that is dead by now had begun."""
    with suppress(Failure):  # it is written down
        accepted = Accepted.read(row.accepted)
        await repeats.carry(row, flight, lambda: accepted.fetch(setup), forget=lambda: False)


async def _begun(work: Coroutine[object, object, None], begun: Begun) -> None:
    patience.set(math.inf)  # nobody waits
    try:
        await work
    except BaseException as error:  # whoever waits for the beginning is told
        if begun.done():
            raise
        if isinstance(error, asyncio.CancelledError):
            begun.cancel()
            raise
        begun.set_exception(error)


async def _found(repeats: Repeats, id: str, owner: bytes) -> Row | None:
    row = await repeats.kept.find(id, owner)
    if row is None or row.state != "running" or await repeats.look(row) is not None:
        return row
    await asyncio.sleep(2 * WATCH_SECONDS)  # it may be written just now
    row = await repeats.kept.find(id, owner)
    if row is None or row.state != "running" or await repeats.look(row) is not None:
        return row
    return attrs.evolve(row, state="failed", outcome=serialization.told(unknown()))


def _told(row: Row) -> dict[str, object]:
    return {
        "id": row.id,
        "object": "image.job",
        "status": _STATUS[row.state],
        "created_at": int(row.made),
        "expires_at": int(row.expires),
        "model": row.model,
    }


def _answer(told: object, **options: Any) -> web.Response:
    return web.Response(body=json.dumps(told).encode(), content_type="application/json", **options)
