"""Answers in OpenAI's shape. A picture goes out as base64 made piece by piece of the provider's own bytes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import suppress

import attrs
import pybase64
from aiohttp import web

from impasto import Artifact, File
from impasto_openai.response import Usage
from impasto_pictures.size import size_of

from .calls import Done
from .errors import Failure, lost

COMMENT_SECONDS = 15.0
"""How often a stream that waits says so: proxies cut what is silent."""

_AT_ONCE = 256 * 1024
"""Bytes up to which an answer is made in one piece."""

_PIECE = 3 * 2**16  # a multiple of 3: pieces of base64 join without padding
_LONGEST_HEADER = 2_000
_USAGE = Usage().model_dump()

Segment = bytes | memoryview
"""Bytes as they go out, or a view of a picture, which goes out as base64."""


@attrs.frozen
class Picture:
    """One picture of an answer: inline, or kept at ``url``."""

    artifact: Artifact
    url: str | None = None


def _length(segments: Sequence[Segment]) -> int:
    return sum(len(s) if isinstance(s, bytes) else (len(s) + 2) // 3 * 4 for s in segments)


def _pieces(segments: Sequence[Segment]) -> Iterator[bytes]:
    for segment in segments:
        if isinstance(segment, bytes):
            yield segment
            continue
        for at in range(0, len(segment), _PIECE):
            yield pybase64.b64encode(segment[at : at + _PIECE])


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def headers_of(done: Done) -> dict[str, str]:
    """What an answer's headers tell of the call."""
    headers: dict[str, str] = {}
    if (cost := done.result.cost) is not None:
        headers["x-impasto-cost-usd"] = f"{cost.usd:.10g}"
    if done.warnings:
        text = "; ".join(done.warnings).encode("ascii", "backslashreplace").decode()
        headers["x-impasto-warnings"] = "".join(c if c.isprintable() else " " for c in text)[:_LONGEST_HEADER]
    return headers


def _about(artifacts: Sequence[Artifact]) -> dict[str, object]:
    """What is told of all pictures by the first: its size in pixels and its format."""
    if not artifacts:
        return {}
    first = artifacts[0]
    told: dict[str, object] = {"output_format": first.media_type.rpartition("/")[2]}
    with suppress(ValueError):  # a picture that is none is told by its plugin
        width, height = size_of(File.of(first.data))
        told["size"] = f"{width}x{height}"
    return told


def _each(picture: Picture) -> dict[str, object]:
    artifact = picture.artifact
    told = {"seed": artifact.seed, "finish_reason": artifact.finish_reason, "url": picture.url}
    return {name: value for name, value in told.items() if value is not None}


def _object(told: Mapping[str, object], picture: Picture) -> Iterator[Segment]:
    """A JSON object with its picture first, or without one where that has a URL."""
    if picture.url is not None:
        yield _json(told)
        return
    yield b'{"b64_json":"'
    yield memoryview(picture.artifact.data)
    rest = _json(told)
    yield b'"}' if rest == b"{}" else b'",' + rest[1:]


def _whole(done: Done, pictures: Sequence[Picture]) -> Iterator[Segment]:
    yield b'{"created":%d,"data":[' % time.time()
    for i, picture in enumerate(pictures):
        if i:
            yield b","
        yield from _object(_each(picture), picture)
    told: dict[str, object] = {**_about(done.result.artifacts), "usage": _USAGE}
    if done.warnings:
        told["warnings"] = done.warnings
    if done.result.errors:
        told["errors"] = [{"index": each.index, **dict(lost(each.error))} for each in done.result.errors]
    yield b"]," + _json(told)[1:]


async def answer(
    request: web.BaseRequest, done: Done, pictures: Sequence[Picture], request_id: str
) -> web.StreamResponse:
    """Writes the whole answer."""
    headers = {"content-type": "application/json", "x-request-id": request_id, **headers_of(done)}
    segments = list(_whole(done, pictures))
    length = _length(segments)
    if length <= _AT_ONCE:
        return web.Response(body=b"".join(_pieces(segments)), headers=headers)
    response = web.StreamResponse(headers={**headers, "content-length": str(length)})
    with suppress(ConnectionError):  # the caller left
        await response.prepare(request)
        for piece in _pieces(segments):
            await response.write(piece)
        await response.write_eof()
    return response


async def stream(
    request: web.BaseRequest, running: Awaitable[tuple[Done, Sequence[Picture]]], event: str, request_id: str
) -> web.StreamResponse:
    """Answers with server-sent events: comments while the call runs, then a ``completed`` event for each picture.

    A call that fails before the first comment is answered as any other. Raises Failure.
    """
    task = asyncio.ensure_future(running)
    response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
    response.headers["x-request-id"] = request_id
    with suppress(ConnectionError):  # the caller left
        await _streamed(request, response, task, event)
    return response


async def _streamed(
    request: web.BaseRequest,
    response: web.StreamResponse,
    task: asyncio.Future[tuple[Done, Sequence[Picture]]],
    event: str,
) -> None:
    try:
        while not (await asyncio.wait([task], timeout=COMMENT_SECONDS))[0]:
            await _comment(request, response)
        done, pictures = task.result()
    except Failure as failure:
        if not response.prepared:
            raise
        await response.write(b"event: error\ndata: " + _json(failure.body()) + b"\n\n")
    else:
        if not response.prepared:
            response.headers.update(headers_of(done))
            await response.prepare(request)
        for picture in pictures:
            for piece in _pieces(list(_event(event, picture))):
                await response.write(piece)
    finally:
        task.cancel()
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()


async def _comment(request: web.BaseRequest, response: web.StreamResponse) -> None:
    with suppress(ConnectionError):  # whoever listened is gone; the call goes on
        if not response.prepared:
            await response.prepare(request)
        await response.write(b": working\n\n")


def _event(event: str, picture: Picture) -> Iterator[Segment]:
    yield f"event: {event}\ndata: ".encode()
    told = {
        "type": event,
        "created_at": int(time.time()),
        "quality": "auto",
        "background": "auto",
        **_about([picture.artifact]),
        **_each(picture),
        "usage": _USAGE,
    }
    yield from _object(told, picture)
    yield b"\n\n"
