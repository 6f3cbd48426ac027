"""``/v1/files``: upload input files of batches, and download their output."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import attrs
from aiohttp import web

from impasto import File, InvalidRequest
from impasto.ext import printable, structure
from impasto.fields import choice, integer
from impasto_plugins.concurrency import open_in_thread, to_thread_shielded
from impasto_plugins.gateway.errors import APIError, overloaded
from impasto_plugins.gateway.http.body import check_content_encoding, read_chunks, read_text_field
from impasto_plugins.gateway.http.memory_budget import MemoryReservation
from impasto_plugins.gateway.http.multipart import FormReader, InvalidForm, parse_boundary
from impasto_plugins.gateway.storage.contents import StoreError

from .context import BatchRequestContext
from .output import read_content
from .scheduler import UPLOADS
from .store import IMAGE_PURPOSES, FileRow, PageQuery, list_payload, missing_file, new_object_id

_log = logging.getLogger("impasto.gateway")

_FORM_BYTES = 64 * 1024
_MAX_FIELDS = 8
_CHUNK_BYTES = 1 << 20
_MAX_NAME_LENGTH = 255
_MONTH = 30 * 24 * 3600
_AZURE_VERSION = "api-version"
"""The query parameter that Azure's clients add to each path; there is one version here."""

_EXPIRY_FIELDS = {"expires_after[anchor]": "anchor", "expires_after[seconds]": "seconds"}


@attrs.frozen(kw_only=True)
class Expiry:
    """The expiry of a file, in seconds after its creation."""

    anchor: str = choice("created_at", required=True)
    seconds: int = integer(3600, _MONTH, required=True)


async def list_files(context: BatchRequestContext) -> web.StreamResponse:
    """Respond with a list of files. Raises APIError."""
    query = read_query(context, ("after", "limit", "order", "purpose"))
    page = parse_page(query, maximum=10_000, default=10_000)
    store = context.scheduler.require_enabled().store
    rows, has_more = await store.files(context.caller.digest, query.get("purpose"), page)
    return json_response(list_payload([each.to_openai() for each in rows], has_more=has_more))


async def upload_file(context: BatchRequestContext) -> web.StreamResponse:
    """Store a file, piece by piece. Raises APIError."""
    scheduler, request = context.scheduler.require_enabled(), context.request
    limits, store = scheduler.limits, scheduler.store
    check_content_encoding(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        message = "Content-Type must be multipart/form-data"
        raise APIError(415, message, code="unsupported_content_type", close=True)
    id, max_bytes, now = new_object_id("file-"), limits.max_file_bytes, await store.now()
    row = FileRow(
        id=id,
        owner=context.caller.digest,
        purpose="batch",
        filename="",
        size=min(request.content_length or max_bytes, max_bytes),
        path=f"{UPLOADS}/{id}",
        ready=False,
        created=now,
        expires=now + limits.seconds,
    )
    await store.reserve(row, limits)
    path = scheduler.folder / row.path
    try:
        with MemoryReservation(context.services.memory) as share:
            filename, size, fields = await _receive_form(request, path, max_bytes, share)
        await scheduler.publish(row)
        expires = _parse_expiry(fields)
        seconds = limits.seconds if expires is None else min(expires, limits.seconds)
        ready_row = attrs.evolve(
            row, filename=filename, purpose=fields["purpose"], size=size, ready=True, expires=now + seconds
        )
        await store.mark_ready(row, ready_row)
        return json_response(ready_row.to_openai())
    except BaseException:
        await asyncio.shield(_discard_upload(context, row))
        raise


async def _discard_upload(context: BatchRequestContext, row: FileRow) -> None:
    """Delete the file and row of an incomplete upload. Errors are ignored: the periodic sweep removes leftovers."""
    await context.scheduler.remove(row)
    with suppress(APIError):
        await context.scheduler.store.delete_row(row)


async def get_file(context: BatchRequestContext) -> web.StreamResponse:
    """Respond with one file, or its content. Raises APIError."""
    id, _, action = context.path_name.partition("/")
    row = await find_file(context, id)
    if not action:
        return json_response(row.to_openai())
    if action != "content":
        raise APIError(404, "unknown path; the only path below a file is /content", code="unknown_url")
    return await _send_content(context, row)


async def delete_file(context: BatchRequestContext) -> web.StreamResponse:
    """Delete a file. Raises APIError."""
    row = await find_file(context, context.path_name)
    await context.scheduler.store.delete_row(row)
    await context.scheduler.remove(row)
    return json_response({"id": row.id, "object": "file", "deleted": True})


async def find_file(context: BatchRequestContext, id: str, param: str | None = None) -> FileRow:
    """Return the caller's file with this id. Raises APIError."""
    row = await context.scheduler.require_enabled().store.file(id, context.caller.digest)
    if row is None:
        raise missing_file(param)
    return row


def read_query(context: BatchRequestContext, names: tuple[str, ...]) -> Mapping[str, str]:
    """Return the query's values; an empty one counts as absent. Raises APIError for an unknown or repeated one."""
    query = context.request.rel_url.query.copy()
    query.popall(_AZURE_VERSION, None)
    for name in query:
        if name not in names or len(query.getall(name)) > 1:
            message = f"{name[:60]}: must be given once" if name in names else f"{name[:60]}: unknown parameter"
            raise APIError(400, message, code="unknown_parameter", param=name[:60])
    return {name: value for name, value in query.items() if value}


def parse_page(query: Mapping[str, str], *, maximum: int, default: int) -> PageQuery:
    """Return the requested page of a list. Raises APIError."""
    limit = query.get("limit", str(default))
    if re.fullmatch(r"[0-9]{1,6}", limit) is None or not 1 <= int(limit) <= maximum:
        message = f"limit: must be a whole number from 1 to {maximum:,}"
        raise APIError(400, message, code="invalid_value", param="limit")
    match query.get("order", "desc"):
        case "asc" | "desc" as order:
            return PageQuery(limit=int(limit), after=query.get("after"), order=order)
        case _:
            raise APIError(400, "order: must be asc or desc", code="invalid_value", param="order")


def json_response(payload: object) -> web.Response:
    """Return a JSON response."""
    return web.Response(body=json.dumps(payload).encode(), content_type="application/json")


async def _receive_form(
    request: web.BaseRequest, path: Path, max_bytes: int, reservation: MemoryReservation
) -> tuple[str, int, Mapping[str, str]]:
    """Write a form's file to disk, and return its name, its size and the form's fields. Raises APIError."""
    fields: dict[str, str] = {}
    file_info: tuple[str, int] | None = None
    try:
        boundary = parse_boundary(request.headers["content-type"])
        parts = FormReader(read_chunks(request, max_bytes + _FORM_BYTES), boundary)
        for _ in range(_MAX_FIELDS):
            if (head := await parts.read_head()) is None:
                break
            name = head.name[:60]
            if name in fields or (name == "file" and file_info is not None):
                raise APIError(400, f"{name} was given twice", code="invalid_value", param=name, close=True)
            if name != "file":
                fields[name] = await read_text_field(head, parts.read_body(), reservation)
                _check_field(name, fields[name])
            elif head.filename is None:
                raise APIError(400, "file: must be a file", code="invalid_value", param="file", close=True)
            else:
                file_info = (
                    _display_name(head.filename),
                    await _write_file(parts.read_body(), path, max_bytes, reservation),
                )
        else:
            raise APIError(413, f"this form may have at most {_MAX_FIELDS} parts", code="request_too_large", close=True)
    except InvalidForm as error:
        raise APIError(400, f"the body is not a valid form: {error}", code="invalid_form", close=True) from None
    for name, value in (("file", file_info), ("purpose", fields.get("purpose"))):
        if value is None:
            raise APIError(400, f"{name}: required", code="missing_required_parameter", param=name)
    assert file_info is not None  # noqa: S101 - looked at just now
    if not file_info[1]:
        raise APIError(400, "file: is empty", code="invalid_value", param="file")
    return *file_info, fields


def _check_field(name: str, value: str) -> None:
    if name == "purpose" and value not in IMAGE_PURPOSES:
        message = "purpose: must be batch, or vision for an image to edit"
        raise APIError(400, message, code="invalid_value", param="purpose", close=True)
    if name != "purpose" and name not in _EXPIRY_FIELDS:
        message = f"{name}: unknown parameter; an upload has file, purpose and expires_after"
        raise APIError(400, message, code="unknown_parameter", param=name, close=True)


def _parse_expiry(fields: Mapping[str, str]) -> int | None:
    values: dict[str, object] = {
        _EXPIRY_FIELDS[name]: value for name, value in fields.items() if name in _EXPIRY_FIELDS
    }
    if not values:
        return None
    if isinstance(seconds := values.get("seconds"), str) and re.fullmatch(r"[0-9]{1,9}", seconds):
        values["seconds"] = int(seconds)
    return parse_expiry(values, "expires_after").seconds


def parse_expiry(params: Mapping[str, object], name: str) -> Expiry:
    """Return the expiry that a request asks for under this name. Raises APIError."""
    unknown = params.keys() - attrs.fields_dict(Expiry)
    if unknown:
        raise APIError(400, f"{name}: may have anchor and seconds only", code="unknown_parameter", param=name)
    try:
        return structure(Expiry, params)
    except InvalidRequest as error:
        raise APIError(400, f"{name}.{error.message}", code="invalid_value", param=name) from None


def _display_name(filename: str) -> str:
    """Return a file's name for lists, without any path."""
    name = printable(filename.replace("\\", "/").rpartition("/")[2])
    return name[:_MAX_NAME_LENGTH] or "upload"


async def _write_file(body: AsyncIterator[bytes], path: Path, max_bytes: int, reservation: MemoryReservation) -> int:
    """Write pieces as they arrive, and return the size after all of them are on disk. Raises APIError."""
    reservation.reserve(2 * _CHUNK_BYTES)
    size, buffer = 0, bytearray()
    try:
        async with open_in_thread(partial(_create_file, path)) as target:
            async for chunk in body:
                buffer += chunk
                size += len(chunk)
                if size > max_bytes:
                    message = f"a file may have at most {max_bytes:,} bytes"
                    raise APIError(413, message, code="request_too_large", param="file", close=True)
                if len(buffer) >= _CHUNK_BYTES:
                    await to_thread_shielded(target.write, buffer)
                    buffer = bytearray()
            await to_thread_shielded(_flush_file, target, buffer)
    except ConnectionError:
        raise
    except OSError:
        message = "the gateway can't store files now; nothing was sent, try again"
        raise overloaded(message, close=True) from None
    return size


def _create_file(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return open(fd, "wb")


def _flush_file(target: BinaryIO, rest: bytearray) -> None:
    target.write(rest)
    target.flush()
    os.fsync(target.fileno())


async def _send_content(context: BatchRequestContext, row: FileRow) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "content-type": "application/octet-stream" if row.purpose == "vision" else "application/jsonl",
            "content-length": str(row.size),
            "content-disposition": "attachment",
            "x-content-type-options": "nosniff",
        }
    )
    scheduler, folder = context.scheduler, row.path.rpartition("/")[0]

    async def open_image(name: str) -> File:
        if (image := await scheduler.contents.open(f"{folder}/{name}")) is None:
            raise StoreError("an image is missing")
        return image

    if (file := await scheduler.open_content(row)) is None:
        raise APIError(404, "the file's content was deleted", code="not_found")
    try:
        await context.begin(response)
        if context.wants_body:
            content = read_content(file, open_image if row.purpose == "batch_output" else None)
            async for chunk in content:
                await response.write(chunk)
        await response.write_eof()
    except (OSError, StoreError) as error:  # the caller left, or an image is missing: it must not look complete
        if not isinstance(error, ConnectionError):
            _log.error("file %s can't be read to its end: %s", row.id, getattr(error, "strerror", None) or error)
        if (transport := context.request.transport) is not None:
            transport.close()
    finally:
        file.close()
    return response
