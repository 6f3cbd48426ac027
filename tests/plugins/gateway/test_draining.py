"""A gateway that is stopping takes no paid work, says so to balancers, and ends the connections it answers."""

from __future__ import annotations

import asyncio

from impasto_plugins.emulator import Emulator

from .conftest import Running
from .raw import CALL, GET, HEADERS, JSON, LENGTH, POST, Connection, until


async def test_a_stopping_gateway_takes_no_paid_work_and_finishes_what_runs(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("delay", seconds=1, times=1)
    call = POST + HEADERS + JSON + LENGTH + b"\r\n" + CALL
    async with Connection(gateway.url) as running, Connection(gateway.url) as paid, Connection(gateway.url) as ready:
        for connection in (paid, ready):  # its connections are open when it begins to stop
            connection.writer.write(GET + HEADERS + b"\r\n")
            assert b" 200 OK" in await connection.answer()
        running.writer.write(call)
        await until(lambda: len(impasto_emulator.requests) == 1)
        draining = asyncio.create_task(gateway.gateway.drain())
        await until(lambda: gateway.gateway._app.is_draining)
        paid.writer.write(call)
        refused = await paid.answer()
        assert b" 503 " in refused.partition(b"\r\n")[0]
        assert b'"code": "stopping"' in refused
        assert b"x-should-retry: true" in refused.lower()
        assert b"connection: close" in refused.lower()
        ready.writer.write(b"GET /health/readiness HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await ready.answer()
        assert b" 503 " in answer.partition(b"\r\n")[0]
        assert b'{"status": "stopping"}' in answer
        whole = await running.answer()
        assert b" 200 OK" in whole
        assert b"connection: close" in whole.lower()
        assert await asyncio.wait_for(draining, 60)
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 1
