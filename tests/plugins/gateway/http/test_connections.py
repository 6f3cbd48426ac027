"""Connections that take too long, are too many, or never read: ended in time, while good traffic goes on."""

from __future__ import annotations

import asyncio
import re
import resource
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.http.spool import UploadSpool
from tests.plugins.gateway.conftest import Running, Start, config
from tests.plugins.gateway.raw import CALL, CHUNKED, GET, HEADERS, JSON, LENGTH, POST, Connection, chunks, send, until

pytestmark = pytest.mark.waits

LIMITS = {
    "header_seconds": 0.4,
    "body_seconds": 1.2,
    "body_idle_seconds": 0.4,
    "write_seconds": 0.4,
    "idle_seconds": 0.8,
}
LONG = 60
"""Seconds after which a test gives up; nothing here needs a tenth of it."""


@pytest.fixture(autouse=True)
def slow_readers_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto_plugins.gateway.http.connection.LINGER_SECONDS", LONG)


async def limited(start: Start, emulator: Emulator, **limits: float) -> Running:
    general = "".join(f"  {name}: {value}\n" for name, value in {**LIMITS, **limits}.items())
    return await start(config(emulator.url, general=general))


async def dribble(connection: Connection, data: AsyncIterator[bytes]) -> None:
    async for piece in data:
        connection.writer.write(piece)
        await asyncio.sleep(0.05)


async def endless(piece: bytes) -> AsyncIterator[bytes]:
    while True:
        yield piece


@pytest.mark.parametrize("sent", [GET, GET + HEADERS, b"G", POST + HEADERS + JSON + LENGTH], ids=range(4))
async def test_a_head_that_does_not_end(start: Start, impasto_emulator: Emulator, sent: bytes) -> None:
    gateway = await limited(start, impasto_emulator)
    answer = await send(gateway.url, sent, LONG)
    assert (answer.status, answer.error["code"], answer.closed) == (408, "request_timeout", True)
    assert "0.4 s" in (answer.error["message"] or "")


@pytest.mark.parametrize("piece", [b"X: a\r\n", b"\r\n", b"a"], ids=["lines", "empty lines", "letters"])
async def test_a_head_that_comes_byte_by_byte(start: Start, impasto_emulator: Emulator, piece: bytes) -> None:
    gateway = await limited(start, impasto_emulator)
    async with Connection(gateway.url) as connection:
        connection.writer.write(piece if piece == b"\r\n" else GET)
        dribbling = asyncio.create_task(dribble(connection, endless(piece)))
        answer = await connection.rest(LONG)
        dribbling.cancel()
    assert answer.status == 408


@pytest.mark.parametrize("before", [b"", GET + HEADERS + b"\r\n"], ids=["the first", "the second"])
async def test_a_connection_that_says_nothing(start: Start, impasto_emulator: Emulator, before: bytes) -> None:
    gateway = await limited(start, impasto_emulator)
    async with Connection(gateway.url) as connection:
        if before:
            connection.writer.write(before)
            assert b" 200 OK" in await connection.answer()
        answer = await connection.rest(LONG)
    assert (answer.data, answer.closed) == (b"", True)


async def test_the_second_head_has_a_time_of_its_own(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator, idle_seconds=LONG)
    async with Connection(gateway.url) as connection:
        connection.writer.write(GET + HEADERS + b"\r\n")
        await connection.answer()
        await asyncio.sleep(0.6)  # longer than a head may take: it has not begun
        connection.writer.write(GET)
        await asyncio.sleep(0)
        connection.writer.write(HEADERS + b"\r\n")
        assert b" 200 OK" in await connection.answer()
        connection.writer.write(GET)
        assert (await connection.rest(LONG)).status == 408


@pytest.mark.parametrize("framing", [LENGTH, CHUNKED], ids=["length", "chunks"])
async def test_a_body_that_stops(start: Start, impasto_emulator: Emulator, framing: bytes) -> None:
    gateway = await limited(start, impasto_emulator)
    answer = await send(gateway.url, POST + HEADERS + JSON + framing + b"\r\n" + b"1\r\n{", LONG)
    assert (answer.status, answer.error["code"], answer.closed) == (408, "request_timeout", True)
    assert "no byte of the body arrived for 0.4 s" in (answer.error["message"] or "")
    assert gateway.gateway._app.running_count == gateway.gateway._app.memory.used_bytes == 0
    assert not impasto_emulator.requests


async def test_a_body_that_comes_byte_by_byte(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator, body_idle_seconds=LONG)
    async with Connection(gateway.url) as connection:
        connection.writer.write(POST + HEADERS + JSON + b"Content-Length: 100000\r\n\r\n")
        dribbling = asyncio.create_task(dribble(connection, endless(b" ")))
        answer = await connection.rest(LONG)
        dribbling.cancel()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert "within 1.2 s" in (answer.error["message"] or "")


async def test_a_call_may_take_longer_than_any_of_these(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator)
    impasto_emulator.fault("delay", seconds=1.5)
    assert (await gateway.generate()).status == 200


async def test_the_limits_are_those_of_the_configuration_that_was_read_last(
    start: Start, impasto_emulator: Emulator
) -> None:
    from impasto_plugins.gateway.config.loader import parse

    gateway = await limited(start, impasto_emulator, header_seconds=LONG)
    general = "  header_seconds: 0.2\n  idle_seconds: 60\n"
    await gateway.gateway.reload(parse(config(impasto_emulator.url, general=general).encode()))
    began = time.monotonic()
    assert (await send(gateway.url, GET, LONG)).status == 408
    assert time.monotonic() - began < LONG / 2


async def test_a_reader_that_never_reads_is_not_waited_for(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was to get is let go, and what was paid for is not what failed."""
    gateway = await limited(start, impasto_emulator, write_seconds=1)
    impasto_emulator.fault("huge", bytes=6 << 20)
    call = POST + HEADERS + JSON + LENGTH + b"\r\n" + CALL
    app = gateway.gateway._app
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(gateway.url)) for _ in range(8)]
        for connection in connections:
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
            connection.writer.write(call)
        server, most = gateway.gateway._server, 0
        while len(impasto_emulator.charges) < len(connections) or server.open:
            waiting = [each._wire.get_write_buffer_size() for each in server.open if each._wire is not None]
            most = max(most, *waiting, 0)
            await asyncio.sleep(0.02)
        assert 0 < most < 1 << 20  # of 8 MiB each
        await gateway.idle()
    assert app.memory.used_bytes == 0
    assert len(impasto_emulator.charges) == 8


async def test_more_connections_than_there_may_be(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator, max_connections=3, header_seconds=LONG, idle_seconds=LONG)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(gateway.url)) for _ in range(3)]
        await until(lambda: len(gateway.gateway._server.open) == 3)
        over = await asyncio.gather(*(send(gateway.url, GET + HEADERS + b"\r\n", LONG) for _ in range(5)))
        assert [(each.status, each.closed, each.reset) for each in over] == [(503, True, False)] * 5
        assert over[0].error["code"] == "overloaded"
        assert b"\r\nretry-after: 1\r\n" in over[0].head
        assert b"\r\nx-should-retry: true" in over[0].head
        for connection in connections:
            connection.writer.write(GET + HEADERS + b"\r\n")
            assert b" 200 OK" in await connection.answer()
    await until(lambda: not gateway.gateway._server.open)
    assert (await send(gateway.url, GET + HEADERS + b"Connection: close\r\n\r\n")).status == 200


async def test_thousands_of_half_requests_keep_nobody_out(start: Start, impasto_emulator: Emulator) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(2000, (hard - 300) // 4)  # both ends are this process's, and half are the gateway's
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * many + 300)), hard))
    gateway = await limited(start, impasto_emulator, header_seconds=3, body_idle_seconds=3, idle_seconds=LONG)
    halves = (GET, POST + HEADERS + JSON + LENGTH + b"\r\n{", b"", POST + HEADERS)
    connections: list[Connection] = []
    async with AsyncExitStack() as stack:
        for number in range(many):
            connections.append(connection := await stack.enter_async_context(Connection(gateway.url)))
            connection.writer.write(halves[number % len(halves)])
        answers = [await gateway.generate() for _ in range(10)]
        assert [answer.status for answer in answers] == [200] * 10
        result = await asyncio.gather(*(connection.rest(LONG) for connection in connections))
    assert all(each.closed for each in result)
    assert {each.status for each in result[0::4]} == {each.status for each in result[1::4]} == {408}
    assert {each.status for each in result[2::4]} == {0}
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await gateway.generate()).status == 200
    assert len(impasto_emulator.charges) == 11


async def test_a_head_without_end_is_refused_before_it_is_large(gateway: Running) -> None:
    async with Connection(gateway.url) as connection:
        connection.writer.write(GET)
        for number in range(100):
            connection.writer.write(b"X-%d: %s\r\n" % (number, b"a" * 1000))
        answer = await connection.rest(LONG)
    assert (answer.status, answer.error["code"], answer.reset) == (400, "invalid_http", False)


async def test_requests_one_behind_the_other(gateway: Running) -> None:
    """Sent at once, they are answered in their order; the last is cut off and ends the connection in time."""
    call = POST + HEADERS + JSON + LENGTH + b"\r\n" + CALL
    async with Connection(gateway.url) as connection:
        connection.writer.write(GET + HEADERS + b"\r\n" + call + GET + HEADERS + b"Connection: close\r\n\r\n")
        assert b'"object": "list"' in await connection.answer()
        assert b'{"created":' in await connection.answer()
        last = await connection.rest(LONG)
    assert (last.status, last.closed) == (200, True)


HALF_CLOSED = {
    "a list": (GET + HEADERS + b"\r\n", [200]),
    "a call": (POST + HEADERS + JSON + LENGTH + b"\r\n" + CALL, [200]),
    "two calls": ((POST + HEADERS + JSON + LENGTH + b"\r\n" + CALL) * 2, [200, 200]),
    "a stream": (POST + HEADERS + JSON + b"Content-Length: 42\r\n\r\n" + CALL[:-1] + b',"stream":true}', [200]),
    "half of a body": (POST + HEADERS + JSON + LENGTH + b"\r\n" + CALL[:9], [400]),
    "chunks without an end": (POST + HEADERS + JSON + CHUNKED + b"\r\n" + chunks(CALL)[:-5], [400]),
    "half of a head": (GET + HEADERS, []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("pause", [0, 0.1], ids=["at once", "later"])
@pytest.mark.parametrize("name", HALF_CLOSED)
async def test_a_half_closed_connection_is_answered(
    standing: Running, impasto_emulator: Emulator, name: str, pause: float
) -> None:
    """As programs do that close their half behind a request: what they pay for is delivered."""
    sent, statuses = HALF_CLOSED[name]
    impasto_emulator.fault("delay", seconds=0.2)
    async with Connection(standing.url) as connection:
        connection.writer.write(sent)
        await asyncio.sleep(pause)
        connection.writer.write_eof()
        answer = await connection.rest()
    assert (answer.closed, answer.reset) == (True, False)
    assert [int(each) for each in re.findall(rb"HTTP/1.1 (\d+) ", answer.data)] == statuses
    paid = statuses.count(200) if b"POST" in sent else 0
    assert len(impasto_emulator.charges) == paid == answer.data.count(b"iVBORw0KGgo")


async def test_a_half_closed_connection_is_not_waited_for(gateway: Running) -> None:
    """Where a request was refused there is no rest of it to come."""
    for sent in (GET + HEADERS * 2, POST + HEADERS + JSON + CHUNKED + b"\r\nzz\r\n", POST + HEADERS + JSON + LENGTH):
        async with Connection(gateway.url) as connection:
            connection.writer.write(sent + b"\r\n")
            connection.writer.write_eof()
            assert (await connection.rest()).status == 400
        async with asyncio.timeout(LONG / 3):
            await until(lambda: not gateway.gateway._server.open)


async def test_an_upload_that_the_gateway_holds_back_is_not_silent(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk, or more uploads than memory takes: the sender waits because it is not read."""
    gateway = await limited(start, impasto_emulator, body_seconds=LONG, header_seconds=LONG)
    write, release = UploadSpool.write, asyncio.Event()

    async def slow(self: UploadSpool, data: bytes | memoryview) -> None:
        if not release.is_set():
            await asyncio.sleep(LIMITS["body_idle_seconds"] * 4)
            release.set()
        await write(self, data)

    monkeypatch.setattr(UploadSpool, "write", slow)
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    fields = b"".join(
        b'\r\n--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b' % each
        for each in ((b"model", b"upscale"), (b"prompt", b"p"))
    )
    body = head + b"x" * (5 << 20) + fields + b"\r\n--b--\r\n"
    kind = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n" % len(body)
    request = b"POST /v1/images/edits HTTP/1.1\r\n" + HEADERS + kind + b"Connection: close\r\n\r\n" + body
    answer = await send(gateway.url, request, LONG)
    assert release.is_set()
    assert (answer.status, answer.error["code"]) == (400, "invalid_image")  # all of it was read


async def test_half_of_the_descriptors_are_left_for_providers_and_files(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await limited(start, impasto_emulator, header_seconds=LONG, idle_seconds=LONG)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(Connection(gateway.url))
        await until(lambda: len(gateway.gateway._server.open) == 4)
        assert (await send(gateway.url, GET + HEADERS + b"\r\n", LONG)).status == 503
    await until(lambda: not gateway.gateway._server.open)
    assert (await send(gateway.url, GET + HEADERS + b"Connection: close\r\n\r\n", LONG)).status == 200


async def test_connections_beyond_the_cap_are_bounded_too(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that say nothing are kept only to be answered, and no more of them than may be."""
    monkeypatch.setattr("impasto_plugins.gateway.http.connection.MAX_REJECTED_CONNECTIONS", 3)
    gateway = await limited(start, impasto_emulator, max_connections=1, header_seconds=LONG, idle_seconds=LONG)
    server = gateway.gateway._server
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Connection(gateway.url))
        await until(lambda: len(server.open) == 1)
        silent = [await stack.enter_async_context(Connection(gateway.url)) for _ in range(10)]
        tasks = [asyncio.create_task(each.rest(LONG)) for each in silent]
        await until(lambda: sum(each.done() for each in tasks) == 7)
        assert (len(server.open), len(server.rejected)) == (1, 3)
        assert {each.result().data for each in tasks if each.done()} == {b""}
        stored = next(each for each, end in zip(silent, tasks, strict=True) if not end.done())
        stored.writer.write(GET + HEADERS + b"\r\n")

        await until(lambda: sum(each.done() for each in tasks) == 8)
        assert b" 503 " in b"".join(each.result().data for each in tasks if each.done())
        for each in tasks:
            each.cancel()
