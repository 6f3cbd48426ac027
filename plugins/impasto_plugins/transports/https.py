"""The transport of providers with an HTTP API: multipart or JSON out, any body back, on aiohttp."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import ExitStack
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
import attrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

from impasto import Body, BrokenPlugin, Call, ChargeUnknown, NotSent, WireRequest, WireResponse, hookimpl
from impasto.ext import Options, Sending, check_proxy

from .content_coding import DamagedCoding, decompress, is_compressed
from .form import MultipartForm, Outgoing, open_form
from .tls import tls_of

MAX_BYTES = 256 * 2**20
"""Bytes of the largest answer that is read: five times the largest image of the providers."""

IDLE_SECONDS = 1.0
"""Seconds after which an idle connection gets no paid request. See benchmarks/RESULTS.md, "Stale connections"."""

POLL_SECONDS = 30.0
"""Seconds of silence allowed to a poll, which can be repeated for free."""

MAX_PER_TURN = 8
"""Calls that are started, or pieces of answers that are read, in one turn of the loop."""

_PIECE = 64 * 1024
"""Bytes of a piece of an answer whose reading counts as slow."""

MAX_HEADER_BYTES = 64 * 1024
"""Bytes of the longest header or reason that is read: a paid image is not refused because of a header."""

MAX_HEADERS = 1_000

if TYPE_CHECKING:
    from .json_body import MemoryPayload

_USER_AGENT = "impasto"
_TARGET = re.compile(r"/[!-~]*")
"""A path below the base URL, without anything that could name another host or end the request line."""


@attrs.define(eq=False)
class _Exchange:
    """The state of one exchange. The connector finds it in the context, and reports the connection to the call."""

    evidence: Sending
    paid: bool
    connection: _Protocol | None = None


_running: ContextVar[_Exchange | None] = ContextVar("_running", default=None)


class _Protocol(ResponseHandler):
    """Parses an answer's head before its body: aiohttp's parser drops a head that comes with a damaged body.

    ``surplus`` has the bytes that could not be parsed.
    """

    surplus = b""

    def data_received(self, data: bytes) -> None:
        """Parse a head by itself, then the rest. There may be several heads, such as 100 Continue."""
        while data.startswith(b"HTTP/") and 4 <= (end := data.find(b"\r\n\r\n") + 4) < len(data):
            self._feed(data[:end])
            data = data[end:]
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        if not self.surplus:
            super().data_received(data)
        if self.exception() is not None:
            self.surplus += data
            if self._payload is not None:  # end it, or its reader would wait for ever for the rest
                self._payload.feed_eof()
                self._payload = None


class _Connector(aiohttp.TCPConnector):
    """Reports when a call has its connection, and never reuses one on which bytes came without a request."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=IDLE_SECONDS)
        self._factory = functools.partial(_Protocol, loop=self._loop)  # type: ignore[assignment]  # of a subclass

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a connection after it was reported to the call."""
        # From here on headers may be sent. aiohttp's trace on_request_headers_sent comes a few lines later, without
        # an await between; but with any trace each request runs them all, which takes a fifth of the CPU of a call.
        connection = await super().connect(req, traces, timeout)
        running = _running.get()
        if running is None:
            return connection
        if isinstance(connection.protocol, _Protocol):
            running.connection = connection.protocol
        try:
            running.evidence.headers_sent()
            if not running.paid:  # a poll has no body
                running.evidence.body_sent()
        except BaseException:  # the call may not send: its permit is used, or its time is over
            connection.close()
            raise
        return connection

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        # Bytes that came without a request would be read as the next call's answer.
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


class Turns:
    """Lets at most ``MAX_PER_TURN`` callers continue in one turn of the loop, so that no turn takes long.

    A single caller does not wait.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_PER_TURN)

    async def __call__(self) -> None:
        """Wait if many callers continue in this turn."""
        await self._free.acquire()
        asyncio.get_running_loop().call_soon(self._free.release)

    async def next(self) -> None:
        """Wait for a later turn: a loop that is late first learns which idle connections the other side closed."""
        waits = self._free.locked()
        await self._free.acquire()
        asyncio.get_running_loop().call_soon(self._free.release)
        if not waits:
            await asyncio.sleep(0)


class HttpsTransport:
    """The transport, one session per client. Every request is sent once: this plugin never retries."""

    def __init__(self, options: Options) -> None:
        self.turns = Turns()
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | bool = True
        self._proxies: dict[str, str | None] = {}
        # A paid call has its own deadline. A time-out of aiohttp would set a timer again for each piece that comes.
        self._paid = aiohttp.ClientTimeout(total=None, connect=options.connect_timeout)
        self._polls = attrs.evolve(self._paid, sock_read=POLL_SECONDS)

    async def open(self) -> None:
        """Open the session; reads the CA file, if one is set. Raises ConfigError."""
        self._ssl = await asyncio.to_thread(tls_of, self._options.ssl)
        self._session = aiohttp.ClientSession(
            connector=_Connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"user-agent": _USER_AGENT, "accept-encoding": "identity"},
            skip_auto_headers=("accept",),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )

    async def aclose(self) -> None:
        """Close every connection, and wait until all are closed."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Send one request and return its answer after the headers.

        Raises InvalidRequest, NotSent, ChargeUnknown or BrokenPlugin.
        """
        await self.turns.next()
        account = wire.call.account
        if wire.url is None and _TARGET.fullmatch(wire.target) is None:
            raise BrokenPlugin("a plugin's target must be a path: a / and printable ASCII characters without spaces")
        url = account.base_url + wire.target if wire.url is None else wire.url  # which the route has checked
        headers = CIMultiDict(wire.headers if wire.anonymous else account.headers)
        if not wire.anonymous:
            headers.update(wire.headers)
            if account.query:
                url += ("&" if "?" in url else "?") + urlencode(account.query)
        if wire.method != "POST" and not wire.fields and not wire.files:
            if wire.sign is not None:
                headers.update(wire.sign(method=wire.method, url=url, headers=headers, body=b""))
            return await self.exchange(wire.call, wire.method, url, headers)
        files = ExitStack()
        try:
            body: Outgoing
            if wire.encoding == "form" and wire.sign is None:
                body = await open_form(wire, files)
            else:
                body = await _body_in_memory(wire, url, headers, files)
            return await self.exchange(wire.call, wire.method, url, headers, body, files=files)
        except BaseException:
            files.close()
            raise

    async def exchange(
        self,
        call: Call,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Outgoing | None = None,
        *,
        files: ExitStack | None = None,
        tls: ssl.SSLContext | bool | None = None,
    ) -> WireResponse:
        """Run one HTTP exchange and return the answer after its headers. A POST is paid.

        ``tls`` replaces the client's own certificates. ``files``, which the body reads, are closed after the answer was
        read: an answer may come before the whole body was sent. Raises NotSent or ChargeUnknown.
        """
        session, proxy = self._session, self._proxy(url)
        if session is None:
            raise NotSent("the client is closed; nothing was sent", retryable=False)
        paid = method == "POST"
        with call.sending(paid=paid) as evidence:
            running = _Exchange(evidence, paid)
            token = _running.set(running)
            if body is not None:
                body.on_written = evidence.body_sent
            try:
                response = await session.request(
                    method,
                    URL(url, encoded=True),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    proxy=proxy,
                    ssl=self._ssl if tls is None else tls,
                    timeout=self._paid if paid else self._polls,
                )
            except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: session closed
                failure = _failure(error, call, paid, running.connection)
            else:
                answered = {name.lower(): value for name, value in response.headers.items()}
                stream = Body(_chunks(response, running.connection, files, self.turns))
                return WireResponse(status=response.status, headers=answered, stream=stream)
            finally:
                _running.reset(token)
            raise failure  # outside the except block: aiohttp's error may have the request's headers, and so the key

    def _proxy(self, url: str) -> str | None:
        origin = url[: url.find("/", len("https://"))]
        if origin not in self._proxies:
            self._proxies[origin] = self._options.proxy or _proxy_from_environment(origin)
        return self._proxies[origin]


async def _body_in_memory(
    wire: WireRequest, url: str, headers: MutableMapping[str, str], files: ExitStack
) -> MemoryPayload:
    """Return JSON, or a form that is signed. ``headers`` gets the signature. Files are read in a thread."""
    from .json_body import JSONBody, MemoryPayload  # few providers take JSON, or sign

    content: JSONBody | MultipartForm
    if wire.encoding == "form":
        content = await open_form(wire, files)
        media_type, has_files = content.content_type, bool(wire.files)
    else:
        content = JSONBody.of(wire)
        media_type, has_files = "application/json", bool(content.files)

    def encode() -> bytes | bytearray:
        body = content.encode()
        if wire.sign is not None:
            headers["content-type"] = media_type
            headers.update(wire.sign(method=wire.method, url=url, headers=headers, body=bytes(body)))
        return body

    return MemoryPayload(await asyncio.to_thread(encode) if has_files else encode(), media_type)


def _proxy_from_environment(origin: str) -> str | None:
    # Not aiohttp's trust_env, which would also read keys for the host from ~/.netrc. And for https only: plain http
    # is for loopback, and through a proxy it would show the key to the network.
    url = URL(origin)
    proxy = getproxies_environment().get("https")
    if not proxy or url.scheme != "https" or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    return check_proxy(proxy, "HTTPS_PROXY")


async def _chunks(
    response: aiohttp.ClientResponse, connection: _Protocol | None, files: ExitStack | None, turns: Turns
) -> AsyncIterator[bytes]:
    size, broken = 0, ""
    chunks: AsyncIterator[bytes] = response.content.iter_any()
    if (coding := response.headers.get("content-encoding")) and is_compressed(coding):
        chunks = decompress(chunks)
    try:
        async for chunk in chunks:
            size += len(chunk)
            yield chunk
            if size > MAX_BYTES:
                broken = f"the answer is larger than {MAX_BYTES:,} bytes"
                break
            if len(chunk) >= _PIECE:
                await turns()
        else:
            if _has_two_lengths(response):  # aiohttp's parser in C refuses that, the one in Python does not
                broken = "the answer gives its length twice"
            elif connection is not None and connection.surplus:
                broken = "the answer's length or its chunks are invalid"
    except DamagedCoding as error:
        broken = str(error)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        broken = f"the answer broke off after {size:,} bytes ({_error_text(error)})"
    finally:
        if broken or response.connection is not None:
            # Never reused: the rest of this answer could be read as another's, or the request is still being sent.
            response.close()
        if files is not None:
            files.close()
    if broken:
        raise ChargeUnknown(broken, status=response.status)


def _has_two_lengths(response: aiohttp.ClientResponse) -> bool:
    lengths = response.headers.getall("content-length", ())
    return len(lengths) > 1 or (len(lengths) == 1 and "transfer-encoding" in response.headers)


def _failure(error: Exception, call: Call, paid: bool, connection: _Protocol | None) -> NotSent | ChargeUnknown:
    """Return the error for a failed exchange, by the evidence of sending."""
    if paid and call.sent:
        message = f"the request was sent and no answer came ({_error_text(error)}); it may have been charged"
        return ChargeUnknown(message, raw=connection.surplus if connection is not None else b"")
    would_fail_again = isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | ValueError | RuntimeError) or (
        isinstance(error, aiohttp.ClientHttpProxyError) and error.status < 500
    )
    return NotSent(f"no connection ({_error_text(error)}); nothing was sent", retryable=not would_fail_again)


def _error_text(error: BaseException) -> str:
    """Return an exception's text without any part of the request."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"certificate of {error.host}: {getattr(error.certificate_error, 'verify_message', 'not accepted')}"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS with {error.host}:{error.port} failed"
        case aiohttp.ClientHttpProxyError():
            return f"proxy answered {error.status}"
        case aiohttp.ClientConnectorDNSError():
            return f"can't find host {error.host}"
        case aiohttp.ClientConnectorError():
            return f"{error.host}:{error.port}: {os.strerror(error.errno) if error.errno else 'connection failed'}"
        case aiohttp.ClientResponseError():
            return "the answer is not valid HTTP"
        case TimeoutError():
            return "timed out"
        case RuntimeError():
            return "the client was closed"
        case _:
            return type(error).__name__
