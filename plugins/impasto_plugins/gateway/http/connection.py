"""HTTP connections: connection limit, per-phase timeouts, and JSON error responses for malformed HTTP.

aiohttp parses and writes. It has no deadline for a head, a body or a slow reader, and its answer to malformed HTTP
quotes the request: both are replaced here.
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

from impasto_plugins.gateway.config.model import GeneralSettings
from impasto_plugins.gateway.errors import SERVER, APIError, add_response_headers, new_request_id, overloaded
from impasto_plugins.gateway.telemetry.instrumentation import Observer

from .delivery import Delivery
from .framing import MAX_FIELDS, MAX_LINE_BYTES, Framing, describe_parse_error, invalid_http

LINGER_SECONDS = 2.0
"""Seconds for which the rest of a refused request is read, so that its sender can read the refusal."""

MAX_REJECTED_CONNECTIONS = 256
"""Connections beyond the limit that get a response at one time; more are closed without one."""

_CHECKS_PER_STEP = 1_000


class BodyTimeout(web.RequestPayloadError):
    """A body took longer than it may."""


class Phase(Enum):
    """The phase of a connection."""

    NEW = "new"  # nothing came yet
    HEAD = "head"  # a request's head has begun
    BUSY = "busy"  # a request is read and answered
    IDLE = "idle"  # nothing since the last answer
    ENDING = "ending"  # it was refused, and what still comes is thrown away


class Connection(web.RequestHandler):
    """One connection. ``phase_started_at`` is the start of its phase, ``last_byte_at`` the time of its last byte."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, idle_seconds: float) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=idle_seconds,
            lingering_time=LINGER_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to have none
            auto_decompress=False,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_FIELDS + 2,
        )
        self.phase = Phase.NEW
        self.phase_started_at = self.last_byte_at = time.monotonic()
        self._server = server
        self._wire: asyncio.Transport | None = None  # the base forgets its own as soon as it closes
        self._body: StreamReader | None = None
        self._framing = Framing()
        self._write_blocked_since: float | None = None
        self._close_waiter: asyncio.Future[None] | None = None
        self._delivery: Delivery | None = None
        self._delivery_waiter: asyncio.Future[None] | None = None
        self._closes_after_delivery = False
        self.peer_closed = False
        """True if the peer closed its half: it left, or waits for its responses and sends nothing more."""
        server.open.add(self)  # not only when it is made: of many that come at once all would be below the cap

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._wire = cast("asyncio.Transport", transport)  # uvloop's class does not derive from it
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leave the list of open connections, and end the tracked delivery."""
        self._server.open.discard(self)
        if self._close_waiter is not None and not self._close_waiter.done():
            self._close_waiter.set_result(None)
        if self._delivery is not None:
            self._delivery.on_connection_lost(exc)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # what asyncio takes: whether this half stays open
        """Note that the peer closed its half; return True to keep this half open."""
        self.peer_closed = True
        if self.phase is Phase.BUSY and self._body is not None and not self._body.is_eof():
            self._body.set_exception(_payload_error())
        if self._delivery is not None:
            self._delivery.on_eof()
        stays_open = self.phase is Phase.BUSY or bool(self._messages)
        # A socket that is closed does not show the reset that may follow: it is closed when the delivery is decided.
        self._closes_after_delivery = not stays_open and self._delivery is not None
        return stays_open or self._closes_after_delivery

    def data_received(self, data: bytes) -> None:
        """Check the framing of the next bytes, and pass them to the parser."""
        if self.phase is Phase.ENDING or self._framing.has_ended:
            return
        if data:
            self.last_byte_at = time.monotonic()
            if self._delivery is not None:
                self._delivery.on_data()
            if self.phase in (Phase.NEW, Phase.IDLE):
                self.phase_started_at = self.phase_started_at if self.phase is Phase.NEW else self.last_byte_at
                self.phase = Phase.HEAD
            for piece in self._framing.feed(data):
                super().data_received(piece)
        else:  # aiohttp's own way to go on with what it holds
            super().data_received(data)
        if self._framing.is_body_damaged:
            self._server.observer.connection_ended("http", None)
            body = self._messages[-1][1] if self._messages else self._body
            if body is not None and not body.is_eof():
                body.set_exception(_payload_error())

    def head_received(self, body: StreamReader) -> None:
        """Note that a request's head was read and its body follows."""
        if self._delivery is not None:
            self._delivery.on_data()
        self._body = body
        if self.phase is Phase.ENDING or (self.peer_closed and not body.is_eof()):
            body.set_exception(_payload_error())
        if self.phase is not Phase.ENDING:
            self.phase, self.phase_started_at = Phase.BUSY, time.monotonic()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Finish a response, and wait until its delivery is known before the connection is closed."""
        if self.peer_closed and not self._messages:
            resp.force_close()
        result = await super().finish_response(request, resp, start_time)
        self._body, is_complete = None, request.content.is_eof()
        if self.phase is Phase.BUSY and is_complete:  # else what comes is still its body
            self.phase = Phase.HEAD if self._framing.partial_head else Phase.IDLE
            self.phase_started_at = time.monotonic()
        if self.phase is Phase.ENDING or request.content.exception() is not None:
            await self._linger()
        elif not resp.keep_alive and self._wire is not None and is_complete:
            _end_writing(self._wire)
            if self._delivery is not None:
                self._delivery.fin_sent = True
                self._delivery_waiter = asyncio.get_running_loop().create_future()
                await self._delivery_waiter  # aiohttp closes the socket after that
        return result

    def track_delivery(self, on_decided: Callable[[bool], object], *, gave_up: bool) -> Delivery | None:
        """Track the delivery of the response just written; None if the connection is gone. See Delivery."""
        if self._wire is None or self._wire.is_closing():
            return None

        def finish(is_read: bool) -> None:
            if self._delivery is delivery:
                self._delivery = None
            if self._delivery_waiter is not None and not self._delivery_waiter.done():
                self._delivery_waiter.set_result(None)
            if self._closes_after_delivery and self._wire is not None:
                self._wire.close()
            on_decided(is_read)

        if self._delivery is not None:  # two requests were sent at once, and the first answer is not acknowledged yet
            self._delivery.give_up()
        self._delivery = delivery = Delivery(self._wire, finish, gave_up=gave_up)
        if self.peer_closed:
            delivery.on_eof()
        return delivery

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Replace aiohttp's own response, which would quote the request and write it to the log."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        refusal = self._framing.failure or invalid_http(describe_parse_error(message or ""))
        failure = refusal if status < 500 else APIError(500, "the gateway failed", SERVER, "internal_error")
        response, id = failure.to_response(), new_request_id()
        add_response_headers(response, id)
        response.force_close()
        if status < 500:
            self.phase = Phase.ENDING
            self._server.observer.connection_ended("http", id, failure.status)
        return response

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:
        """Note that a response has ended."""
        self._server.observer.end_request(request, response.status)

    def log_exception(self, *args: object, **kw: object) -> None:
        """Log nothing: aiohttp's text may quote the request, and the gateway logs its own failures itself."""

    def pause_writing(self) -> None:
        """Note since when the peer does not read."""
        self._write_blocked_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the peer reads again."""
        self._write_blocked_since = None
        super().resume_writing()

    def refuse(self, failure: APIError, reason: str) -> None:
        """Send a response outside of any request, and close."""
        self.phase, self.phase_started_at = Phase.ENDING, time.monotonic()
        if self._wire is not None:
            self._server.observer.connection_ended(reason, _write_final_response(self._wire, failure), failure.status)

    async def _linger(self) -> None:
        """Read the rest of a request: bytes that reach a closed socket reset it, and the response may be lost."""
        self.phase, self.phase_started_at = Phase.ENDING, time.monotonic()
        if self._wire is not None and not self._wire.is_closing() and not self.peer_closed:
            self._close_waiter = asyncio.get_running_loop().create_future()
            _end_writing(self._wire)
            await asyncio.wait([self._close_waiter], timeout=LINGER_SECONDS)

    def enforce_timeouts(self, now: float, limits: GeneralSettings) -> None:
        """Close the connection if its phase has taken too long."""
        wire, elapsed = self._wire, now - self.phase_started_at
        if wire is None:
            if self.phase is Phase.NEW and elapsed > limits.header_seconds:  # it was never made
                self._server.open.discard(self)
            return
        if (
            wire.is_closing() and self._write_blocked_since is None
        ):  # with bytes that nobody reads it would take for ever
            self._write_blocked_since = now
        if self._write_blocked_since is not None and now - self._write_blocked_since > limits.write_seconds:
            self._server.observer.connection_ended("write", None)
            wire.abort()
        elif self.phase is Phase.ENDING and elapsed > LINGER_SECONDS:
            wire.abort()
        elif self.phase is Phase.NEW and elapsed > limits.header_seconds:
            self._server.observer.connection_ended("header", None)
            wire.abort()
        elif self.phase is Phase.HEAD and elapsed > limits.header_seconds:
            message = f"a request's head must come within {limits.header_seconds:g} s"
            self.refuse(APIError(408, message, code="request_timeout", close=True), "header")
        elif self.phase is Phase.BUSY and self._body is not None and not self._body.is_eof():
            self._check_body(self._body, wire, now, limits)

    def _check_body(self, body: StreamReader, wire: asyncio.Transport, now: float, limits: GeneralSettings) -> None:
        if not wire.is_reading():  # it is the gateway that holds the sender back
            self.last_byte_at = now
        if now - self.last_byte_at > limits.body_idle_seconds:
            message = f"no byte of the body arrived for {limits.body_idle_seconds:g} s"
        elif now - self.phase_started_at > limits.body_seconds:
            message = f"a request's body must come within {limits.body_seconds:g} s"
        else:
            return
        if body.exception() is None:
            self._server.observer.connection_ended("body", None)
            body.set_exception(BodyTimeout(message))


def client_disconnected(request: web.BaseRequest) -> bool:
    """Return True if the sender of a request is gone, or may be."""
    transport, protocol = request.transport, request.protocol
    return transport is None or transport.is_closing() or (isinstance(protocol, Connection) and protocol.peer_closed)


def track_delivery(request: web.BaseRequest, on_decided: Callable[[bool], object], *, gave_up: bool) -> Delivery | None:
    """Track the delivery of a response just written; None if its connection is gone. See Delivery."""
    protocol = request.protocol
    return protocol.track_delivery(on_decided, gave_up=gave_up) if isinstance(protocol, Connection) else None


class _RejectedConnection(asyncio.Protocol):
    """A connection beyond the limit: it gets a response to its request, then it is closed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._wire: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = wire = cast("asyncio.Transport", transport)
        if len(self._server.rejected) >= min(MAX_REJECTED_CONNECTIONS, _max_open_files() // 8):
            self._server.observer.connection_ended("cap", None)
            wire.abort()
            return
        self._server.rejected.add(self)
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._wire is not None and not self._is_answered:
            self._is_answered = True
            message = "the gateway has too many connections; nothing was sent, try again"
            failure = overloaded(message, retry_after=1, close=True)
            self._server.observer.connection_ended("cap", _write_final_response(self._wire, failure), failure.status)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.rejected.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Close it at once."""
        if self._wire is not None:
            self._wire.abort()


class Server(web.Server):
    """Creates connections up to a limit, and closes those that take too long.

    ``limits`` is called each time, since a reload changes them. ``observer`` receives the reason for which a connection
    was closed: ``cap``, ``header``, ``body``, ``write`` or ``http``.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        limits: Callable[[], GeneralSettings],
        observer: Observer,
    ) -> None:
        super().__init__(handler, request_factory=self._request)
        self.observer = observer
        self.open: set[Connection] = set()
        self.rejected: set[_RejectedConnection] = set()
        self._limits = limits

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # a rejected connection is not a RequestHandler
        """Return the protocol of a new connection."""
        limits = self._limits()
        if len(self.open) >= min(limits.max_connections, _max_open_files() // 2):
            return _RejectedConnection(self)
        return Connection(self, self._loop, limits.idle_seconds)

    async def enforce_timeouts(self) -> NoReturn:
        """Enforce the timeouts for as long as it runs."""
        while True:
            limits = self._limits()
            times = (limits.header_seconds, limits.body_idle_seconds, limits.body_seconds, limits.write_seconds)
            await asyncio.sleep(min(1.0, *(seconds / 4 for seconds in times)))
            now = time.monotonic()
            for number, connection in enumerate(tuple(self.open), 1):
                connection.enforce_timeouts(now, limits)
                if not number % _CHECKS_PER_STEP:
                    await asyncio.sleep(0)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Close all connections."""
        for each in tuple(self.rejected):
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
            protocol.head_received(payload)
        return request


def _payload_error() -> web.RequestPayloadError:
    return web.RequestPayloadError("invalid chunks")


def _max_open_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _write_final_response(wire: asyncio.Transport, failure: APIError) -> str:
    """Write a response without a request, and nothing after it; return its id."""
    response, id = failure.to_response(), new_request_id()
    body = response.body
    assert isinstance(body, bytes)  # noqa: S101 - as APIError makes it
    response.headers.update({"content-length": str(len(body)), "connection": "close"})
    add_response_headers(response, id)
    head = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    wire.write(f"HTTP/1.1 {response.status} {response.reason}\r\n{head}\r\n".encode() + body)
    _end_writing(wire)
    return id


def _end_writing(wire: asyncio.Transport) -> None:
    with suppress(OSError):  # the other side was faster
        wire.write_eof()
