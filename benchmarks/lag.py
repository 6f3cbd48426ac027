"""How long the event loop is held up while large pictures come in, over a hand-written loop that takes JSON."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from impasto import Client

from .call import GIVEN, MODEL, PATH
from .floors import loop
from .measure import Ratio, compared, in_pairs
from .server import LARGE, running

CALLS = 64
TICK = 0.001

ROUNDS = 7


async def run(rounds: int) -> list[Ratio]:
    """64 pictures of 1.5 MB at once: the longest time that a task which only sleeps had to wait beyond its sleep."""
    with running(LARGE) as url:
        async with Client(api_key=loop.KEY, api_base=url) as client, loop.session() as session:

            async def ours() -> object:
                return await client.run(MODEL, **GIVEN)

            async def as_bytes() -> object:
                return await loop.post(session, url + PATH, GIVEN)

            async def as_json() -> object:
                return await loop.post(session, url + PATH, GIVEN, accept="application/json")

            return [
                compared(f"longest lag, {CALLS} x 1.5 MB, floor asks for {what}", pairs, unit="ms")
                for what, floor in (("bytes", as_bytes), ("JSON", as_json))
                if (pairs := await in_pairs(longest_lag(ours), longest_lag(floor), rounds))
            ]


def longest_lag(
    call: Callable[[], Awaitable[object]], clock: Callable[[], float] = time.perf_counter
) -> Callable[[], Awaitable[float]]:
    async def measured() -> float:
        lags: list[float] = []

        async def watch() -> None:
            while True:
                start = clock()
                await asyncio.sleep(TICK)
                lags.append(clock() - start - TICK)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(call() for _ in range(CALLS)))
        watching.cancel()
        # the three longest: a single one may be another process's turn on this core
        return statistics.median(sorted(lags)[-3:]) * 1e3

    return measured
