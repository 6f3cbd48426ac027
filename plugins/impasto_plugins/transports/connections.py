"""HTTP exchanges on aiohttp's connections, without its client session.

aiohttp makes the connections, with TLS and through proxies, and parses the answers. Its session and its requests are
left out: they decide again for each request what is the same for all of an address.
"""

from __future__ import annotations

import asyncio
import functools
import re
import select
from collections.abc import AsyncIterator, Mapping

import aiohttp
import attrs
from aiohttp import StreamReader
from aiohttp.client_exceptions import ClientConnectionResetError
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.helpers import DEBUG
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from aiohttp.http_writer import _serialize_headers
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

from impasto.ext import Sending

from .request_body import RequestBody
from .tls import Trust

IDLE_SECONDS = 1.0
"""Seconds after which an idle connection gets no paid request. See benchmarks/RESULTS.md, "Stale connections"."""

MAX_HEADER_BYTES = 64 * 1024
"""Bytes of the longest header or reason that is read: a paid image is not refused because of a header."""

MAX_HEADERS = 1_000

_INFORMATIONAL = frozenset(range(100, 200)) - {101}
"""Statuses of heads before the answer's own. 101 ends HTTP on the connection."""

_HEAD_BEGIN = re.compile(rb"[\r\n]*(?:HTTP/|H?T?T?P?\Z)")
_HEAD_END = re.compile(rb"[^\r\n]\r?\n\r?\n")

_BLANK_LINES = b"\r\n\r\n" if DEBUG else b"\n\n"
"""Lines that aiohttp's parsers skip before a head. In Python's development mode each must end with CRLF."""

_HEADERS = {"user-agent": "impasto", "accept-encoding": "identity"}


class Protocol(ResponseHandler):
    """Parses an answer so that its damage shows alike with each of aiohttp's parsers, the one in C and in Python.

    Both drop a head that comes with a damaged body, and keep for themselves bytes that came after an answer.
    ``surplus`` has the bytes that could not be parsed. ``is_used``: an exchange before has ended on the connection.
    ``is_answered``: the head of the answer has come. Set it to False for the next request.
    """

    surplus = b""
    is_used = False
    is_answered = False
    _head = b""  # the last bytes of a head whose end has not come

    def data_received(self, data: bytes) -> None:
        """Parse a head by itself, then the rest. There may be several heads, such as 100 Continue."""
        data, at, begin = self._head + data, len(self._head), 0
        while not self.is_answered and self._exception is None and at < len(data):
            if at == begin and _HEAD_BEGIN.match(data, begin) is None:
                self._refuse(data[at:])  # the parser in Python would wait for the end of the line
                return
            end = _HEAD_END.search(data, begin)
            if end is None:
                break
            self._feed(data[at : end.end()])
            at = begin = end.end()
            self.is_answered = bool(self._buffer) and self._buffer[-1][0][0].code not in _INFORMATIONAL
            if not self.is_answered:
                self.start_timeout()  # aiohttp has stopped it, as after each head without a body
        self._head = b"" if self.is_answered else data[begin:][-4:]
        if at < len(data) or not data:  # without bytes: the reader has caught up
            self._feed(data[at:])
        if self.is_answered and not self._upgraded and self._payload is not None and self._payload.is_eof():
            self._check_end(data)

    def _feed(self, data: bytes) -> None:
        if not self.surplus:
            super().data_received(data)
        if self._exception is not None:
            self.surplus += data
            if self._payload is not None:  # end it, or its reader would wait for ever for the rest
                self._payload._exception = None  # noqa: SLF001 - or the whole chunks before the damage would be lost
                self._payload.feed_eof()
                self._payload = None

    def _check_end(self, data: bytes) -> None:
        """Refuse bytes after the answer. To the parser blank lines are nothing, or end what it keeps for itself."""
        assert self._parser is not None  # noqa: S101 - it has just parsed something
        try:
            messages, _, _ = self._parser.feed_data(_BLANK_LINES)
        except HttpProcessingError:
            self._refuse(data)
        else:
            self._should_close = self._should_close or bool(messages)

    def _refuse(self, data: bytes) -> None:
        self.surplus += data
        self.set_exception(HttpProcessingError(message="not HTTP"))
        if self.transport is not None:
            self.transport.close()

    async def send(self, data: bytes | memoryview) -> None:
        """Write bytes, and wait while the peer reads too slowly. Raises ClientConnectionResetError."""
        if self.transport is None or self.transport.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")
        self.transport.write(data)
        if self.writing_paused:
            await self._drain_helper()


@attrs.frozen(eq=False)
class Origin:
    """An address of a provider: scheme, host and port, as aiohttp's pool of connections names them."""

    url: str
    request: aiohttp.ClientRequest

    @classmethod
    def of(cls, url: str, tls: Trust, proxy: str | None) -> Origin:
        """Return the origin. Raises ValueError if the URL is invalid."""
        request = aiohttp.ClientRequest(
            "GET",
            URL(url, encoded=True),
            headers=_HEADERS,
            skip_auto_headers=("accept",),
            loop=asyncio.get_running_loop(),
            ssl=tls,
            proxy=None if proxy is None else URL(proxy),
        )
        return cls(url, request)

    def head(self, method: str, target: str, headers: Mapping[str, str], body: RequestBody | None) -> bytes:
        """Return the head of a request, on a connection that is made."""
        if self.request.proxy is not None and not self.request.is_ssl():
            target = self.url + target  # a proxy that opens no tunnel takes the whole address
        fields = CIMultiDict(self.request.headers)
        fields.update(headers)
        if body is not None:
            fields["Content-Length"] = str(body.size)
            fields.setdefault("Content-Type", body.content_type)
        elif method != "GET":
            fields["Content-Length"] = "0"
        return _serialize_headers(f"{method} {target} HTTP/1.1", fields)


class Connector(aiohttp.TCPConnector):
    """Never reuses a connection on which bytes came without a request, or which the other side has closed."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=IDLE_SECONDS)
        self._factory = functools.partial(Protocol, loop=self._loop)  # type: ignore[assignment]  # of a subclass

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close and not _is_readable(protocol.transport):
                return connection
            connection.close()
        return None


def _is_readable(transport: asyncio.Transport | None) -> bool:
    """Return True if bytes or an end have come that the loop, which may be late, has not read yet.

    They would be read as the next call's answer.
    """
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Exchange:
    """One request and its answer. ``paid``: it is sent once.

    Raises aiohttp's errors, HttpProcessingError, OSError, ValueError and RuntimeError.
    """

    def __init__(self, connector: Connector, timeout: aiohttp.ClientTimeout, evidence: Sending, *, paid: bool) -> None:
        self._connector, self._timeout, self._evidence, self._paid = connector, timeout, evidence, paid
        self._connection: Connection | None = None
        self._protocol: Protocol | None = None
        self._payload: StreamReader | None = None
        self._writing: asyncio.Task[None] | None = None
        self._is_written = True

    async def start(
        self, origin: Origin, method: str, target: str, headers: Mapping[str, str], body: RequestBody | None
    ) -> RawResponseMessage:
        """Send the request, and return the head of its answer."""
        while True:
            self._connection = await self._connector.connect(origin.request, [], self._timeout)
            protocol = self._connection.protocol
            assert isinstance(protocol, Protocol)  # noqa: S101 - the connector makes no other
            self._protocol = protocol
            try:
                self._write(protocol, origin.head(method, target, headers, body), body)
                message, self._payload = await protocol.read()
                while message.code in _INFORMATIONAL:
                    message, self._payload = await protocol.read()
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                self.close()
                if self._paid or body is not None or not protocol.is_used:
                    raise
            except BaseException:  # the call may not send, too: its permit is used, or its time is over
                self.close()
                raise
            else:
                return message

    def _write(self, protocol: Protocol, head: bytes, body: RequestBody | None) -> None:
        """Report that headers may leave from now on, and begin to write."""
        transport = protocol.transport
        if transport is None or transport.is_closing() or protocol.should_close:  # bytes came before any request
            raise ClientConnectionResetError("the connection can't take a request")
        self._evidence.headers_sent()
        protocol.is_answered = False
        protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._timeout.sock_read,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )
        small = b"" if body is None else body.small
        if small is not None:
            transport.write(head + small)
            self._evidence.body_sent()
            protocol.start_timeout()
        elif body is not None:
            self._is_written = False
            transport.write(head)
            self._writing = asyncio.create_task(self._write_body(protocol, body))

    async def _write_body(self, protocol: Protocol, body: RequestBody) -> None:
        try:
            await body.write(protocol.send)
        except Exception as error:  # noqa: BLE001 - whatever a file raises, it ends the exchange
            protocol.set_exception(aiohttp.ClientOSError("the body could not be sent"), error)
        else:
            self._is_written = True
            self._evidence.body_sent()
            protocol.start_timeout()

    @property
    def surplus(self) -> bytes:
        """The bytes of an answer that could not be parsed."""
        return b"" if self._protocol is None else self._protocol.surplus

    def take_whole(self, max_bytes: int) -> bytes | None:
        """Return the body if all of it has come with the head, at most so many bytes; else it must be read."""
        payload = self._payload
        if payload is None or not payload.is_eof() or payload.exception() is not None or self.surplus:
            return None
        if payload.total_bytes > max_bytes or not self._is_written:
            return None
        body = payload.read_nowait()
        self.end()
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it comes. Raises aiohttp's errors."""
        assert self._payload is not None  # noqa: S101 - the head was read
        while chunk := await self._payload.readany():
            yield chunk

    def end(self) -> None:
        """Let another exchange have the connection, if the answer was read whole and the request was sent whole."""
        if self._connection is None:
            return
        is_whole = self._payload is not None and self._payload.at_eof() and self._payload.exception() is None
        if not is_whole or not self._is_written:
            self.close()
            return
        assert self._protocol is not None  # noqa: S101 - it has a connection
        self._protocol.is_used = True
        self._connection.release()
        self._connection = None

    def close(self) -> None:
        """Close the connection: the rest of this answer could be read as another's."""
        if self._writing is not None:
            self._writing.cancel()
        if self._connection is not None:
            transport = self._connection.transport
            if transport is not None and (transport.get_write_buffer_size() or not self._is_written):
                transport.abort()  # or it stays open until a peer that reads no more has read the rest
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        if self._connection is not None and not self._connection._loop.is_closed():  # noqa: SLF001 - as aiohttp does
            self.close()  # an answer that nobody read
