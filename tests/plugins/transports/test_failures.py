"""What a failed exchange is, in words and by its evidence, and if another try could do better. Without a socket."""

from __future__ import annotations

import errno
import ssl
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from multidict import CIMultiDict

from impasto import Call, ChargeUnknown, ConfigError, NotSent
from impasto.ext import Options
from impasto_plugins.transports import connections, https, tls
from impasto_plugins.transports.https import HttpsTransport
from impasto_plugins.transports.tls import tls_of

KEY: Any = SimpleNamespace(host="api.example", port=443, ssl=True, is_ssl=True)


def proxied(status: int) -> aiohttp.ClientHttpProxyError:
    return aiohttp.ClientHttpProxyError(cast(Any, None), (), status=status, message="secret")


FAILURES: list[tuple[Exception, str, bool]] = [
    (aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNREFUSED, "secret")), "Connection refused", True),
    (aiohttp.ClientConnectorError(KEY, OSError("secret")), "connection failed", True),
    (aiohttp.ClientConnectorDNSError(KEY, OSError(1, "secret")), "can't find host api.example", True),
    (aiohttp.ClientConnectorSSLError(KEY, OSError(1, "secret")), "TLS with api.example:443 failed", False),
    (aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("secret")), "certificate of api.example", False),
    (ssl.SSLError("secret"), "SSLError", False),
    (proxied(407), "proxy answered 407", False),
    (proxied(499), "proxy answered 499", False),
    (proxied(500), "proxy answered 500", True),
    (proxied(502), "proxy answered 502", True),
    (TimeoutError("secret"), "timed out", True),
    (RuntimeError("secret"), "the client was closed", False),
    (ValueError("secret"), "ValueError", False),
    (aiohttp.ServerDisconnectedError("secret"), "ServerDisconnectedError", True),
    (aiohttp.ClientResponseError(cast(Any, None), (), message="secret"), "the answer is not valid HTTP", True),
    (HttpProcessingError(message="secret"), "the answer is not valid HTTP", True),
]


def call(*, sent: bool) -> Call:
    return cast(Call, SimpleNamespace(sent=sent))


@pytest.mark.parametrize(
    ("error", "message", "retryable"), FAILURES, ids=[type(error).__name__ for error, *_ in FAILURES]
)
def test_a_failure_before_the_request_was_sent_is_free(error: Exception, message: str, retryable: bool) -> None:
    failure = https._failure(error, call(sent=False), True, b"")
    assert isinstance(failure, NotSent)
    assert message in failure.message
    assert (failure.retryable, failure.billed, "secret" in failure.message) == (retryable, "no", False)


@pytest.mark.parametrize("error", [error for error, *_ in FAILURES])
def test_a_failure_after_it_was_sent_may_have_been_charged(error: Exception) -> None:
    failure = https._failure(error, call(sent=True), True, b"what came")
    assert type(failure) is ChargeUnknown
    assert (failure.raw, failure.retryable, "secret" in failure.message) == (b"what came", False, False)
    bare = https._failure(error, call(sent=True), True, b"")
    assert isinstance(bare, ChargeUnknown)
    assert bare.raw == b""


def test_a_failed_poll_costs_nothing_though_its_paid_request_was_sent() -> None:
    assert isinstance(https._failure(TimeoutError(), call(sent=True), False, b""), NotSent)


@pytest.mark.parametrize(
    ("headers", "is_twice"),
    [
        ([("content-length", "5")], False),
        ([("transfer-encoding", "chunked")], False),
        ([], False),
        ([("content-length", "5"), ("content-length", "5")], True),
        ([("content-length", "5"), ("transfer-encoding", "chunked")], True),
    ],
)
def test_an_answer_with_two_lengths_is_recognized(headers: list[tuple[str, str]], is_twice: bool) -> None:
    answer = cast(RawResponseMessage, SimpleNamespace(headers=CIMultiDict(headers)))
    assert https._has_two_lengths(answer) is is_twice


def test_the_ca_can_be_a_context_a_file_or_a_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_AT_IMPORT", ())
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    own = ssl.create_default_context()
    assert tls_of(own) is own
    assert tls_of(None) is True
    assert isinstance(tls_of(tmp_path), ssl.SSLContext)
    for damaged in (tmp_path / "none.pem", tmp_path / "damaged.pem"):
        (tmp_path / "damaged.pem").write_text("no certificate")
        with pytest.raises(ConfigError, match="ssl: can't read CA certificates from"):
            tls_of(damaged)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert isinstance(tls_of(None), ssl.SSLContext)
    monkeypatch.delenv("SSL_CERT_DIR")
    monkeypatch.setattr(tls, "_AT_IMPORT", (str(tmp_path),))  # aiohttp still trusts what it found there
    assert isinstance(tls_of(None), ssl.SSLContext)


@pytest.mark.parametrize(
    ("origin", "variables", "proxy"),
    [
        ("https://api.example", {"HTTPS_PROXY": "http://127.0.0.1:1"}, "http://127.0.0.1:1"),
        ("https://api.example", {"https_proxy": "http://127.0.0.1:1"}, "http://127.0.0.1:1"),
        ("https://api.example", {"HTTP_PROXY": "http://127.0.0.1:1"}, None),
        ("https://api.example", {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "api.example"}, None),
        ("https://api.example", {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "api.example:443"}, None),
        ("http://127.0.0.1:8008", {"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}, None),
        ("https://api.example", {}, None),
    ],
)
def test_the_proxy_of_the_environment_is_for_https_only(
    monkeypatch: pytest.MonkeyPatch, origin: str, variables: dict[str, str], proxy: str | None
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    transport = HttpsTransport(Options())
    assert transport._proxy(origin) == proxy
    arguments = HttpsTransport(Options(proxy="http://127.0.0.1:2"))
    assert arguments._proxy(origin) == "http://127.0.0.1:2"


def test_an_invalid_proxy_of_the_environment_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:password@127.0.0.1:1")
    with pytest.raises(ConfigError, match="^HTTPS_PROXY must be the URL") as caught:
        HttpsTransport(Options())._proxy("https://api.example")
    assert "password" not in str(caught.value)


def test_the_limits_of_the_transport_are_the_documented_ones() -> None:
    """Measured, or far above anything that a provider makes; see benchmarks/RESULTS.md."""
    assert (connections.IDLE_SECONDS, https.POLL_SECONDS, https.MAX_BYTES) == (1.0, 30.0, 256 * 2**20)
    assert (https.MAX_PER_TURN, connections.MAX_HEADER_BYTES, connections.MAX_HEADERS) == (8, 65_536, 1_000)


async def test_the_caller_sets_the_time_out_of_a_connection_and_a_silent_poll_has_its_own() -> None:
    transport = HttpsTransport(Options(connect_timeout=3.0))
    assert (transport._paid.connect, transport._paid.total, transport._paid.sock_read) == (3.0, None, None)
    assert (transport._polls.connect, transport._polls.total, transport._polls.sock_read) == (3.0, None, 30.0)
