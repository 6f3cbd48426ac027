"""Sends responses: whole, as server-sent events, and those that begin while their image is still arriving."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import aclosing, suppress
from functools import cached_property
from typing import Any

import attrs
import pybase64
from aiohttp import web

from impasto_plugins.gateway.calls.streamed_answers import AnswerSpools, StreamingAnswer
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.http.whole_response import WholeResponse

from . import response_body
from .context import RequestContext
from .response_body import ResponseContent, Segment, build_headers

_log = logging.getLogger("impasto.gateway")

COMMENT_SECONDS = 15.0
"""Seconds between comments of a waiting stream: proxies close silent connections."""

_MAX_WHOLE_BYTES = 192 * 1024
"""Bytes, before images are encoded, up to which a response is sent in one piece."""

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream", "cache-control": "no-cache"}


@attrs.define(eq=False)
class _StreamingResponse:
    """A response that begins before its call has ended, because its one image is too large for memory.

    Its status is a success. If the call fails later, the connection is cut in the middle of the response.
    """

    _exchange: RequestContext
    _headers: Mapping[str, str]
    _opening: bytes
    has_started: bool = False
    """True if a part of it may have been sent."""
    _writing: asyncio.Task[None] | None = None

    @cached_property
    def response(self) -> web.StreamResponse:
        """The response, if one was begun."""
        return web.StreamResponse(headers=self._headers)

    def start(self, answer_future: asyncio.Future[StreamingAnswer]) -> None:
        """Send the image as it arrives."""
        self.has_started = True
        self._writing = asyncio.create_task(self._write(answer_future.result()))

    async def finish(self, rest: Iterable[Segment]) -> None:
        """Send the rest after the image. Raises OSError, and ConnectionError if the caller left."""
        assert self._writing is not None  # noqa: S101 - it has begun
        await self._writing
        await _write(self.response, rest)

    def abort(self, error: BaseException) -> None:
        """Cut the connection in the middle of the response, so that nobody takes it for complete.

        The status and the image's beginning are sent, and HTTP has no place for the error: the log and a retry have it.
        """
        if self._writing is not None:
            self._writing.cancel()
            if isinstance(error, APIError):
                message = "request %s: the response was cut off in its image (%s); a retry of the client gets the error"
                _log.warning(message, self._exchange.id, error.code)
            if (transport := self._exchange.request.transport) is not None:
                transport.close()

    async def _write(self, answer: StreamingAnswer) -> None:
        quote, response = answer.quote, self.response
        with suppress(ConnectionError):  # the caller left; the call goes on
            if not response.prepared:
                response.headers.update(build_headers(quote.cost, quote.warnings))
                await self._exchange.begin(response)
            await response.write(self._opening + response_body.IMAGE_OPENING)
            async for chunk in answer.answer.iter_chunks():
                await response.write(pybase64.b64encode(chunk))


async def _write(response: web.StreamResponse, segments: Iterable[Segment]) -> None:
    async with aclosing(response_body.encode_segments(segments)) as chunks:
        async for chunk in chunks:
            await response.write(chunk)


def _after_first_image(segments: Iterable[Segment]) -> Iterable[Segment]:
    """Return the part after the first image, which begins its own object."""
    _, _, *rest = segments
    return rest


async def respond(
    context: RequestContext, making: Awaitable[ResponseContent], spools: AnswerSpools
) -> web.StreamResponse:
    """Respond with the result of a call. Raises APIError."""
    streaming = _StreamingResponse(context, _JSON, response_body.body_opening(spools.created))
    spools.streaming_answer.add_done_callback(streaming.start)
    try:
        content = await making
        if not streaming.has_started:
            return await respond_with(context, content)
        with suppress(ConnectionError):  # the caller left
            await streaming.finish(_after_first_image(response_body.body_segments(content)))
            await streaming.response.write_eof()
    except BaseException as error:
        streaming.abort(error)
        raise
    return streaming.response


async def respond_with(context: RequestContext, content: ResponseContent, prefix: bytes = b"{}") -> web.StreamResponse:
    """Respond with content; ``prefix`` is an object whose fields come first."""
    outcome = content.outcome
    headers = {**_JSON, **build_headers(outcome.cost, outcome.warnings, is_replayed=content.is_replayed)}
    opening = response_body.body_opening(outcome.created)
    segments = [opening if prefix == b"{}" else prefix[:-1] + b"," + opening[1:], *response_body.body_segments(content)]
    response: web.StreamResponse
    if (body := response_body.encode_small(segments, _MAX_WHOLE_BYTES)) is not None:
        response, segments = WholeResponse(body, headers), []
    else:
        length = response_body.encoded_length(segments)
        response = web.StreamResponse(headers={**headers, "content-length": str(length)})
    try:
        await context.begin(response)
        if segments and context.wants_body:
            await _write(response, segments)
        await response.write_eof()
    except ConnectionError:  # the caller left
        pass
    return response


async def respond_with_events(
    context: RequestContext, making: Awaitable[ResponseContent], spools: AnswerSpools, event: str
) -> web.StreamResponse:
    """Respond with server-sent events: partial images and comments while the call runs, then its images.

    A call that fails before the first of them gets an ordinary error response. Raises APIError.
    """
    streaming = _StreamingResponse(context, _EVENTS, response_body.event_opening(event))
    response = streaming.response
    task, partial_images = asyncio.ensure_future(making), spools.partial_images
    try:
        while not (task.done() or spools.streaming_answer.done()):
            waits: list[asyncio.Future[Any]] = [task, spools.streaming_answer]
            if partial_images is not None:
                waits.append(partial_images.arrived)
            if not (await asyncio.wait(waits, timeout=COMMENT_SECONDS, return_when="FIRST_COMPLETED"))[0]:
                await _write_early(context, response, (b": working\n\n",))
            for each in () if partial_images is None else partial_images.take():
                await _write_early(context, response, response_body.partial_event(event, each, spools.created))
        if spools.streaming_answer.done():
            streaming.start(spools.streaming_answer)
        content = await task
        with suppress(ConnectionError):  # the caller left
            await _write_events(context, response, content, event, streaming)
    except APIError as failure:
        if streaming.has_started or not response.prepared:
            streaming.abort(failure)
            raise
        with suppress(ConnectionError):  # the caller left
            await _end_events(response, response_body.error_event(failure))
    except BaseException as error:
        streaming.abort(error)
        raise
    finally:
        task.cancel()
    return response


async def _write_early(context: RequestContext, response: web.StreamResponse, segments: Iterable[Segment]) -> None:
    with suppress(ConnectionError):  # the caller left; the call continues
        if not response.prepared:
            await context.begin(response)
        await _write(response, segments)


async def _write_events(
    context: RequestContext,
    response: web.StreamResponse,
    content: ResponseContent,
    event: str,
    streaming: _StreamingResponse,
) -> None:
    images, outcome = content.images, content.outcome
    events = [
        response_body.completed_event(event, image, outcome, is_last=number == len(images))
        for number, image in enumerate(images, 1)
    ]
    if streaming.has_started:
        await streaming.finish(_after_first_image(events.pop(0)))
    elif not response.prepared:
        response.headers.update(build_headers(outcome.cost, outcome.warnings, is_replayed=content.is_replayed))
        await context.begin(response)
    for segments in events:
        await _write(response, (response_body.event_opening(event), *segments))
    await _end_events(response)


async def _end_events(response: web.StreamResponse, last_event: bytes = b"") -> None:
    await response.write(last_event + b"data: [DONE]\n\n")
    await response.write_eof()
