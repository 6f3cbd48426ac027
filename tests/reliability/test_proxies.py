"""Proxies: what they refuse was never sent, and where they are taken from."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trustme

import impasto
from tests.reliability.conftest import CORE, KEY, MakeClient
from tests.reliability.servers import Server, serving
from tests.reliability.test_connection_faults import authority, ca_file, not_sent, tls

__all__ = ["authority", "ca_file"]


@attrs.define
class Proxy:
    """A forward proxy for CONNECT. ``refuse`` is answered instead of a tunnel."""

    url: str = ""
    refuse: bytes | None = None
    received: bytearray = attrs.field(factory=bytearray)
    tunnels: list[str] = attrs.field(factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            top = await reader.readuntil(b"\r\n\r\n")
            self.received += top
            self.tunnels.append(top.split(b" ")[1].decode())
            if self.refuse is not None:
                writer.write(self.refuse)
                await writer.drain()
            else:
                host, _, port = self.tunnels[-1].rpartition(":")
                there, out = await asyncio.open_connection(host, int(port))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                try:
                    await asyncio.gather(self._pass(reader, out), self._pass(there, writer))
                finally:
                    out.close()
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                self.received += data
                writer.write(data)
        with suppress(OSError, RuntimeError):
            writer.write_eof()


@asynccontextmanager
async def proxying(refuse: bytes | None = None) -> AsyncIterator[Proxy]:
    proxy = Proxy(refuse=refuse)
    tasks = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        await proxy.handle(reader, writer)
        tasks.discard(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()
        for task in list(tasks):
            assert task is not None
            task.cancel()
        while tasks:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        await listener.wait_closed()


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[Server]:
    async with serving(tls=tls(authority)) as it:
        yield it


async def test_through_a_proxy_the_key_is_inside_the_tunnel(
    secure: Server,
    make_client: MakeClient,
    ca_file: Path,
) -> None:
    async with proxying() as proxy:
        await make_client(secure.url, ssl=ca_file, proxy=proxy.url).run(CORE, prompt="p")
        assert proxy.tunnels == [f"localhost:{secure.port}"]
        assert KEY.encode() not in proxy.received
        assert len(secure.paid) == 1


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (403, 1), (502, 4), (503, 4)])
async def test_a_proxy_that_refuses_the_tunnel_proves_that_nothing_left(
    secure: Server,
    make_client: MakeClient,
    ca_file: Path,
    status: int,
    tries: int,
) -> None:
    async with proxying(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode()) as proxy:
        error = await not_sent(make_client(secure.url, ssl=ca_file, proxy=proxy.url))
        assert str(status) in str(error)
        assert len(proxy.tunnels) == tries
        assert error.retryable == (status > 500)
        assert KEY.encode() not in proxy.received
    assert secure.connections == 0


async def test_a_proxy_that_hangs_or_talks_nonsense(
    secure: Server,
    make_client: MakeClient,
    ca_file: Path,
) -> None:
    async with proxying(b"220 mail.example ESMTP\r\n") as proxy:
        await not_sent(make_client(secure.url, ssl=ca_file, proxy=proxy.url))
        assert KEY.encode() not in proxy.received


async def test_the_environments_proxy_and_its_exceptions(
    secure: Server,
    make_client: MakeClient,
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await make_client(secure.url, ssl=ca_file).run(CORE, prompt="p")
        assert len(proxy.tunnels) == 1
        for exception in ("localhost", "example.com,localhost", f"localhost:{secure.port}", "*"):
            monkeypatch.setenv("NO_PROXY", exception)
            await make_client(secure.url, ssl=ca_file).run(CORE, prompt="p")
        assert len(proxy.tunnels) == 1
        monkeypatch.setenv("NO_PROXY", "example.com")
        await make_client(secure.url, ssl=ca_file).run(CORE, prompt="p")
        assert len(proxy.tunnels) == 2


async def test_a_proxy_never_sees_plain_http_unasked(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain http is for loopback; a proxy named for other ends would get to read the key."""
    async with proxying() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        await make_client(server.url).run(CORE, prompt="p")
        assert (bytes(proxy.received), len(server.paid)) == (b"", 1)


async def test_a_proxys_password_is_sent_to_it_and_shown_nowhere(
    secure: Server,
    make_client: MakeClient,
    ca_file: Path,
) -> None:
    async with proxying() as proxy:
        url = proxy.url.replace("//", "//user:s3cr3t@")
        client = make_client(secure.url, ssl=ca_file, proxy=url)
        await client.run(CORE, prompt="p")
        assert base64.b64encode(b"user:s3cr3t") in proxy.received
        assert "s3cr3t" not in repr(client._options)


@pytest.mark.parametrize(
    "proxy", ["", "127.0.0.1:3128", "socks5://127.0.0.1:1", "http://", "http://user:pa ss@h:1", "http://h:99999", 5]
)
async def test_a_proxy_that_is_none_is_refused_before_any_socket(proxy: object) -> None:
    with pytest.raises(impasto.ConfigError, match="proxy") as caught:
        impasto.Client(api_key=KEY, proxy=proxy)  # type: ignore[arg-type]  # wrong on purpose
    assert "pa ss" not in str(caught.value)


async def test_a_wrong_proxy_in_the_environment_is_named(
    secure: Server,
    make_client: MakeClient,
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(impasto.ConfigError, match="HTTPS_PROXY"):
        await make_client(secure.url, ssl=ca_file).run(CORE, prompt="p")
    assert secure.connections == 0


async def test_netrc_is_not_read(
    server: Server, make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    await make_client(server.url).run(CORE, prompt="p")
    assert server.paid[0].header("authorization") == f"Bearer {KEY}"
