"""A proxy in front of an S3, which fails on request: refusals, slow answers, answers that are lost, no network."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread

import aiohttp
import attrs
from aiohttp import web
from yarl import URL

_HOP = {"connection", "content-length", "server", "transfer-encoding"}


@attrs.define
class FaultyS3:
    """The proxy's settings, which may change at any time."""

    behind: str
    url: str = ""
    share: float = 0.0
    """The part of the requests that fail."""
    is_cut: bool = False
    """True if no request gets an answer."""
    ignores_conditions: bool = False
    loses_intents: bool = False
    """True if intents are stored, and never answered."""
    counts: dict[str, int] = attrs.field(factory=dict)
    """The number of failures of each kind."""
    methods: list[str] = attrs.field(factory=list)
    chance: random.Random = attrs.field(factory=lambda: random.Random(1))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.methods.append(request.method)
        if self.is_cut:
            return self._cut(request)
        fault = self.chance.choice(("409", "503", "slow", "lost")) if self.chance.random() < self.share else ""
        self.counts[fault] = self.counts.get(fault, 0) + 1
        if fault == "409" and request.method == "PUT":
            return _error(409, "ConditionalRequestConflict")
        if fault == "503":
            return _error(503, "SlowDown")
        if fault == "slow":
            await asyncio.sleep(0.5)
        response = await self._forward(request, body)
        is_lost = fault == "lost" or (self.loses_intents and request.method == "PUT" and "/intents/" in request.path)
        return self._cut(request) if is_lost or self.is_cut else response

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        dropped = _HOP | ({"if-none-match"} if self.ignores_conditions else set())
        headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        url = f"{self.behind}{request.raw_path}"
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, URL(url, encoded=True), data=body, headers=headers) as answer,
        ):
            passed_on = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=passed_on)

    def _cut(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response(status=500)


def _error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>")


@contextmanager
def faulty(behind: str) -> Iterator[FaultyS3]:
    """Serve a proxy in front of this address."""
    started: Future[tuple[FaultyS3, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        proxy = FaultyS3(behind)
        runner = web.ServerRunner(web.Server(proxy.handle), shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        proxy.url = f"http://{host}:{port}"
        stop = asyncio.Event()
        started.set_result((proxy, asyncio.get_running_loop(), stop))
        await stop.wait()
        await runner.cleanup()

    thread = Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    proxy, loop, stop = started.result(timeout=30)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
