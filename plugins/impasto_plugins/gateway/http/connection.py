"""Connections: how many there may be, how long each step may take, and HTTP that is none, answered like any error.

aiohttp parses and writes. It has no deadline for a head, a body or a reader, and answers what it can't parse with a
part of the request in its text: both are mended here.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import NoReturn, cast

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage

from impasto_plugins.gateway.config.model import General
from impasto_plugins.gateway.errors import SERVER, Failure, new_id, sign
from impasto_plugins.gateway.telemetry.instrumentation import Observer

from .delivery import Delivery
from .framing import Framing, invalid_http

LINGER_SECONDS = 2.0
"""How long the rest of a refused request is still read, so that its sender gets to read the refusal."""

LONGEST_LINE = 8 * 1024 + 512
"""Bytes of a request's first line, or of a header: a key of 8 KiB and its name fit."""

MOST_TURNED_AWAY = 256
"""How many connections beyond the cap are told so at one time; more are closed without a word."""

_AT_ONCE = 1_000


class TooSlow(web.RequestPayloadError):
    """A body that took longer than it may."""


class Phase(Enum):
    """What a connection is at."""

    NEW = "new"  # nothing came yet
    HEAD = "head"  # a request's head has begun
    BUSY = "busy"  # a request is read and answered
    IDLE = "idle"  # nothing since the last answer
    ENDING = "ending"  # it was refused, and what still comes is thrown away


class Connection(web.RequestHandler):
    """One connection. ``since`` is when its phase began, ``heard`` when its last byte came."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, idle_seconds: float) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=idle_seconds,
            lingering_time=LINGER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to have none
            auto_decompress=False,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )
        self.phase = Phase.NEW
        self.since = self.heard = time.monotonic()
        self._server = server
        self._wire: asyncio.Transport | None = None  # the base forgets its own as soon as it closes
        self._body: StreamReader | None = None
        self._framing = Framing()
        self._held_since: float | None = None
        self._lost: asyncio.Future[None] | None = None
        self._delivery: Delivery | None = None
        self._decided: asyncio.Future[None] | None = None
        self._closes_when_decided = False
        self.said_all = False
        """Whether the other side has ended its half: it left, or waits for its answers and asks nothing more."""
        server.open.add(self)  # not only when it is made: of many that come at once all would be below the cap

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.open.discard(self)
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        if self._delivery is not None:
            self._delivery.lost(exc)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # what asyncio takes: whether this half stays open
        self.said_all = True
        if self.phase is Phase.BUSY and self._body is not None and not self._body.is_eof():
            self._body.set_exception(_broken())
        if self._delivery is not None:
            self._delivery.ended()
        stays_open = self.phase is Phase.BUSY or bool(self._messages)
        # A socket that is closed does not show the reset that may follow: it is closed when the delivery is decided.
        self._closes_when_decided = not stays_open and self._delivery is not None
        return stays_open or self._closes_when_decided

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.ENDING or self._framing.has_ended:
            return
        if data:
            self.heard = time.monotonic()
            if self._delivery is not None:
                self._delivery.went_on()
            if self.phase in (Phase.NEW, Phase.IDLE):
                self.since = self.since if self.phase is Phase.NEW else self.heard
                self.phase = Phase.HEAD
            for piece in self._framing.feed(data):
                super().data_received(piece)
        else:  # aiohttp's own way to go on with what it holds
            super().data_received(data)
        if self._framing.is_body_damaged:
            self._server.observer.ended("http", None)
            body = self._messages[-1][1] if self._messages else self._body
            if body is not None and not body.is_eof():
                body.set_exception(_broken())

    def began(self, body: StreamReader) -> None:
        """A request's head was read, its body comes."""
        if self._delivery is not None:
            self._delivery.went_on()
        self._body = body
        if self.phase is Phase.ENDING or (self.said_all and not body.is_eof()):
            body.set_exception(_broken())
        if self.phase is not Phase.ENDING:
            self.phase, self.since = Phase.BUSY, time.monotonic()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self.said_all and not self._messages:
            resp.force_close()
        done = await super().finish_response(request, resp, start_time)
        self._body, whole = None, request.content.is_eof()
        if self.phase is Phase.BUSY and whole:  # else what comes is still its body
            self.phase = Phase.HEAD if self._framing.is_in_head else Phase.IDLE
            self.since = time.monotonic()
        if self.phase is Phase.ENDING or request.content.exception() is not None:
            await self._linger()
        elif not resp.keep_alive and self._wire is not None and whole:
            _end_writing(self._wire)
            if self._delivery is not None:
                self._delivery.own_end = True
                self._decided = asyncio.get_running_loop().create_future()
                await self._decided  # aiohttp closes the socket after that
        return done

    def follow(self, decided: Callable[[bool], object], *, gave_up: bool) -> Delivery | None:
        """Follow the answer that was just written; None if the connection is gone. See Delivery."""
        if self._wire is None or self._wire.is_closing():
            return None

        def settle(read: bool) -> None:
            if self._delivery is delivery:
                self._delivery = None
            if self._decided is not None and not self._decided.done():
                self._decided.set_result(None)
            if self._closes_when_decided and self._wire is not None:
                self._wire.close()
            decided(read)

        if self._delivery is not None:  # two requests were sent at once, and the first answer is not acknowledged yet
            self._delivery.give_up()
        self._delivery = delivery = Delivery(self._wire, settle, gave_up=gave_up)
        if self.said_all:
            delivery.ended()
        return delivery

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp's own answer, which would hold a part of the request, and write it to the log."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        refused = self._framing.failure or invalid_http()
        failure = refused if status < 500 else Failure(500, "the gateway failed", SERVER, "internal_error")
        response, id = failure.response(), new_id()
        sign(response, id)
        response.force_close()
        if status < 500:
            self.phase = Phase.ENDING
            self._server.observer.ended("http", id, failure.status)
        return response

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:
        """An answer has ended."""
        self._server.observer.end(request, response.status)

    def log_exception(self, *args: object, **kw: object) -> None:
        """Nothing: aiohttp's words may hold a part of the request, and what fails in the gateway it logs itself."""

    def pause_writing(self) -> None:
        self._held_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._held_since = None
        super().resume_writing()

    def refuse(self, failure: Failure, why: str) -> None:
        """Answers outside of any request, and ends."""
        self.phase, self.since = Phase.ENDING, time.monotonic()
        if self._wire is not None:
            self._server.observer.ended(why, _last_word(self._wire, failure), failure.status)

    async def _linger(self) -> None:
        """What a peer sends into a closed socket resets it, and the answer may be lost: so the rest is read first."""
        self.phase, self.since = Phase.ENDING, time.monotonic()
        if self._wire is not None and not self._wire.is_closing() and not self.said_all:
            self._lost = asyncio.get_running_loop().create_future()
            _end_writing(self._wire)
            await asyncio.wait([self._lost], timeout=LINGER_SECONDS)

    def check(self, now: float, limits: General) -> None:
        """Ends what has taken longer than it may."""
        wire, waited = self._wire, now - self.since
        if wire is None:
            if self.phase is Phase.NEW and waited > limits.header_seconds:  # it was never made
                self._server.open.discard(self)
            return
        if wire.is_closing() and self._held_since is None:  # with bytes that nobody reads it would take for ever
            self._held_since = now
        if self._held_since is not None and now - self._held_since > limits.write_seconds:
            self._server.observer.ended("write", None)
            wire.abort()
        elif self.phase is Phase.ENDING and waited > LINGER_SECONDS:
            wire.abort()
        elif self.phase is Phase.NEW and waited > limits.header_seconds:
            self._server.observer.ended("header", None)
            wire.abort()
        elif self.phase is Phase.HEAD and waited > limits.header_seconds:
            said = f"a request's head must come within {limits.header_seconds:g} s"
            self.refuse(Failure(408, said, code="request_timeout", close=True), "header")
        elif self.phase is Phase.BUSY and self._body is not None and not self._body.is_eof():
            self._check_body(self._body, wire, now, limits)

    def _check_body(self, body: StreamReader, wire: asyncio.Transport, now: float, limits: General) -> None:
        if not wire.is_reading():  # it is the gateway that holds the sender back
            self.heard = now
        if now - self.heard > limits.body_idle_seconds:
            said = f"no byte of the body came for {limits.body_idle_seconds:g} s"
        elif now - self.since > limits.body_seconds:
            said = f"a request's body must come within {limits.body_seconds:g} s"
        else:
            return
        if body.exception() is None:
            self._server.observer.ended("body", None)
            body.set_exception(TooSlow(said))


def has_left(request: web.BaseRequest) -> bool:
    """Whether whoever sent a request is gone, or may be."""
    transport, protocol = request.transport, request.protocol
    return transport is None or transport.is_closing() or (isinstance(protocol, Connection) and protocol.said_all)


def follow(request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> Delivery | None:
    """Follow the answer to a request, which was just written; None if its connection is gone. See Delivery."""
    protocol = request.protocol
    return protocol.follow(decided, gave_up=gave_up) if isinstance(protocol, Connection) else None


class _TurnedAway(asyncio.Protocol):
    """A connection beyond the cap: told so when its request comes, then closed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._wire: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = wire = cast("asyncio.Transport", transport)
        if len(self._server.turned_away) >= min(MOST_TURNED_AWAY, _files() // 8):
            self._server.observer.ended("cap", None)
            wire.abort()
            return
        self._server.turned_away.add(self)
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._wire is not None and not self._told:
            self._told = True
            said = "the gateway has as many connections as it may; nothing was sent, try again"
            failure = Failure(503, said, SERVER, "overloaded", retry_after=1, should_retry=True, close=True)
            self._server.observer.ended("cap", _last_word(self._wire, failure), failure.status)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.turned_away.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Ends it at once."""
        if self._wire is not None:
            self._wire.abort()


class Server(web.Server):
    """Makes connections, up to a cap, and ends those that take too long.

    ``limits`` are asked for each time, as a reload changes them. ``observer`` is told why a connection ended before
    its time: ``cap``, ``header``, ``body``, ``write`` or ``http``.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: Callable[[], General],
        observer: Observer,
    ) -> None:
        super().__init__(handler, request_factory=self._request)
        self.observer = observer
        self.open: set[Connection] = set()
        self.turned_away: set[_TurnedAway] = set()
        self._limits = limits

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # one that is turned away is no RequestHandler
        limits = self._limits()
        if len(self.open) >= min(limits.max_connections, _files() // 2):
            return _TurnedAway(self)
        return Connection(self, self._loop, limits.idle_seconds)

    async def look_after(self) -> NoReturn:
        """Ends what takes too long, for as long as it runs."""
        while True:
            limits = self._limits()
            times = (limits.header_seconds, limits.body_idle_seconds, limits.body_seconds, limits.write_seconds)
            await asyncio.sleep(min(1.0, *(seconds / 4 for seconds in times)))
            now = time.monotonic()
            for number, connection in enumerate(tuple(self.open), 1):
                connection.check(now, limits)
                if not number % _AT_ONCE:
                    await asyncio.sleep(0)

    async def shutdown(self, timeout: float | None = None) -> None:
        for each in tuple(self.turned_away):
            each.abort()
        await super().shutdown(timeout)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if message.method == "UNKNOWN":  # aiohttp's stand-in for a request that it can't read, as HTTP/1.0
            message = message._replace(version=HttpVersion11, should_close=True)
        request = web.BaseRequest(message, payload, protocol, writer, task, self._loop)
        if isinstance(protocol, Connection):
            protocol.began(payload)
        return request


def _broken() -> web.RequestPayloadError:
    return web.RequestPayloadError("its chunks are not sound")


def _files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _last_word(wire: asyncio.Transport, failure: Failure) -> str:
    """Writes an answer where there is no request to answer, and nothing after it; the answer's id."""
    answer, id = failure.response(), new_id()
    body = answer.body
    assert isinstance(body, bytes)  # noqa: S101 - as Failure makes it
    answer.headers.update({"content-length": str(len(body)), "connection": "close"})
    sign(answer, id)
    head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    wire.write(f"HTTP/1.1 {answer.status} {answer.reason}\r\n{head}\r\n".encode() + body)
    _end_writing(wire)
    return id


def _end_writing(wire: asyncio.Transport) -> None:
    with suppress(OSError):  # the other side was faster
        wire.write_eof()
