"""``/v1/files``: the input files of batches come in, and what batches leave goes out."""

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

from impasto import InvalidRequest
from impasto.ext import opened, printable, structure, to_its_end
from impasto.fields import choice, integer
from impasto_plugins.gateway.errors import SERVER, Failure
from impasto_plugins.gateway.http.body import check_coding, chunks_of, field_text
from impasto_plugins.gateway.http.memory_budget import Share
from impasto_plugins.gateway.http.multipart import NotAForm, Parts, boundary_of

from .context import BatchExchange
from .output import pieces
from .store import IMAGE_PURPOSES, Page, Stored, listing, missing_file, new_id

UPLOADS = "files"
"""The folder of uploads, below that of batches."""

_log = logging.getLogger("impasto.gateway")

_FORM_BYTES = 64 * 1024
_MOST_FIELDS = 8
_PIECE = 1 << 20
_LONGEST_NAME = 255
_MONTH = 30 * 24 * 3600
_AZURE_VERSION = "api-version"
"""The query that Azure's clients add to each path; there is one version here."""

_EXPIRES = {"expires_after[anchor]": "anchor", "expires_after[seconds]": "seconds"}


@attrs.frozen(kw_only=True)
class Expiry:
    """When a file expires: so many seconds after it was made."""

    anchor: str = choice("created_at", required=True)
    seconds: int = integer(3600, _MONTH, required=True)


async def files(exchange: BatchExchange) -> web.StreamResponse:
    """The list of files. Raises Failure."""
    query = asked(exchange, ("after", "limit", "order", "purpose"))
    page = page_of(query, most=10_000, usual=10_000)
    records = exchange.batches.served().records
    found, more = await records.files(exchange.caller.digest, query.get("purpose"), page)
    return answer(listing([each.told() for each in found], more=more))


async def upload(exchange: BatchExchange) -> web.StreamResponse:
    """Takes a file in, piece by piece. Raises Failure."""
    service, request = exchange.batches.served(), exchange.request
    limits, records = service.limits, service.records
    check_coding(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        said = "Content-Type must be multipart/form-data"
        raise Failure(415, said, code="unsupported_content_type", close=True)
    id, most, now = new_id("file-"), limits.max_file_bytes, records.now
    stored = Stored(
        id=id,
        owner=exchange.caller.digest,
        purpose="batch",
        filename="",
        size=min(request.content_length or most, most),
        path=f"{UPLOADS}/{id}",
        ready=False,
        made=now,
        expires=now + limits.seconds,
    )
    await records.reserve(stored, limits)
    path = service.folder / stored.path
    try:
        with exchange.services.flow.share() as share:
            filename, size, fields = await _received(request, path, most, share)
        expires = _expiry(fields)
        seconds = limits.seconds if expires is None else min(expires, limits.seconds)
        stored = attrs.evolve(stored, filename=filename, purpose=fields["purpose"], size=size, expires=now + seconds)
        return answer((await records.came(stored)).told())
    except BaseException:
        await asyncio.shield(_dropped(exchange, stored, path))
        raise


async def _dropped(exchange: BatchExchange, stored: Stored, path: Path) -> None:
    """What came of an upload that is none goes again; where that fails, the next sweep does it."""
    await asyncio.to_thread(path.unlink, missing_ok=True)
    with suppress(Failure):
        await exchange.batches.records.forget(stored)


async def file(exchange: BatchExchange) -> web.StreamResponse:
    """One file, or its content. Raises Failure."""
    id, _, what = exchange.tail.partition("/")
    stored = await found(exchange, id)
    if not what:
        return answer(stored.told())
    if what != "content":
        raise Failure(404, "there is no such path; a file has /content", code="unknown_url")
    return await _content(exchange, stored)


async def delete(exchange: BatchExchange) -> web.StreamResponse:
    """Deletes a file. Raises Failure."""
    stored = await found(exchange, exchange.tail)
    await exchange.batches.records.forget(stored)
    await exchange.batches.remove(stored)
    return answer({"id": stored.id, "object": "file", "deleted": True})


async def found(exchange: BatchExchange, id: str, param: str | None = None) -> Stored:
    """The caller's file of an id. Raises Failure."""
    stored = await exchange.batches.served().records.file(id, exchange.caller.digest)
    if stored is None:
        raise missing_file(param)
    return stored


def asked(exchange: BatchExchange, names: tuple[str, ...]) -> Mapping[str, str]:
    """Return the query's values; an empty one is not given. Raises Failure if one is unknown or given twice."""
    query = exchange.request.rel_url.query.copy()
    query.popall(_AZURE_VERSION, None)
    for name in query:
        if name not in names or len(query.getall(name)) > 1:
            said = f"{name[:60]}: must be given once" if name in names else f"{name[:60]}: is not taken here"
            raise Failure(400, said, code="unknown_parameter", param=name[:60])
    return {name: value for name, value in query.items() if value}


def page_of(query: Mapping[str, str], *, most: int, usual: int) -> Page:
    """The part of a list that is asked for. Raises Failure."""
    limit = query.get("limit", str(usual))
    if re.fullmatch(r"[0-9]{1,6}", limit) is None or not 1 <= int(limit) <= most:
        said = f"limit: must be a whole number from 1 to {most:,}"
        raise Failure(400, said, code="invalid_value", param="limit")
    match query.get("order", "desc"):
        case "asc" | "desc" as order:
            return Page(limit=int(limit), after=query.get("after"), order=order)
        case _:
            raise Failure(400, "order: must be asc or desc", code="invalid_value", param="order")


def answer(told: object) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=json.dumps(told).encode(), content_type="application/json")


async def _received(
    request: web.BaseRequest, path: Path, most: int, share: Share
) -> tuple[str, int, Mapping[str, str]]:
    """Write a form's file to the disk, and return its name, its size and the form's fields. Raises Failure."""
    fields: dict[str, str] = {}
    came: tuple[str, int] | None = None
    try:
        boundary = boundary_of(request.headers["content-type"])
        parts = Parts(await chunks_of(request, most + _FORM_BYTES), boundary)
        for _ in range(_MOST_FIELDS):
            if (head := await parts.head()) is None:
                break
            name = head.name[:60]
            if name in fields or (name == "file" and came is not None):
                raise Failure(400, f"{name} is given twice", code="invalid_value", param=name, close=True)
            if name != "file":
                fields[name] = await field_text(head, parts.body(), share)
                _check_field(name, fields[name])
            elif head.filename is None:
                raise Failure(400, "file: must be a file", code="invalid_value", param="file", close=True)
            else:
                came = _named(head.filename), await _saved(parts.body(), path, most, share)
        else:
            raise Failure(413, f"a form may have {_MOST_FIELDS} parts here", code="request_too_large", close=True)
    except NotAForm as error:
        raise Failure(400, f"the body is no sound form: {error}", code="invalid_form", close=True) from None
    for name, there in (("file", came), ("purpose", fields.get("purpose"))):
        if there is None:
            raise Failure(400, f"{name}: required", code="missing_required_parameter", param=name)
    assert came is not None  # noqa: S101 - looked at just now
    if not came[1]:
        raise Failure(400, "file: is empty", code="invalid_value", param="file")
    return *came, fields


def _check_field(name: str, value: str) -> None:
    if name == "purpose" and value not in IMAGE_PURPOSES:
        said = "purpose: must be batch, or vision for an image of edits; other files are not kept here"
        raise Failure(400, said, code="invalid_value", param="purpose", close=True)
    if name != "purpose" and name not in _EXPIRES:
        said = f"{name}: is not taken here; a file has file, purpose and expires_after"
        raise Failure(400, said, code="unknown_parameter", param=name, close=True)


def _expiry(fields: Mapping[str, str]) -> int | None:
    given: dict[str, object] = {_EXPIRES[name]: value for name, value in fields.items() if name in _EXPIRES}
    if not given:
        return None
    if isinstance(seconds := given.get("seconds"), str) and re.fullmatch(r"[0-9]{1,9}", seconds):
        given["seconds"] = int(seconds)
    return expiry(given, "expires_after").seconds


def expiry(given: Mapping[str, object], name: str) -> Expiry:
    """When something expires, as it was asked for under this name. Raises Failure."""
    unknown = given.keys() - attrs.fields_dict(Expiry)
    if unknown:
        raise Failure(400, f"{name}: has anchor and seconds, nothing else", code="unknown_parameter", param=name)
    try:
        return structure(Expiry, given)
    except InvalidRequest as error:
        raise Failure(400, f"{name}.{error.message}", code="invalid_value", param=name) from None


def _named(filename: str) -> str:
    """What a file is called in lists: never a path."""
    name = printable(filename.replace("\\", "/").rpartition("/")[2])
    return name[:_LONGEST_NAME] or "upload"


async def _saved(body: AsyncIterator[bytes], path: Path, most: int, share: Share) -> int:
    """Writes what comes, and gives its size when it has reached the disk. Raises Failure."""
    share.take(2 * _PIECE)
    size, waiting = 0, bytearray()
    try:
        async with opened(partial(_created, path)) as target:
            async for piece in body:
                waiting += piece
                size += len(piece)
                if size > most:
                    said = f"a file may have {most:,} bytes"
                    raise Failure(413, said, code="request_too_large", param="file", close=True)
                if len(waiting) >= _PIECE:
                    await to_its_end(target.write, waiting)
                    waiting = bytearray()
            await to_its_end(_finished, target, waiting)
    except ConnectionError:
        raise
    except OSError:
        said = "the gateway can't keep files now; nothing was sent, try again"
        raise Failure(503, said, SERVER, "overloaded", retry_after=5, should_retry=True, close=True) from None
    return size


def _created(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    return open(number, "wb")


def _finished(target: BinaryIO, rest: bytearray) -> None:
    target.write(rest)
    target.flush()
    os.fsync(target.fileno())


async def _content(exchange: BatchExchange, stored: Stored) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "content-type": "application/octet-stream" if stored.purpose == "vision" else "application/jsonl",
            "content-length": str(stored.size),
            "content-disposition": "attachment",
            "x-content-type-options": "nosniff",
        }
    )
    path = exchange.batches.folder / stored.path
    if not await asyncio.to_thread(path.is_file):
        raise Failure(404, "the file's content is gone", code="not_found")
    try:
        await exchange.begin(response)
        if exchange.has_body:
            async for piece in pieces(path, composed=stored.purpose == "batch_output"):
                await response.write(piece)
        await response.write_eof()
    except OSError as error:  # whoever asked left; or a picture is gone: nobody may take it for whole
        if not isinstance(error, ConnectionError):
            _log.error("file %s can't be read to its end: %s", stored.id, error.strerror)
        if (transport := exchange.request.transport) is not None:
            transport.close()
    return response
