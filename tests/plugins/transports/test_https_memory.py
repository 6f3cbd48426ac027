"""What a call held is let go of when it ends."""

import asyncio
import gc
import socket
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

import impasto
from impasto.ext import Sending
from impasto_plugins.transports.connections import Connector, Exchange, Origin
from tests.images import padded
from tests.reliability.servers import head


async def test_a_call_is_released_at_its_end(client: impasto.Client) -> None:
    await client.run("stability/upscale-fast", image=padded(100_000))
    gc.collect()
    before = sum(isinstance(each, impasto.Call | impasto.File) for each in gc.get_objects())
    for _ in range(10):
        await client.run("stability/upscale-fast", image=padded(100_000))
    gc.collect()
    assert sum(isinstance(each, impasto.Call | impasto.File) for each in gc.get_objects()) <= before


def test_an_answer_that_nobody_read_may_outlive_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a resource that was not closed, and says so; it raises nothing as it goes."""
    problems = list[object]()
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as threads:

        def answer() -> socket.socket:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(head(200, {"content-length": "9"}) + b"half")
            return connection

        async def start() -> Exchange:
            exchange = Exchange(Connector(), aiohttp.ClientTimeout(), Sending(None, False, object), paid=False)
            origin = Origin.of(f"http://127.0.0.1:{listener.getsockname()[1]}", True, None)
            await exchange.start(origin, "GET", "/", {}, None)
            return exchange

        server = threads.submit(answer)
        exchange = asyncio.run(start())
        monkeypatch.setattr(sys, "unraisablehook", problems.append)
        with server.result(), warnings.catch_warnings(record=True) as resources:
            warnings.simplefilter("always", ResourceWarning)
            del exchange
            gc.collect()
            messages = [str(each.message) for each in resources]
            resources.clear()  # a warning holds what it is about
            gc.collect()
    assert any("Unclosed connection" in message for message in messages)
    assert problems == []
