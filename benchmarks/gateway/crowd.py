"""Thousands who hold connections and ask nothing, or begin to ask and never end: what becomes of good traffic."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress

from .load import Ask, asked
from .servers import Process

IDLE = 10_000
HALF = 2_000
SECONDS = 3
GOOD = 4

_HALF = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: applic"


async def measured(server: Process, ask: Ask) -> tuple[float, float]:
    """The p99 of good traffic with the crowd and without, in milliseconds."""
    port = int(server.url.rpartition(":")[2])
    without = await _p99(server, ask)
    writers: list[asyncio.StreamWriter] = []
    numbers = itertools.count()

    async def join() -> None:
        while (number := next(numbers)) < IDLE + HALF:
            with suppress(OSError):
                # Addresses of their own: one has ports for fewer than that.
                local = (f"127.0.0.{2 + number % 8}", 0)
                _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=local)
                if number >= IDLE:
                    writer.write(_HALF)
                writers.append(writer)

    await asyncio.gather(*(join() for _ in range(50)))
    if len(writers) < (IDLE + HALF) * 0.9:
        print(f"only {len(writers):,} connections were let in", flush=True)
    try:
        return await _p99(server, ask), without
    finally:
        for writer in writers:
            writer.transport.abort()


async def _p99(server: Process, ask: Ask) -> float:
    return (await asyncio.to_thread(asked, server.url, ask, connections=GOOD, seconds=SECONDS)).p99 * 1e3
