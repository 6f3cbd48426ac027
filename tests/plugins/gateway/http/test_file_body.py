"""Files go from the disk to the socket, on both event loops, however the caller reads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from impasto_plugins.gateway.http.file_body import send_file

CONTENT = bytes(range(251)) * 40_000
Outcomes = list[str]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, object]], object]:
    def run(main: Coroutine[Any, Any, object]) -> object:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run


@asynccontextmanager
async def serving(path: Path, outcomes: Outcomes, *, size: int = len(CONTENT)) -> AsyncIterator[int]:
    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": str(size)})
        await response.prepare(request)
        with path.open("rb") as source:
            try:
                await send_file(request, source, size, stall_seconds=0.3)
            except ConnectionError as error:
                outcomes.append(str(error))
                raise
        await response.write_eof()
        outcomes.append("sent")
        return response

    runner = web.ServerRunner(web.Server(respond))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def ask(port: int, *, buffer: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    return reader, writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("buffer", [0, 4096], ids=["fast reader", "slow reader"])
def test_a_file_arrives_whole_and_the_connection_goes_on(
    run: Callable[[Coroutine[Any, Any, object]], object], path: Path, buffer: int
) -> None:
    outcomes: Outcomes = []

    async def main() -> None:
        async with serving(path, outcomes) as port:
            reader, writer = await ask(port, buffer=buffer)
            for _ in range(2):
                await reader.readuntil(b"\r\n\r\n")
                assert await reader.readexactly(len(CONTENT)) == CONTENT
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            writer.close()

    run(main())
    assert outcomes[:2] == ["sent", "sent"]


def test_a_caller_who_reads_nothing_is_given_up(
    run: Callable[[Coroutine[Any, Any, object]], object], path: Path
) -> None:
    outcomes: Outcomes = []

    async def main() -> None:
        async with serving(path, outcomes) as port:
            reader, writer = await ask(port, buffer=4096)
            while not outcomes:
                await asyncio.sleep(0.01)
            with suppress(ConnectionError):
                assert len(await reader.read()) < len(CONTENT)
            writer.close()

    run(main())
    assert outcomes == ["the caller reads nothing"]


def test_a_caller_who_leaves_ends_it(run: Callable[[Coroutine[Any, Any, object]], object], path: Path) -> None:
    outcomes: Outcomes = []

    async def main() -> None:
        async with serving(path, outcomes) as port:
            reader, writer = await ask(port, buffer=4096)
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
            while not outcomes:
                await asyncio.sleep(0.01)

    run(main())
    assert outcomes != ["sent"]


def test_a_file_that_became_shorter_cuts_the_connection(
    run: Callable[[Coroutine[Any, Any, object]], object], path: Path
) -> None:
    outcomes: Outcomes = []

    async def main() -> None:
        async with serving(path, outcomes, size=len(CONTENT) + 1) as port:
            reader, writer = await ask(port)
            await reader.readuntil(b"\r\n\r\n")
            with pytest.raises(asyncio.IncompleteReadError):
                await asyncio.wait_for(reader.readexactly(len(CONTENT) + 1), 10)
            writer.close()

    run(main())
    assert outcomes == ["the file became shorter while it was sent"]
