"""A server whose process has no descriptor left: it waits for one, in silence, and then goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from impasto_plugins.concurrency.listener import PAUSE_SECONDS, Listener, listen
from impasto_plugins.emulator import SHORT, Emulator

CLIENTS = 40


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let this process open so many files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Echo(asyncio.Protocol):
    connections: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Echo.connections += 1
        transport.write(b"served")  # type: ignore[attr-defined]  # a socket's transport has it


async def paused(log: list[str]) -> None:
    """Wait until the server has met the limit, and for a few of its pauses more."""
    async with asyncio.timeout(60):
        while not log:
            await asyncio.sleep(0.01)
    await asyncio.sleep(PAUSE_SECONDS * 6)


@pytest.mark.parametrize("server", ["listener", "emulator"])
async def test_without_a_descriptor_it_pauses_and_logs_a_line_a_second(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    logger = logging.getLogger("impasto.emulator")
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    emulator = Emulator(SHORT)
    Echo.connections = 0
    listener: Listener | None = None
    if server == "listener":
        bound = listen("127.0.0.1", 0)
        listener = Listener([bound], Echo, logger)
        port = bound.getsockname()[1]
        listener.start()
    else:
        await emulator.__aenter__()
        port = int(emulator.url.rpartition(":")[2])
    clients = [socket.socket() for _ in range(CLIENTS)]
    began = time.monotonic()
    try:
        with few_descriptors(10):
            for client in clients:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
            await paused(log)
            assert len(log) <= 1 + time.monotonic() - began
            assert all("connections can't be accepted" in line for line in log)
            for client in clients[: CLIENTS // 2]:  # each frees its own descriptor and the server's
                client.close()
            last = clients[-1]
            if server == "listener":
                async with asyncio.timeout(60):
                    assert await asyncio.get_running_loop().sock_recv(last, 6) == b"served"
                assert Echo.connections == CLIENTS
            else:
                await asyncio.get_running_loop().sock_sendall(last, b"GET /_emulator/charges HTTP/1.0\r\n\r\n")
                async with asyncio.timeout(60):
                    assert (await asyncio.get_running_loop().sock_recv(last, 12)) == b"HTTP/1.0 200"
    finally:
        logger.removeHandler(handler)
        for client in clients:
            client.close()
        if listener is not None:
            listener.close()
            listener.close()
        else:
            await emulator.__aexit__(None, None, None)
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_closed_while_it_pauses_it_never_begins_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("impasto_plugins.concurrency.listener.PAUSE_SECONDS", 0.01)
    bound = listen("127.0.0.1", 0)
    listener = Listener([bound], Echo, logging.getLogger("impasto.emulator"))
    reports: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context["message"]))
    listener.start()
    with few_descriptors(1), socket.socket() as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, bound.getsockname())
        async with asyncio.timeout(60):
            while not listener._pauses:
                await asyncio.sleep(0)
        listener.close()
        await asyncio.sleep(0.05)
    assert reports == []
    assert [record.getMessage() for record in caplog.records if record.name == "impasto.emulator"] == [
        "connections can't be accepted: Too many open files; new ones wait"
    ]


def test_an_address_of_ipv6() -> None:
    with listen("::1", 0) as bound:
        assert bound.family == socket.AF_INET6
