"""Memory of a call in flight: many calls, each waiting for its answer, over as many of a hand-written loop.

Each measurement is a client process of its own: ``python -m benchmarks.inflight ours|floor URL N [--trace]``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import TypedDict

import aiohttp
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own

from impasto import Client

from .call import GIVEN, MODEL, PATH
from .floors import loop
from .measure import Ratio, compared, in_pairs
from .server import allow_many_files, running

CALLS = 10_000
TRACED = 2_000

ROUNDS = 3


class Sample(TypedDict):
    """What one client process saw while all its calls were in flight."""

    bytes_per_call: float
    threads: int


async def run(rounds: int) -> list[Ratio]:
    """By the system's count (RSS), and by Python's own (tracemalloc, which sees no memory of C libraries)."""
    return [
        await _compared(f"memory per call, {CALLS:,} in flight, RSS", CALLS, rounds, most=1.5),
        await _compared(f"memory per call, {TRACED:,} in flight, tracemalloc", TRACED, rounds, "--trace"),
    ]


async def _compared(name: str, calls: int, rounds: int, *more: str, most: float | None = None) -> Ratio:
    def sampled(which: str) -> Callable[[], Awaitable[float]]:
        async def measured() -> float:
            sample = await asyncio.to_thread(_sample, which, calls, more)
            assert sample["threads"] < 10, f"{which}: {sample['threads']} threads"
            return sample["bytes_per_call"] / 1024

        return measured

    pairs = await in_pairs(sampled("ours"), sampled("floor"), max(rounds, 2), warm=False)
    return compared(name, pairs, unit="KiB", most=most)


def _sample(which: str, calls: int, more: tuple[str, ...]) -> Sample:
    with running(hold=True) as url:
        command = [sys.executable, "-m", __name__, which, url, str(calls), *more]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    sample: Sample = json.loads(done.stdout)
    return sample


async def _in_flight(which: str, url: str, calls: int, trace: bool) -> Sample:
    client = Client(api_key=loop.KEY, api_base=url, connect_timeout=120.0, max_concurrency=calls)
    async with client, loop.session() as session, loop.session() as control:

        async def ours() -> object:
            return await client.run(MODEL, **GIVEN)

        async def floor() -> object:
            return await loop.post(session, url + PATH, GIVEN)

        call = ours if which == "ours" else floor
        await _hold(call, 1, control, url)  # the first one imports, connects and fills caches
        if trace:
            tracemalloc.start()
        used = _used(trace)
        return await _hold(call, calls, control, url, lambda: (_used(trace) - used) / calls)


async def _hold(
    call: Callable[[], Awaitable[object]],
    calls: int,
    control: aiohttp.ClientSession,
    url: str,
    measure: Callable[[], float] = lambda: 0.0,
) -> Sample:
    async with asyncio.TaskGroup() as group:
        for _ in range(calls):
            group.create_task(_awaited(call))
        while await _asked(control, f"{url}/waiting") != str(calls):
            await asyncio.sleep(0.2)
        sample = Sample(bytes_per_call=measure(), threads=threading.active_count())
        await _asked(control, f"{url}/release")
    return sample


async def _awaited(call: Callable[[], Awaitable[object]]) -> None:
    await call()


async def _asked(control: aiohttp.ClientSession, url: str) -> str:
    async with control.get(url) as response:
        return await response.text()


def _used(trace: bool) -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0] if trace else int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["ours", "floor"])
    parser.add_argument("url")
    parser.add_argument("calls", type=int)
    parser.add_argument("--trace", action="store_true")
    asked = parser.parse_args()
    allow_many_files()
    print(json.dumps(asyncio.run(_in_flight(asked.which, asked.url, asked.calls, asked.trace))))
