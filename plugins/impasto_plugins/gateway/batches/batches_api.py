"""``/v1/batches``: create, get, list, cancel."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from impasto.fields import format_value
from impasto_plugins.gateway.calls.arguments import CallArguments
from impasto_plugins.gateway.errors import REPLAYED_HEADERS, APIError
from impasto_plugins.gateway.http.body import check_content_encoding, parse_json, read_chunks
from impasto_plugins.gateway.idempotency.fingerprint import Fingerprint
from impasto_plugins.gateway.idempotency.store import KEY_SECONDS, RETRY_SECONDS

from .context import BatchRequestContext
from .files_api import find_file, json_response, parse_expiry, parse_page, read_query
from .input_lines import ENDPOINTS
from .store import ACTIVE, BatchRow, list_payload, new_object_id

WINDOW_SECONDS = 24 * 3600
"""Seconds that a batch may take: the only completion window."""

_BATCH_ID = re.compile(r"batch_[0-9a-f]{32}")
_MAX_BYTES = 64 * 1024
_PARAMS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_MAX_PAIRS, _MAX_NAME_LENGTH, _MAX_VALUE_LENGTH = 16, 64, 512


async def create_batch(context: BatchRequestContext) -> web.StreamResponse:
    """Accept a batch, whose lines are validated later. Raises APIError."""
    scheduler = context.scheduler.require_enabled()
    body = await _read_params(context.request)
    params = {name: value for name, value in body.items() if value is not None}
    identity = await Fingerprint.create(
        context.request, context.caller, "batches", CallArguments.from_fields(dict(params), form=False)
    )
    for name in params:
        if name not in _PARAMS:
            message = f"{name[:60]}: unknown parameter; a batch has {', '.join(_PARAMS)}"
            raise APIError(400, message, code="unknown_parameter", param=name[:60])
    description = _check_params(params)
    file = await find_file(context, description["input_file_id"], param="input_file_id")
    if file.purpose != "batch":
        raise APIError(
            400, "input_file_id: must be a file with the purpose batch", code="invalid_value", param="input_file_id"
        )
    now, limits = await scheduler.store.now(), scheduler.limits
    batch = BatchRow(
        id=new_object_id("batch_"),
        owner=context.caller.digest,
        identity=identity.key or identity.content,
        status="validating",
        about=json.dumps({**description, "created_at": int(now), "expires_at": int(now) + WINDOW_SECONDS}),
        room=0,
        created=now,
        expires=now + WINDOW_SECONDS + limits.seconds,
    )
    since = now - KEY_SECONDS if identity.key is not None else now - RETRY_SECONDS if identity.count else None
    created_batch, is_repeated = await scheduler.create(batch, file, since)
    response = json_response(created_batch.to_openai())
    response.headers.update(REPLAYED_HEADERS if is_repeated else {})
    return response


async def get_batch(context: BatchRequestContext) -> web.StreamResponse:
    """Respond with a batch. Raises APIError."""
    return json_response((await _find_batch(context, context.path_name)).to_openai())


async def list_batches(context: BatchRequestContext) -> web.StreamResponse:
    """Respond with a list of batches. Raises APIError."""
    page = parse_page(read_query(context, ("after", "limit")), maximum=100, default=20)
    store = context.scheduler.require_enabled().store
    batches, has_more = await store.batches(context.caller.digest, page)
    return json_response(list_payload([each.to_openai() for each in batches], has_more=has_more))


async def cancel_batch(context: BatchRequestContext) -> web.StreamResponse:
    """Request no further image of a batch; images in flight are waited for. Raises APIError."""
    id, _, action = context.path_name.partition("/")
    if action != "cancel":
        raise APIError(404, "unknown path; the only path below a batch is /cancel", code="unknown_url", close=True)
    current = await _find_batch(context, id)
    if current.status not in ACTIVE:
        raise APIError(409, f"the batch is {current.status} already", code="batch_ended")
    now = int(await context.scheduler.store.now())

    def set_cancelling(batch: BatchRow) -> BatchRow:
        if batch.status not in ("validating", "in_progress"):
            return batch  # it is at its end
        return batch.with_attributes("cancelling", cancelling_at=now)

    return json_response((await context.scheduler.store.change(current, set_cancelling)).to_openai())


async def _find_batch(context: BatchRequestContext, id: str) -> BatchRow:
    batch, store = None, context.scheduler.require_enabled().store
    if _BATCH_ID.fullmatch(id) is not None:
        batch = await store.batch(id, context.caller.digest)
    if batch is None:
        raise APIError(
            404, "unknown batch: it does not exist, belongs to another key, or has expired", code="not_found"
        )
    return batch


async def _read_params(request: web.BaseRequest) -> Mapping[str, object]:
    check_content_encoding(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise APIError(415, "Content-Type must be application/json", code="unsupported_content_type", close=True)
    params = parse_json(b"".join([chunk async for chunk in read_chunks(request, _MAX_BYTES)]))
    if not isinstance(params, dict):
        raise APIError(400, "the body must be a JSON object", code="invalid_json")
    return params


def _check_params(params: Mapping[str, object]) -> dict[str, Any]:
    """Return the fixed fields of a new batch. Raises APIError."""
    for name in _PARAMS[:3]:
        if params.get(name) is None:
            raise APIError(400, f"{name}: required", code="missing_required_parameter", param=name)
    expires_after = params.get("output_expires_after")
    pairs = f"at most {_MAX_PAIRS} texts of {_MAX_VALUE_LENGTH} characters, under names of {_MAX_NAME_LENGTH}"
    checks = (
        ("input_file_id", isinstance(params["input_file_id"], str), "the id of a file"),
        ("endpoint", params["endpoint"] in tuple(ENDPOINTS), f"one of {', '.join(ENDPOINTS)}"),
        ("completion_window", params["completion_window"] == "24h", "24h"),
        ("metadata", _is_metadata(params.get("metadata")), pairs),
        ("output_expires_after", expires_after is None or isinstance(expires_after, dict), "an object"),
    )
    for name, is_right, constraint in checks:
        if not is_right:
            message = f"{name}: must be {constraint}, not {format_value(params[name])}"
            raise APIError(400, message, code="invalid_value", param=name)
    description = {name: params.get(name) for name in _PARAMS[:4]}
    if isinstance(expires_after, dict):
        description["_seconds"] = parse_expiry(expires_after, "output_expires_after").seconds
    return description


def _is_metadata(metadata: object) -> bool:
    if metadata is None:
        return True
    return (
        isinstance(metadata, dict)
        and len(metadata) <= _MAX_PAIRS
        and all(
            len(name) <= _MAX_NAME_LENGTH and isinstance(value, str) and len(value) <= _MAX_VALUE_LENGTH
            for name, value in metadata.items()
        )
    )
