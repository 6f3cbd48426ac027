"""Many calls that wait for their answers: their memory, how soon all are through, and whether they keep their order.

The floor is as many of a hand-written loop. Each measurement is a client process of its own:
``python -m benchmarks.inflight ours|floor URL N [--trace]``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import TypedDict

import aiohttp
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own

from impasto import Client

from .call import GIVEN, MODEL, PATH
from .floors import loop
from .measure import Ratio, compared
from .server import allow_many_files, running

NUMBERS = (1, 10, 100, 1_000, 10_000)
TRACED = 2_000
TURNS = 64
"""How many calls may be in flight where they are looked at for their order."""

ROUNDS = 3


class Sample(TypedDict):
    """What one client process saw: while all its calls were in flight, and from their release until all were through.

    ``late``: by how many places the latest call ended behind its turn, where only some may be in flight.
    """

    bytes_per_call: float
    threads: int
    seconds: float
    late: int


async def run(rounds: int) -> list[Ratio]:
    """Memory by the system's count (RSS), and by Python's own (tracemalloc, which sees no memory of C libraries)."""
    rounds = max(rounds, 2)
    samples = {calls: await _samples(calls, rounds) for calls in NUMBERS}
    traced = await _samples(TRACED, rounds, "--trace")
    ordered = await _samples(1_000, rounds, "--turns", str(TURNS))
    many = [
        compared(f"memory per call, {calls:,} in flight, RSS", _of(pairs, _kib), unit="KiB", most=1.5)
        for calls, pairs in samples.items()
        if calls >= 1_000  # of fewer it drowns in what the process takes anyway
    ]
    return [
        *many,
        compared(f"memory per call, {TRACED:,} in flight, tracemalloc", _of(traced, _kib), unit="KiB"),
        *(
            compared(f"all answered at once, {calls:,} in flight", _of(pairs, _each_us(calls)), unit="µs a call")
            for calls, pairs in samples.items()
        ),
        compared(f"places behind its turn, 1,000 calls, {TURNS} at once", _of(ordered, _late), unit="places"),
    ]


Pairs = list[tuple[Sample, Sample]]


async def _samples(calls: int, rounds: int, *more: str) -> Pairs:
    """Of ours and of the floor, one then the other and the other way round in turn."""
    pairs: Pairs = []
    for index in range(rounds):
        order = ("ours", "floor") if index % 2 else ("floor", "ours")
        found = {which: await asyncio.to_thread(_sample, which, calls, more) for which in order}
        for which, sample in found.items():
            assert sample["threads"] < 10, f"{which}: {sample['threads']} threads"
        pairs.append((found["ours"], found["floor"]))
    return pairs


def _of(pairs: Pairs, figure: Callable[[Sample], float]) -> list[tuple[float, float]]:
    return [(figure(ours), figure(floor)) for ours, floor in pairs]


def _kib(sample: Sample) -> float:
    return sample["bytes_per_call"] / 1024


def _late(sample: Sample) -> float:
    return max(sample["late"], 1)


def _each_us(calls: int) -> Callable[[Sample], float]:
    return lambda sample: sample["seconds"] / calls * 1e6


def _sample(which: str, calls: int, more: tuple[str, ...]) -> Sample:
    with running(hold="--turns" not in more) as url:
        command = [sys.executable, "-m", __name__, which, url, str(calls), *more]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    sample: Sample = json.loads(done.stdout)
    return sample


async def _in_flight(which: str, url: str, calls: int, turns: int | None, trace: bool) -> Sample:
    client = Client(api_key=loop.KEY, api_base=url, connect_timeout=120.0, max_concurrency=turns or calls)
    by_hand = asyncio.Semaphore(turns or calls)
    async with client, loop.session() as session, loop.session() as control:

        async def ours() -> object:
            return await client.run(MODEL, **GIVEN)

        async def floor() -> object:
            async with by_hand:
                return await loop.post(session, url + PATH, GIVEN)

        call = ours if which == "ours" else floor
        if turns is not None:
            await call()
            return await _in_order(call, calls)
        await _hold(call, 1, control, url)  # the first one imports, connects and fills caches
        if trace:
            tracemalloc.start()
        used = _used(trace)
        return await _hold(call, calls, control, url, lambda: (_used(trace) - used) / calls)


async def _in_order(call: Callable[[], Awaitable[object]], calls: int) -> Sample:
    ended: list[int] = []

    async def one(number: int) -> None:
        await call()
        ended.append(number)

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(calls)))
    late = max(place - number for place, number in enumerate(ended))
    seconds = time.perf_counter() - start
    return Sample(bytes_per_call=0, threads=threading.active_count(), seconds=seconds, late=late)


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
        held, threads = measure(), threading.active_count()
        start = time.perf_counter()
        await _asked(control, f"{url}/release")
    return Sample(bytes_per_call=held, threads=threads, seconds=time.perf_counter() - start, late=0)


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
    parser.add_argument("--turns", type=int, help="how many may be in flight; without it all are")
    parser.add_argument("--trace", action="store_true")
    asked = parser.parse_args()
    allow_many_files()
    print(json.dumps(asyncio.run(_in_flight(asked.which, asked.url, asked.calls, asked.turns, asked.trace))))
