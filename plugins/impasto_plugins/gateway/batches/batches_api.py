"""``/v1/batches``: created, looked at, listed, cancelled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from impasto.fields import shown
from impasto_plugins.gateway.calls.arguments import Asked
from impasto_plugins.gateway.errors import REPLAYED, Failure
from impasto_plugins.gateway.http.body import check_coding, chunks_of, parse_json
from impasto_plugins.gateway.idempotency.fingerprint import Identity
from impasto_plugins.gateway.idempotency.store import KEY_SECONDS, RETRY_SECONDS

from .context import BatchExchange
from .files_api import answer, asked, expiry, found, page_of
from .input_lines import ENDPOINTS
from .store import ACTIVE, Batch, listing, new_id

WINDOW_SECONDS = 24 * 3600
"""How long a batch may take: the one completion window that there is."""

_BATCH_ID = re.compile(r"batch_[0-9a-f]{32}")
_MOST_BYTES = 64 * 1024
_TAKES = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_MOST_PAIRS, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512


async def create(exchange: BatchExchange) -> web.StreamResponse:
    """Takes a batch on, whose lines are looked at later. Raises Failure."""
    service = exchange.batches.served()
    body = await _body(exchange.request)
    given = {name: value for name, value in body.items() if value is not None}
    identity = await Identity.of(exchange.request, exchange.caller, "batches", Asked.of(dict(given), form=False))
    for name in given:
        if name not in _TAKES:
            said = f"{name[:60]}: is not taken here; a batch has {', '.join(_TAKES)}"
            raise Failure(400, said, code="unknown_parameter", param=name[:60])
    about = _about(given)
    file = await found(exchange, about["input_file_id"], param="input_file_id")
    if file.purpose != "batch":
        raise Failure(400, "input_file_id: is no file of purpose batch", code="invalid_value", param="input_file_id")
    now, limits = service.records.now, service.limits
    batch = Batch(
        id=new_id("batch_"),
        owner=exchange.caller.digest,
        identity=identity.key or identity.content,
        status="validating",
        about=json.dumps({**about, "created_at": int(now), "expires_at": int(now) + WINDOW_SECONDS}),
        room=0,
        made=now,
        expires=now + WINDOW_SECONDS + limits.seconds,
    )
    since = now - KEY_SECONDS if identity.key is not None else now - RETRY_SECONDS if identity.count else None
    begun, repeated = await service.create(batch, file, since)
    response = answer(begun.told())
    response.headers.update(REPLAYED if repeated else {})
    return response


async def batch(exchange: BatchExchange) -> web.StreamResponse:
    """Where a batch stands. Raises Failure."""
    return answer((await _found(exchange, exchange.tail)).told())


async def batches(exchange: BatchExchange) -> web.StreamResponse:
    """The list of batches. Raises Failure."""
    page = page_of(asked(exchange, ("after", "limit")), most=100, usual=20)
    records = exchange.batches.served().records
    listed, more = await records.batches(exchange.caller.digest, page)
    return answer(listing([each.told() for each in listed], more=more))


async def cancel(exchange: BatchExchange) -> web.StreamResponse:
    """Asks for no further picture of a batch; what is in flight is waited for. Raises Failure."""
    id, _, what = exchange.tail.partition("/")
    if what != "cancel":
        raise Failure(404, "there is no such path; a batch has /cancel", code="unknown_url", close=True)
    stands = await _found(exchange, id)
    if stands.status not in ACTIVE:
        raise Failure(409, f"the batch is {stands.status} already", code="batch_ended")
    now = int(exchange.batches.records.now)

    def cancelled(batch: Batch) -> Batch:
        if batch.status not in ("validating", "in_progress"):
            return batch  # it is at its end
        return batch.changed("cancelling", cancelling_at=now)

    return answer((await exchange.batches.records.change(id, cancelled)).told())


async def _found(exchange: BatchExchange, id: str) -> Batch:
    batch, records = None, exchange.batches.served().records
    if _BATCH_ID.fullmatch(id) is not None:
        batch = await records.batch(id, exchange.caller.digest)
    if batch is None:
        raise Failure(404, "there is no such batch, or it is another key's, or it is forgotten", code="not_found")
    return batch


async def _body(request: web.BaseRequest) -> Mapping[str, object]:
    check_coding(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Failure(415, "Content-Type must be application/json", code="unsupported_content_type", close=True)
    given = parse_json(b"".join([chunk async for chunk in await chunks_of(request, _MOST_BYTES)]))
    if not isinstance(given, dict):
        raise Failure(400, "the body must be a JSON object", code="invalid_json")
    return given


def _about(given: Mapping[str, object]) -> dict[str, Any]:
    """What is told of a batch from its beginning. Raises Failure."""
    for name in _TAKES[:3]:
        if given.get(name) is None:
            raise Failure(400, f"{name}: required", code="missing_required_parameter", param=name)
    after = given.get("output_expires_after")
    pairs = f"at most {_MOST_PAIRS} texts of {_LONGEST_VALUE} characters, under names of {_LONGEST_NAME}"
    checks = (
        ("input_file_id", isinstance(given["input_file_id"], str), "the id of a file"),
        ("endpoint", given["endpoint"] in tuple(ENDPOINTS), f"one of {', '.join(ENDPOINTS)}"),
        ("completion_window", given["completion_window"] == "24h", "24h"),
        ("metadata", _is_metadata(given.get("metadata")), pairs),
        ("output_expires_after", after is None or isinstance(after, dict), "an object"),
    )
    for name, is_right, takes in checks:
        if not is_right:
            said = f"{name}: must be {takes}, not {shown(given[name])}"
            raise Failure(400, said, code="invalid_value", param=name)
    about = {name: given.get(name) for name in _TAKES[:4]}
    if isinstance(after, dict):
        about["_seconds"] = expiry(after, "output_expires_after").seconds
    return about


def _is_metadata(given: object) -> bool:
    if given is None:
        return True
    return (
        isinstance(given, dict)
        and len(given) <= _MOST_PAIRS
        and all(
            len(name) <= _LONGEST_NAME and isinstance(value, str) and len(value) <= _LONGEST_VALUE
            for name, value in given.items()
        )
    )
