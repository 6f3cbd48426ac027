"""The transport of providers with an HTTP API: multipart or JSON out, any body back, on aiohttp."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import ExitStack
from urllib.parse import urlencode
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
import attrs
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from multidict import CIMultiDict
from yarl import URL

from impasto import Body, BrokenPlugin, Call, ChargeUnknown, NotSent, WireRequest, WireResponse, hookimpl
from impasto.ext import Options, check_proxy

from .connections import Connector, Exchange, Origin
from .content_coding import DamagedCoding, decompress, is_compressed
from .form import open_form
from .request_body import RequestBody
from .tls import Trust, tls_of

MAX_BYTES = 256 * 2**20
"""Bytes of the largest answer that is read: five times the largest image of the providers."""

POLL_SECONDS = 30.0
"""Seconds of silence allowed to a poll, which can be repeated for free."""

MAX_PER_TURN = 8
"""Calls that are started, or pieces of answers that are read, in one turn of the loop."""

_PIECE = 64 * 1024
"""Bytes of a piece of an answer whose reading counts as slow."""

_TARGET = re.compile(r"/[!-~]*")
"""A path below the base URL, without anything that could name another host or end the request line."""

_URL = re.compile(r"(https?://[^/?#]+)([^#]*)")
"""The origin of a URL, and the target of a request to it."""


class Turns:
    """Lets at most ``MAX_PER_TURN`` callers continue in one turn of the loop, so that no turn takes long.

    A single caller does not wait.
    """

    def __init__(self) -> None:
        self._free = MAX_PER_TURN
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self) -> None:
        """Wait if many callers continue in this turn."""
        if self._free == MAX_PER_TURN:
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._free:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        await place

    def _next_turn(self) -> None:
        self._free = MAX_PER_TURN
        while self._free and self._waiting:
            place = self._waiting.popleft()
            if not place.done():  # else its caller was cancelled
                place.set_result(None)
                self._free -= 1
        if self._free < MAX_PER_TURN:
            asyncio.get_running_loop().call_soon(self._next_turn)


class HttpsTransport:
    """The transport, one pool of connections per client. Every request is sent once: this plugin never retries."""

    def __init__(self, options: Options) -> None:
        self.turns = Turns()
        self._options = options
        self._connector: Connector | None = None
        self._tls: Trust = True
        self._origins: dict[tuple[str, Trust], Origin] = {}
        # A paid call has its own deadline. A time-out of aiohttp would set a timer again for each piece that comes.
        self._paid = aiohttp.ClientTimeout(total=None, connect=options.connect_timeout)
        self._polls = attrs.evolve(self._paid, sock_read=POLL_SECONDS)

    async def open(self) -> None:
        """Read the CA file, if one is set. Raises ConfigError."""
        self._tls = await asyncio.to_thread(tls_of, self._options.ssl)
        self._connector = Connector()

    async def aclose(self) -> None:
        """Close every connection, and wait until all are closed."""
        if self._connector is not None:
            connector, self._connector = self._connector, None
            await connector.close()

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        """Send one request and return its answer after the headers.

        Raises InvalidRequest, NotSent, ChargeUnknown or BrokenPlugin.
        """
        await self.turns()
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
            if wire.encoding == "form" and wire.sign is None:
                body = await open_form(wire, files)
            else:
                body = await _body_in_memory(wire, url, headers, files)
            return await self.exchange(wire.call, wire.method, url, headers, body, files=files if wire.files else None)
        except BaseException:
            files.close()
            raise

    async def exchange(
        self,
        call: Call,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: RequestBody | None = None,
        *,
        files: ExitStack | None = None,
        tls: Trust | None = None,
    ) -> WireResponse:
        """Run one HTTP exchange and return the answer after its headers. A POST is paid.

        ``tls`` replaces the client's own certificates. ``files``, which the body reads, are closed after the answer was
        read: an answer may come before the whole body was sent. Raises NotSent or ChargeUnknown.
        """
        if self._connector is None:
            raise NotSent("the client is closed; nothing was sent", retryable=False)
        paid = method == "POST"
        origin, target = self._address(url, self._tls if tls is None else tls)
        with call.sending(paid=paid) as evidence:
            exchange = Exchange(self._connector, self._paid if paid else self._polls, evidence, paid=paid)
            try:
                message = await exchange.start(origin, method, target, headers, body)
            except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError, RuntimeError) as error:
                failure = _failure(error, call, paid, exchange.surplus)  # RuntimeError: the connector is closed
            else:
                items = message.headers.items()
                answered = {name.lower(): value if value.isascii() else _utf8(value) for name, value in items}
                is_odd = "content-encoding" in answered or _has_two_lengths(message)
                whole = None if is_odd else exchange.take_whole(_PIECE)
                if whole is not None and files is not None:
                    files.close()
                stream = Body.of(whole) if whole is not None else Body(_chunks(message, exchange, files, self.turns))
                return WireResponse(status=message.code, headers=answered, stream=stream)
            raise failure  # outside the except block: aiohttp's error may have the request's headers, and so the key

    def _address(self, url: str, tls: Trust) -> tuple[Origin, str]:
        """Return the origin and the target of a URL. Raises NotSent, and ConfigError if the proxy is invalid."""
        match = _URL.match(url)
        place, target = match.groups() if match is not None else ("", "")
        origin = self._origins.get((place, tls))
        if origin is None:
            proxy = self._proxy(place)
            try:
                origin = self._origins[place, tls] = Origin.of(place, tls, proxy)
            except ValueError:
                raise NotSent("the address of the request is not a URL; nothing was sent", retryable=False) from None
        return origin, target if target.startswith("/") else f"/{target}"

    def _proxy(self, origin: str) -> str | None:
        return self._options.proxy or _proxy_from_environment(origin)


async def _body_in_memory(
    wire: WireRequest, url: str, headers: MutableMapping[str, str], files: ExitStack
) -> RequestBody:
    """Return JSON, or a form that is signed. ``headers`` gets the signature. Files are read in a thread."""
    from .json_body import JSONBody  # few providers take JSON, or sign

    content: JSONBody | RequestBody
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

    return RequestBody(media_type, [await asyncio.to_thread(encode) if has_files else encode()])


def _proxy_from_environment(origin: str) -> str | None:
    # Not aiohttp's trust_env, which would also read keys for the host from ~/.netrc. And for https only: plain http
    # is for loopback, and through a proxy it would show the key to the network.
    url = URL(origin)
    proxy = getproxies_environment().get("https")
    if not proxy or url.scheme != "https" or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    return check_proxy(proxy, "HTTPS_PROXY")


async def _chunks(
    message: RawResponseMessage, exchange: Exchange, files: ExitStack | None, turns: Turns
) -> AsyncIterator[bytes]:
    size, broken = 0, ""
    chunks = exchange.chunks()
    if (coding := message.headers.get("content-encoding")) and is_compressed(coding):
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
            if _has_two_lengths(message):  # aiohttp's parser in C refuses that, the one in Python does not
                broken = "the answer gives its length twice"
            elif exchange.surplus:
                broken = "the answer's length or its chunks are invalid"
    except DamagedCoding as error:
        broken = str(error)
    except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
        broken = f"the answer broke off after {size:,} bytes ({_error_text(error)})"
    finally:
        if broken:
            exchange.close()
        else:
            exchange.end()
        if files is not None:
            files.close()
    if broken:
        raise ChargeUnknown(broken, status=message.code)


def _utf8(value: str) -> str:
    """Return a header's value without aiohttp's surrogates, which no file, log or terminal takes."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _has_two_lengths(message: RawResponseMessage) -> bool:
    lengths = message.headers.getall("content-length", ())
    return len(lengths) > 1 or (len(lengths) == 1 and "transfer-encoding" in message.headers)


def _failure(error: Exception, call: Call, paid: bool, surplus: bytes) -> NotSent | ChargeUnknown:
    """Return the error for a failed exchange, by the evidence of sending. ``surplus``: bytes that are not HTTP."""
    if paid and call.sent:
        message = f"the request was sent and no answer came ({_error_text(error)}); it may have been charged"
        return ChargeUnknown(message, raw=surplus)
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
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return "the answer is not valid HTTP"
        case TimeoutError():
            return "timed out"
        case RuntimeError():
            return "the client was closed"
        case _:
            return type(error).__name__
