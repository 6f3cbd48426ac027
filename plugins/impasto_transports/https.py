"""The transport of providers with an HTTP API: multipart out, any body back, on aiohttp."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack
from types import SimpleNamespace
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from impasto import Body, Call, ChargeUnknown, ConfigError, NotSent, WireRequest, WireResponse, hookimpl
from impasto.options import Options

from .form import make_form

MOST_BYTES = 256 * 2**20
"""The largest answer that is read; the largest picture the providers make is a fifth of it."""

IDLE_SECONDS = 2.0
"""How long an idle connection may wait for its next paid request. See benchmarks/RESULTS.md, "Stale connections"."""

POLL_SECONDS = 30.0
"""How long a poll, which is free to repeat, may stay silent."""

_USER_AGENT = "impasto"


async def _headers_left(
    session: aiohttp.ClientSession, context: SimpleNamespace, _: aiohttp.TraceRequestHeadersSentParams
) -> None:
    call = context.trace_request_ctx
    if call is not None:
        call.left()


class Https:
    """One session per client. Every request goes out once: retries are not this plugin's."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self._ssl: ssl.SSLContext | bool = True
        self._proxies: dict[str, str | None] = {}

    async def open(self) -> None:
        """Opens the session; reads the CA file, if one is set. Raises ConfigError."""
        self._ssl = await asyncio.to_thread(_tls, self._options.ssl)
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_headers_left)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[trace],
            headers={"user-agent": _USER_AGENT, "accept-encoding": "identity"},
            skip_auto_headers=("accept",),
        )

    async def aclose(self) -> None:
        """Closes every connection, and waits until they are."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        account = wire.call.account
        url = account.base_url + wire.target
        headers = {**account.headers, **wire.headers}
        if wire.method == "GET":
            return await self.exchange(wire.call, "GET", url, headers)
        with ExitStack() as files:
            return await self.exchange(wire.call, "POST", url, headers, make_form(wire, files))

    async def exchange(
        self, call: Call, method: str, url: str, headers: Mapping[str, str], body: aiohttp.Payload | None = None
    ) -> WireResponse:
        """One HTTP exchange, answered at its headers. A POST is a paid one. Raises NotSent or ChargeUnknown."""
        if self._session is None:
            raise NotSent("the transport is closed", retryable=False)
        paid = method == "POST"
        if paid:
            call.attempt()
        await asyncio.sleep(0)  # lets the loop see that an idle connection was closed by the other side
        try:
            response = await self._session.request(
                method,
                URL(url, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy(url),
                ssl=self._ssl,
                timeout=self._timeout(call, paid),
                trace_request_ctx=call if paid else None,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(error, call, paid) from error
        answered = {name.lower(): value for name, value in response.headers.items()}
        return WireResponse(status=response.status, headers=answered, stream=Body(_chunks(response)))

    def _timeout(self, call: Call, paid: bool) -> aiohttp.ClientTimeout:
        read = call.timeout if paid else min(POLL_SECONDS, call.timeout)
        return aiohttp.ClientTimeout(total=None, connect=self._options.connect_timeout, sock_read=read)

    def _proxy(self, url: str) -> str | None:
        origin = url[: url.find("/", len("https://"))]
        if origin not in self._proxies:
            self._proxies[origin] = self._options.proxy or _proxy_from_environment(origin)
        return self._proxies[origin]


def _tls(given: str | os.PathLike[str] | ssl.SSLContext | None) -> ssl.SSLContext | bool:
    if given is None or isinstance(given, ssl.SSLContext):
        return given if given is not None else True
    try:
        return ssl.create_default_context(cafile=os.fspath(given))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ssl: can't read CA certificates from {os.fspath(given)!r}: {error}") from None


def _proxy_from_environment(base_url: str) -> str | None:
    # Not aiohttp's trust_env: that would also read keys for the host from ~/.netrc.
    url = URL(base_url)
    if proxy_bypass(url.host or ""):
        return None
    proxy = getproxies().get(url.scheme)
    if proxy is not None and URL(proxy).scheme not in ("http", "https"):
        raise ConfigError(f"{url.scheme}_proxy must be an http:// or https:// proxy")
    return proxy


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    size = 0
    try:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > MOST_BYTES:
                raise ChargeUnknown(f"the answer is larger than {MOST_BYTES:,} bytes", status=response.status)
            yield chunk
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ChargeUnknown(
            f"the answer broke off after {size:,} bytes ({_named(error)})", status=response.status
        ) from error
    finally:
        if not response.content.is_eof() or response.content.exception() is not None:
            response.close()  # never reused: the rest of this answer could be read as another's


def _failure(error: Exception, call: Call, paid: bool) -> NotSent | ChargeUnknown:
    """What a failed exchange was, by the evidence: did headers leave?"""
    if paid and call.sent:
        return ChargeUnknown(f"the request left, and no answer came ({_named(error)}); it may have been charged")
    certificate = isinstance(error, aiohttp.ClientSSLError | ssl.SSLError)
    return NotSent(f"no connection ({_named(error)}); nothing was sent", retryable=not certificate)


def _named(error: BaseException) -> str:
    """An exception in words that hold nothing of the request."""
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
        case TimeoutError():
            return "timed out"
        case _:
            return type(error).__name__
