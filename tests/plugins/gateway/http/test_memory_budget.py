"""Bytes in and out: callers that leave, bodies that break off, answers made in pieces."""

import asyncio
import base64
import json
import os

import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.http.memory_budget import MemoryBudget, MemoryReservation
from tests.images import drawn
from tests.plugins.gateway.conftest import MASTER, Running, Start

PICTURE = drawn("PNG", size=(128, 128))


async def test_a_caller_who_leaves_does_not_stop_what_is_paid_for(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("delay", seconds=1.5)
    call = asyncio.create_task(gateway.generate(response_format="url"))
    while not impasto_emulator.requests:
        await asyncio.sleep(0.01)
    call.cancel()
    app = gateway.gateway._app
    await asyncio.wait([call])
    assert app.running_count == 1
    await gateway.idle()
    assert impasto_emulator.requests[0].status == 200
    assert app.memory.used_bytes == 0


async def test_a_large_answer_is_whole(gateway: Running, impasto_emulator: Emulator) -> None:
    answer = await gateway.ask(
        "POST",
        "/v1/images/edits",
        json={
            "model": "upscale",
            "prompt": "p",
            "images": [
                {"image_url": "data:image/png;base64," + base64.b64encode(drawn("PNG", size=(1024, 1024))).decode()}
            ],
        },
    )
    data = base64.b64decode(answer.json["data"][0]["b64_json"], validate=True)
    assert data.endswith(b"IEND\xaeB`\x82")
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert gateway.gateway._app.memory.used_bytes == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_leaves_while_it_is_answered(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(
        "impasto_plugins.gateway.api.responses._MAX_WHOLE_BYTES", 1000
    )  # written in pieces, as large answers are
    messages: list[str] = []
    monkeypatch.setattr("aiohttp.log.server_logger.exception", lambda text, *_, **__: messages.append(text))
    gateway = await start()
    impasto_emulator.fault("delay", seconds=0.2)
    picture = base64.b64encode(drawn("PNG", size=(1024, 1024))).decode()
    images = [{"image_url": f"data:image/png;base64,{picture}"}]
    body = json.dumps({"model": "upscale", "prompt": "p", "stream": stream, "images": images}).encode()
    head = f"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MASTER}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(head.encode() + body)
    while not impasto_emulator.requests:
        await asyncio.sleep(0.01)
    writer.transport.abort()
    await gateway.idle()
    assert impasto_emulator.requests[0].status == 200
    assert gateway.gateway._app.memory.used_bytes == 0
    assert not messages


@pytest.mark.parametrize("body", [b"5\r\n{", b"zz\r\n", b"-1\r\n", b"1\r\n{}\r\n"])
async def test_a_body_cut_short_or_badly_framed(gateway: Running, impasto_emulator: Emulator, body: bytes) -> None:
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MASTER}\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(head.encode() + body)
    if body == b"5\r\n{":
        await asyncio.sleep(0.1)
        writer.transport.abort()
    else:
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 60)
        writer.close()
    await gateway.idle()
    assert not impasto_emulator.requests


@pytest.mark.parametrize("size", [1, 2, 3, 3 * 2**16 - 1, 3 * 2**16, 3 * 2**16 + 1, 700_001])
async def test_base64_in_pieces_is_base64(size: int) -> None:
    from impasto_plugins.gateway.api.response_body import encode_segments, encoded_length

    data = os.urandom(size)
    parts: list[bytes | memoryview] = [b"'", memoryview(data), b"'"]
    result = b"".join([piece async for piece in encode_segments(parts)])
    assert result == b"'" + base64.b64encode(data) + b"'"
    assert len(result) == encoded_length(parts)


async def test_the_request_beyond_the_limit_gets_more_and_others_wait() -> None:
    budget = MemoryBudget(100)
    with MemoryReservation(budget) as one, MemoryReservation(budget) as other:
        async with asyncio.timeout(10):
            await one.wait_for_paid(150)
            await one.wait_for_paid(150)
        waiting = asyncio.create_task(other.wait_for_paid(50))
        await asyncio.sleep(0.15)
        assert not waiting.done()
        one.resize(0)
        await asyncio.wait_for(waiting, 10)
    assert budget.used_bytes == 0
