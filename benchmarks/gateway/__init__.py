"""``impasto serve`` beside a relay written by hand, both in front of nginx, both asked by wrk, in turn.

A master key and no Idempotency-Key, but where a line says so. wrk and nginx are Debian packages of those names.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from benchmarks.measure import Ratio, compared, in_pairs
from benchmarks.pictures import picture
from benchmarks.server import allow_many_files

from . import crowd
from .load import KEY, Ask, asked, edit, generation
from .servers import Process, gateway, provider, relay

SMALL, LARGE, UPLOAD = 12_000, 1_500_000, 5_000_000
CONNECTIONS = 32
UPLOADS = 8
SECONDS = 3
NAMED = "sk-benchmark-named-key-of-a-studio"
MB = 1e6

ROUNDS = 7

_STUDIO = hashlib.sha256(NAMED.encode()).hexdigest()
_LIMITS = f"keys: [{{name: studio, sha256: {_STUDIO}, images_per_day: 100000000, usd_per_month: 100000000}}]\n"

Measured = Callable[[], Awaitable[float]]


async def run(rounds: int) -> list[Ratio]:
    """All of it; nothing is measured where wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("the gateway's benchmark needs wrk: apt-get install wrk nginx-light")
    allow_many_files()  # for the servers too, which take it over
    with provider(SMALL, LARGE) as urls:
        return [*await _rates(urls, rounds), *await _workers(urls, rounds), *await _memory(urls, max(rounds // 2, 2))]


def rate(
    server: Process, ask: Ask, *, connections: int = CONNECTIONS, key: str = KEY, seconds: int = SECONDS
) -> Measured:
    """Answers a second."""

    async def measured() -> float:
        return (await asyncio.to_thread(asked, server.url, ask, connections=connections, seconds=seconds, key=key)).rate

    return measured


async def _rates(urls: dict[int, str], rounds: int) -> list[Ratio]:
    unit = "answers/s"
    with ExitStack() as stack:
        ours = stack.enter_context(gateway(urls, more=_LIMITS))
        small, large = (stack.enter_context(relay(urls[size])) for size in (SMALL, LARGE))
        text, picture_up = generation(str(SMALL)), edit(f"edit-{SMALL}", picture(UPLOAD))
        big, url, stream = (
            generation(str(LARGE), **more) for more in ({}, {"response_format": "url"}, {"stream": True})
        )
        plain, bigs = rate(ours, text), rate(ours, big)

        async def ratio(name: str, first: Measured, second: Measured, least: float | None = None) -> Ratio:
            return compared(name, await in_pairs(first, second, rounds), unit=unit, least=least)

        edits = [rate(each, picture_up, connections=UPLOADS) for each in (ours, small)]
        return [
            await ratio("12 KB picture, over the relay", plain, rate(small, text), 0.8),
            await ratio("1.5 MB picture, over the relay", bigs, rate(large, big), 1.2),
            await ratio("5 MB upload, over the relay", edits[0], edits[1]),
            await ratio("12 KB picture, a named key's budget over the master key", rate(ours, text, key=NAMED), plain),
            await ratio("1.5 MB picture as a URL, over b64_json", rate(ours, url), bigs),
            await ratio("1.5 MB picture as an event, over b64_json", rate(ours, stream), bigs),
        ]


async def _workers(urls: dict[int, str], rounds: int) -> list[Ratio]:
    with gateway(urls, workers=2) as ours, relay(urls[SMALL], workers=2) as theirs:
        text = generation(str(SMALL))
        pairs = await in_pairs(rate(ours, text), rate(theirs, text), rounds)
        return [compared("12 KB picture, 2 workers each, over the relay", pairs, unit="answers/s")]


async def _memory(urls: dict[int, str], rounds: int) -> list[Ratio]:
    """Peak with large pictures, idle, start; and good traffic while thousands only hold connections."""
    peaks, idles, starts, crowds = [], [], [], []
    for _ in range(rounds):
        with gateway(urls) as ours, relay(urls[LARGE]) as theirs:
            starts.append((ours.seconds, theirs.seconds))
            idles.append((ours.memory() / MB, theirs.memory() / MB))
            for server in (ours, theirs):
                await rate(server, generation(str(LARGE)))()
            peaks.append((ours.peak() / MB, theirs.peak() / MB))
        with gateway(urls, workers=2) as ours:  # one may not have as many files
            crowds.append(await crowd.measured(ours, generation(str(SMALL))))
    return [
        compared("peak memory, 1.5 MB pictures, over the relay", peaks, unit="MB", most=0.76),
        compared("idle memory, over the relay", idles, unit="MB"),
        compared("time until it listens, over the relay", starts, unit="s"),
        compared("p99 of good traffic beside a crowd, over without", crowds, unit="ms", most=2),
    ]
