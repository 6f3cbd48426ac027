"""Writes answers: whole, as server-sent events, and those that begin while their picture still comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import cached_property

import pybase64
from aiohttp import web

from impasto import File
from impasto_plugins.gateway.calls.streamed_answers import Answers, Growing
from impasto_plugins.gateway.errors import Failure

from . import response_body
from .context import Exchange
from .response_body import Made, Segment, headers_of

COMMENT_SECONDS = 15.0
"""How often a stream that waits says so: proxies cut what is silent."""

_AT_ONCE = 256 * 1024
"""Bytes up to which an answer is made in one piece."""

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream", "cache-control": "no-cache"}


class _Early:
    """An answer that begins before its call has ended, as its one picture is too large to be held.

    Its status says that all is well: where that proves wrong the connection ends, and the answer does not.
    """

    def __init__(self, exchange: Exchange, headers: Mapping[str, str], opening: bytes) -> None:
        self._exchange, self._headers, self._opening = exchange, headers, opening
        self._writing: asyncio.Task[None] | None = None

    @cached_property
    def response(self) -> web.StreamResponse:
        """The answer, once it is made this way."""
        return web.StreamResponse(headers=self._headers)

    @property
    def begun(self) -> bool:
        """Whether a part of it may have gone out."""
        return self._writing is not None

    def begin(self, found: asyncio.Future[Growing]) -> None:
        """Writes the picture as it comes."""
        self._writing = asyncio.create_task(self._write(found.result()))

    async def end(self, rest: Iterable[Segment]) -> None:
        """Writes what stands behind the picture. Raises OSError, ConnectionError where the caller left."""
        assert self._writing is not None  # noqa: S101 - it has begun
        await self._writing
        await _write(self.response, rest)

    def abandon(self) -> None:
        """Ends the connection in the middle of the answer, so that nobody takes it for whole."""
        if self._writing is not None:
            self._writing.cancel()
            if (transport := self._exchange.request.transport) is not None:
                transport.close()

    async def _write(self, growing: Growing) -> None:
        quote, response = growing.quote, self.response
        with suppress(ConnectionError):  # the caller left; the call goes on
            if not response.prepared:
                response.headers.update(headers_of(quote.cost, quote.warnings))
                await self._exchange.begin(response)
            await response.write(self._opening + response_body.OPEN_PICTURE)
            async for piece in growing.large.pieces():
                await response.write(pybase64.b64encode(piece))


async def _write(response: web.StreamResponse, parts: Iterable[Segment]) -> None:
    async with aclosing(response_body.pieces(parts)) as pieces:
        async for piece in pieces:
            await response.write(piece)


def _behind_the_picture(parts: Iterable[Segment]) -> Iterable[Segment]:
    """What comes after a first picture, which begins an object of its own."""
    _, _, *rest = parts
    return rest


async def answer(exchange: Exchange, making: Awaitable[Made], answers: Answers) -> web.StreamResponse:
    """Answers with what a call makes. Raises Failure."""
    early = _Early(exchange, _JSON, response_body.opening(answers.created))
    answers.large.add_done_callback(early.begin)
    try:
        made = await making
        if not early.begun:
            return await whole(exchange, made)
        with suppress(ConnectionError):  # the caller left
            await early.end(_behind_the_picture(response_body.whole(made)))
            await early.response.write_eof()
    except BaseException:
        early.abandon()
        raise
    return early.response


async def whole(exchange: Exchange, made: Made, about: bytes = b"{}") -> web.StreamResponse:
    """Answers with what was made; ``about`` is an object whose fields come first."""
    headers = {**_JSON, **made.headers}
    opening = response_body.opening(made.done.created)
    parts = [opening if about == b"{}" else about[:-1] + b"," + opening[1:], *response_body.whole(made)]
    length = response_body.length(parts)
    held = [part for part in parts if not isinstance(part, File)]
    response: web.StreamResponse
    if length <= _AT_ONCE and len(held) == len(parts):
        body = b"".join(each if isinstance(each, bytes) else pybase64.b64encode(each) for each in held)
        response = web.Response(body=body, headers=headers)
        parts = []
    else:
        response = web.StreamResponse(headers={**headers, "content-length": str(length)})
    with suppress(ConnectionError):  # the caller left
        await exchange.begin(response)
        if parts and exchange.has_body:
            await _write(response, parts)
        await response.write_eof()
    return response


async def stream(exchange: Exchange, making: Awaitable[Made], answers: Answers, event: str) -> web.StreamResponse:
    """Answers with server-sent events: comments while the call runs, then a ``completed`` event for each picture.

    A call that fails before the first comment is answered as any other. Raises Failure.
    """
    early = _Early(exchange, _EVENTS, response_body.event_opening(event))
    response = early.response
    task = asyncio.ensure_future(making)
    try:
        while not (await asyncio.wait((task, answers.large), timeout=COMMENT_SECONDS, return_when="FIRST_COMPLETED"))[
            0
        ]:
            await _comment(exchange, response)
        if answers.large.done():
            early.begin(answers.large)
        made = await task
        with suppress(ConnectionError):  # the caller left
            await _write_events(exchange, response, made, event, early)
    except Failure as failure:
        if early.begun or not response.prepared:
            early.abandon()
            raise
        with suppress(ConnectionError):  # the caller left
            await _end_events(response, response_body.error_event(failure))
    except BaseException:
        early.abandon()
        raise
    finally:
        task.cancel()
    return response


async def _comment(exchange: Exchange, response: web.StreamResponse) -> None:
    with suppress(ConnectionError):  # whoever listened is gone; the call goes on
        if not response.prepared:
            await exchange.begin(response)
        await response.write(b": working\n\n")


async def _write_events(
    exchange: Exchange, response: web.StreamResponse, made: Made, event: str, early: _Early
) -> None:
    pictures, created = made.pictures, made.done.created
    if early.begun:
        await early.end(_behind_the_picture(response_body.completed(event, pictures[0], created)))
        pictures = pictures[1:]
    elif not response.prepared:
        response.headers.update(made.headers)
        await exchange.begin(response)
    for picture in pictures:
        await _write(response, (response_body.event_opening(event), *response_body.completed(event, picture, created)))
    await _end_events(response)


async def _end_events(response: web.StreamResponse, last: bytes = b"") -> None:
    await response.write(last + b"data: [DONE]\n\n")
    await response.write_eof()
