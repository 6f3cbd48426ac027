"""An answer that was read costs nothing afterwards; one that was not read waits for the SDK's retry."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest

from impasto_plugins.gateway.http import delivery as delivery_module
from impasto_plugins.gateway.idempotency import coordinator
from tests.images import padded
from tests.plugins.gateway.conftest import MASTER, Running, Start, config
from tests.plugins.gateway.raw import until
from tests.plugins.gateway.records import calls_of, database
from tests.reliability.servers import PICTURE_HEADERS, Answer, Server, head, raw

SMALL, LARGE = 12_000, 6_000_000
UNREAD_BYTES = 1_500_000
"""Bytes of an image that fit the gateway's send buffer, and not the receive buffer of a caller who does not read."""


def image(size: int, wait: float = 0) -> Answer:
    """The provider's answer, after so many seconds."""
    return raw(wait, head(200, {**PICTURE_HEADERS, "content-length": str(size)}), padded(size))


def request(count: int = 0, *headers: str) -> bytes:
    """A generation as an SDK asks for it, for the first time or again."""
    body = json.dumps({"model": "sd3", "prompt": "p"}).encode()
    lines = [
        "POST /v1/images/generations HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {MASTER}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"x-stainless-retry-count: {count}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def connected(gateway: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=60)


def read_answer(connection: socket.socket) -> bytes:
    """All bytes of one answer, and not one more."""
    came = b""
    while b"\r\n\r\n" not in came:
        came += connection.recv(1)
    left = int(came.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
    while left:
        piece = connection.recv(min(left, 1 << 20))
        assert piece
        came, left = came + piece, left - len(piece)
    return came


async def count_stored(gateway: Running) -> int:
    """How many outcomes wait for a retry, once everything is decided by its evidence, however late that is."""
    await asyncio.wait_for(gateway.gateway._app.wait_idle(), 60)
    await until(lambda: not gateway.gateway._idempotency._deliveries)
    await gateway.idle()
    assert gateway.gateway._app.memory.used_bytes == 0
    assert not calls_of(gateway.gateway._idempotency)._calls
    work = database(gateway).write(lambda db: db.execute("SELECT COUNT(*) FROM calls").fetchone()[0])
    return int(await work)


@pytest.fixture
def provider(provider: Server) -> Server:
    provider.posts = [image(SMALL)]
    return provider


@pytest.fixture
async def gateway(start: Start, provider: Server) -> Running:
    return await start(config(provider.url))


def _reads_and_closes(connection: socket.socket) -> None:
    connection.sendall(request())
    read_answer(connection)
    connection.close()


def _reads_to_the_end(connection: socket.socket) -> None:
    connection.sendall(request(0, "Connection: close"))
    while connection.recv(1 << 20):
        pass
    connection.close()


def _ends_its_half_and_closes(connection: socket.socket) -> None:
    connection.sendall(request())
    read_answer(connection)
    connection.shutdown(socket.SHUT_WR)
    connection.close()


def _ends_its_half_first_and_reads(connection: socket.socket) -> None:
    connection.sendall(request())
    connection.shutdown(socket.SHUT_WR)
    read_answer(connection)
    connection.close()


def _reads_slowly(connection: socket.socket) -> None:
    connection.sendall(request())
    connection.recv(10, socket.MSG_PEEK)
    time.sleep(0.5)  # longer than the gateway waits for a caller who hung up
    read_answer(connection)
    connection.close()


def _stays(connection: socket.socket) -> None:
    connection.sendall(request())
    read_answer(connection)
    connection.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connection.recv(1)


READ: dict[str, Callable[[socket.socket], None]] = {
    "reads and closes": _reads_and_closes,
    "reads to the end": _reads_to_the_end,
    "ends its half and closes": _ends_its_half_and_closes,
    "ends its half, then reads": _ends_its_half_first_and_reads,
    "reads slowly": _reads_slowly,
    "stays": _stays,
}


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("how", READ)
async def test_an_answer_that_was_read_costs_nothing_afterwards(
    gateway: Running, provider: Server, state: Path, how: str, size: int
) -> None:
    provider.posts = [image(size)]
    with connected(gateway) as connection:
        await asyncio.to_thread(READ[how], connection)
        assert await count_stored(gateway) == 0
    assert not (state / "outcomes").exists()
    with connected(gateway) as connection:  # of another call, which was refused perhaps
        connection.sendall(request(1))
        assert b"idempotent-replayed" not in await asyncio.to_thread(read_answer, connection)
    assert len(provider.paid) == 2


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_the_sdk_leaves_nothing_behind_with_a_client_for_each_call(
    gateway: Running, provider: Server, state: Path, size: int
) -> None:
    provider.posts = [image(size)]
    for _ in range(4):
        async with openai.AsyncOpenAI(api_key=MASTER, base_url=f"{gateway.url}/v1") as client:
            assert (await client.images.generate(model="sd3", prompt="p")).data
    assert await count_stored(gateway) == 0
    assert not (state / "outcomes").exists()


async def test_the_next_request_on_its_connection_frees_an_answer(gateway: Running) -> None:
    with connected(gateway) as connection:
        for _ in range(20):
            connection.sendall(request())
            await asyncio.to_thread(read_answer, connection)
            assert len(gateway.gateway._idempotency._deliveries) <= 1
            assert len(calls_of(gateway.gateway._idempotency)._calls) <= 1
        assert await count_stored(gateway) == 0


def _closes(connection: socket.socket) -> None:
    connection.recv(1, socket.MSG_PEEK)
    connection.close()


def _ends_its_half_then_closes(connection: socket.socket) -> None:
    connection.recv(1, socket.MSG_PEEK)
    connection.shutdown(socket.SHUT_WR)
    time.sleep(0.01)  # as long as an SDK's loop may take
    connection.close()


def _reads_a_part(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.close()


def _left_before(connection: socket.socket) -> None:
    connection.close()


UNREAD: dict[str, Callable[[socket.socket], None]] = {
    "closes": _closes,
    "ends its half, then closes": _ends_its_half_then_closes,
    "reads a part": _reads_a_part,
    "left before": _left_before,
}


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("how", UNREAD)
async def test_an_answer_that_was_not_read_is_the_retrys(
    gateway: Running, provider: Server, monkeypatch: pytest.MonkeyPatch, how: str, size: int
) -> None:
    monkeypatch.setattr(delivery_module, "RESET_SECONDS", 60)  # a busy machine may be late with the reset
    provider.posts = [image(size, 0.1 if how == "left before" else 0)]
    connection = connected(gateway)
    connection.sendall(request())
    await until(lambda: bool(provider.requests))
    await asyncio.to_thread(UNREAD[how], connection)
    with connected(gateway) as retry:  # comes at once, while it may not be known yet what became of the first
        retry.sendall(request(1))
        answer = await asyncio.to_thread(read_answer, retry)
    assert b"idempotent-replayed: true" in answer
    assert len(provider.paid) == 1


async def test_a_caller_who_stays_and_does_not_read_has_not_read(
    gateway: Running, provider: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "STALL_SECONDS", 0.5)
    provider.posts = [image(UNREAD_BYTES)]
    with connected(gateway) as silent, connected(gateway) as retry:
        silent.sendall(request())
        await asyncio.to_thread(silent.recv, 1, socket.MSG_PEEK)
        await until(lambda: bool(gateway.gateway._idempotency._deliveries))
        await asyncio.sleep(delivery_module.LINGER_SECONDS)
        retry.sendall(request(1))
        assert b"idempotent-replayed: true" in await asyncio.to_thread(read_answer, retry)
    assert len(provider.paid) == 1


async def test_a_caller_whose_time_out_was_about_to_end_may_have_dropped_it(gateway: Running, provider: Server) -> None:
    """Its event loop may have read what came in the moment of the time-out, so that it closes without a reset."""
    provider.posts = [image(SMALL, 0.5)]
    with connected(gateway) as connection:
        connection.sendall(request(0, "x-stainless-read-timeout: 0.5"))
        await asyncio.to_thread(read_answer, connection)
    with connected(gateway) as retry:
        retry.sendall(request(1, "x-stainless-read-timeout: 0.5"))
        assert b"idempotent-replayed: true" in await asyncio.to_thread(read_answer, retry)
    assert len(provider.paid) == 1


async def test_an_sdks_socket_that_is_closed_unread_is_seen(gateway: Running, provider: Server) -> None:
    """OpenAI's asynchronous SDK closes its sockets in this way: it ends its half first."""
    stream = await anyio.connect_tcp("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    transport = stream._transport  # type: ignore[attr-defined]
    await stream.send(request())
    transport.pause_reading()
    await until(lambda: bool(gateway.gateway._idempotency._deliveries))
    await stream.aclose()
    assert await count_stored(gateway) == 1


async def test_bytes_of_answers_that_may_not_be_read_count(gateway: Running, provider: Server) -> None:
    provider.posts = [image(UNREAD_BYTES)]
    flow = gateway.gateway._app.memory
    with connected(gateway) as connection:
        connection.sendall(request())
        await asyncio.to_thread(connection.recv, 1, socket.MSG_PEEK)
        await until(lambda: bool(gateway.gateway._idempotency._deliveries))
        assert flow.used_bytes == UNREAD_BYTES
        await asyncio.to_thread(read_answer, connection)
    assert await count_stored(gateway) == 0


async def test_answers_that_are_followed_are_bounded(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "MAX_TRACKED_DELIVERIES", 2)
    connections = [connected(gateway) for _ in range(8)]
    for connection in connections:
        connection.sendall(request())
    for connection in connections:
        await asyncio.to_thread(read_answer, connection)
        assert len(gateway.gateway._idempotency._deliveries) <= 2
    for connection in connections:
        connection.close()
    await count_stored(gateway)


async def test_outcomes_are_stored_in_groups(gateway: Running, provider: Server) -> None:
    data = database(gateway)
    disk = asyncio.Event()
    commits: list[str] = []
    transact = data.transact

    def counted(work: Any, *, durable: bool = False) -> Any:
        commits.append("durable" if durable else "")
        return transact(work, durable=durable)

    data.transact = counted  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    busy = loop.create_task(data._run(lambda: asyncio.run_coroutine_threadsafe(disk.wait(), loop).result()))
    connections = [connected(gateway) for _ in range(20)]
    for connection in connections:
        connection.sendall(request())
        await asyncio.to_thread(connection.recv, 1, socket.MSG_PEEK)
    for connection in connections:
        connection.close()
    await until(lambda: len(gateway.gateway._idempotency._writing) == 20)
    disk.set()
    await busy
    assert await count_stored(gateway) == 20
    assert commits.count("durable") <= 3


async def test_an_answer_that_was_not_read_is_kept_when_the_gateway_ends(
    start: Start, gateway: Running, provider: Server
) -> None:
    provider.posts = [image(UNREAD_BYTES)]
    with connected(gateway) as connection:
        connection.sendall(request())
        await until(lambda: bool(gateway.gateway._idempotency._deliveries))
        assert await asyncio.wait_for(gateway.gateway.drain(), 60)
        await gateway.gateway.__aexit__(None, None, None)
    again = await start(config(provider.url))
    with connected(again) as retry:
        retry.sendall(request(1))
        assert b"idempotent-replayed: true" in await asyncio.to_thread(read_answer, retry)
    assert len(provider.paid) == 1
