"""Faults before an exchange (rows F1 to F4, F14 of the promise): nothing left, so nothing was charged."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

import impasto
from tests.reliability.conftest import CORE, FAST, KEY, MakeClient
from tests.reliability.servers import Server, Wire, serving


async def not_sent(client: impasto.Client) -> impasto.NotSent:
    with pytest.raises(impasto.NotSent) as caught:
        await client.run(CORE, prompt="p")
    assert (caught.value.billed, caught.value.operation) == ("no", CORE)
    assert "nothing was sent" in str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def tls(authority: trustme.CA, host: str = "localhost", **options: object) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, **options).configure_cert(context)  # type: ignore[arg-type]  # not_after
    return context


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses: bound, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_f1_no_such_host(make_client: MakeClient) -> None:
    error = await not_sent(make_client("https://nowhere.invalid"))
    assert error.retryable
    assert "nowhere.invalid" in str(error)


async def test_f2_refused_is_tried_again_as_often_as_the_policy_says(make_client: MakeClient) -> None:
    tries = []

    async def count(wire: impasto.WireRequest, next: impasto.Handler) -> impasto.WireResponse:
        tries.append(wire.call.remaining())
        return await next(wire)

    with closed_port() as port:
        error = await not_sent(make_client(f"http://127.0.0.1:{port}", middleware=[count]))
        assert error.retryable
        assert len(tries) == FAST.attempts


async def test_f2_refused_then_open(make_client: MakeClient) -> None:
    with closed_port() as port:
        client = make_client(
            f"http://127.0.0.1:{port}", retry=impasto.Retry(attempts=200, base=0.01, cap=0.01, floor=200)
        )
        call = asyncio.ensure_future(client.run(CORE, prompt="p"))
        await asyncio.sleep(0.2)
        assert not call.done()
    async with serving(Server(port=port)) as server:
        assert (await call).artifacts[0].seed == 7
        assert len(server.paid) == 1


async def test_f3_a_black_hole_ends_at_the_connect_timeout(make_client: MakeClient) -> None:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for filler in (first, second):  # the backlog is full: further connections hang
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        client = make_client(
            f"http://127.0.0.1:{listener.getsockname()[1]}",
            connect_timeout=0.15,
            retry=impasto.Retry(attempts=2, base=0.001),
        )
        began = time.monotonic()
        error = await not_sent(client)
        assert 0.25 < time.monotonic() - began < 20
        assert error.retryable
        assert "timed out" in str(error)


async def test_f3_the_deadline_ends_a_connect_too(make_client: MakeClient) -> None:
    """The whole call's time runs while it connects; that nothing left is still said."""
    release = asyncio.Event()

    async def hold(wire: Wire) -> None:
        await release.wait()

    server = Server(on_connect=hold)
    async with serving(server):
        client = make_client(server.url.replace("http:", "https:"), timeout=0.2, connect_timeout=5)
        error = await not_sent(client)
        assert error.retryable
        release.set()


async def test_f4_tls_to_a_plain_port(server: Server, make_client: MakeClient) -> None:
    async def not_understood(wire: Wire) -> None:
        server.received += await wire.reader.read(4096)
        await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        wire.close()

    server.on_connect = not_understood
    error = await not_sent(make_client(f"https://127.0.0.1:{server.port}"))
    assert not error.retryable
    assert server.connections == 1
    assert KEY.encode() not in server.received


@pytest.mark.parametrize("fault", ["unknown authority", "expired", "wrong name"])
async def test_f4_a_bad_certificate_fails_at_once(
    authority: trustme.CA, ca_file: Path, make_client: MakeClient, fault: str
) -> None:
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    context = {
        "unknown authority": lambda: tls(trustme.CA()),
        "expired": lambda: tls(authority, not_before=past, not_after=past + dt.timedelta(days=1)),
        "wrong name": lambda: tls(authority, "elsewhere.example"),
    }[fault]()
    async with serving(tls=context) as server:
        error = await not_sent(make_client(server.url, ssl=ca_file))
        assert not error.retryable
        assert "certificate" in str(error).lower()
        assert server.received == b""


async def test_an_own_ca_is_trusted(authority: trustme.CA, ca_file: Path, make_client: MakeClient) -> None:
    async with serving(tls=tls(authority)) as server:
        for trust in (ca_file, str(ca_file), ssl.create_default_context(cafile=str(ca_file))):
            await make_client(server.url, ssl=trust).run(CORE, prompt="p")
        assert len(server.paid) == 3
        await not_sent(make_client(server.url))  # and nobody else's clients trust it


async def test_the_environments_ca_is_read_when_the_client_opens(
    authority: trustme.CA, ca_file: Path, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE may be set long after the import, and taken back."""
    async with serving(tls=tls(authority)) as server:
        await not_sent(make_client(server.url))
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        await make_client(server.url).run(CORE, prompt="p")
        monkeypatch.delenv("SSL_CERT_FILE")
        await not_sent(make_client(server.url))
        assert len(server.paid) == 1


async def test_a_ca_file_is_read_once_and_again_when_it_has_changed(
    authority: trustme.CA, ca_file: Path, tmp_path: Path, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    read = ssl.create_default_context

    def count(**fields: str | None) -> ssl.SSLContext:
        reads.append(fields)
        return read(cafile=fields["cafile"])

    monkeypatch.setattr("ssl.create_default_context", count)
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    async with serving(tls=tls(authority)) as server:
        for _ in range(2):
            await not_sent(make_client(server.url, ssl=path))
        assert len(reads) == 1
        path.write_bytes(ca_file.read_bytes())
        os.utime(path, (1, 1))  # another time than before, whatever the clock's resolution is
        await make_client(server.url, ssl=path).run(CORE, prompt="p")
        assert len(reads) == 2


async def test_a_ca_file_that_can_not_be_read_is_said(tmp_path: Path, make_client: MakeClient, server: Server) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for path in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        with pytest.raises(impasto.ConfigError, match=path.name):
            await make_client(server.url, ssl=path).run(CORE, prompt="p")
    assert server.connections == 0


async def test_f14_a_connection_that_was_idle_for_a_second_is_not_used_again(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers and proxies close idle connections, and a paid request on its way to a closed one is ambiguous.

    One second is what benchmarks/RESULTS.md measured; the clock of aiohttp's connector is set ahead.
    """
    import time

    ahead = 0.0
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: time.monotonic() + ahead)
    client = make_client(server.url)
    for ahead, connections in ((0.0, 1), (0.5, 1), (0.9, 1), (2.0, 2), (2.4, 2), (3.5, 3)):
        await client.run(CORE, prompt="p")
        assert server.connections == connections, ahead


async def test_f14_connections_are_reused(server: Server, make_client: MakeClient) -> None:
    client = make_client(server.url)
    for _ in range(5):
        await client.run(CORE, prompt="p")
    assert server.connections == 1


async def test_f14_an_idle_connection_is_not_reused_for_long(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto_plugins.transports.connections.IDLE_SECONDS", 0.1)
    client = make_client(server.url)
    await client.run(CORE, prompt="p")
    await asyncio.sleep(0.2)
    await client.run(CORE, prompt="p")
    assert server.connections == 2


async def test_f14_a_connection_that_the_server_closed_is_seen_even_by_a_late_loop(
    server: Server, make_client: MakeClient
) -> None:
    """The server closed while this loop was busy: the close is not yet known when the next call begins."""
    client = make_client(server.url)
    wires: list[Wire] = []

    async def keep(wire: Wire) -> None:
        wires.append(wire)

    server.on_connect = keep
    for _ in range(5):
        await client.run(CORE, prompt="p")
        call = asyncio.ensure_future(client.run(CORE, prompt="p"))
        wires[-1].writer.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)  # at once, not by the loop
        time.sleep(0.01)  # the FIN is here before the loop looks
        await call
    assert len(server.paid) == 10
