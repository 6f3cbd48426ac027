"""``impasto serve`` beside a relay written by hand, both in front of nginx, both asked by wrk, in turn.

A master key and no Idempotency-Key, but where a line says so. wrk and nginx are Debian packages of those names.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from contextlib import ExitStack

from benchmarks.measure import Ratio, compared, in_pairs
from benchmarks.pictures import picture
from benchmarks.server import LARGE, SMALL, allow_many_files

from . import crowd
from .load import CONNECTIONS, SDK, SECONDS, Ask, Measured, asked, direct, edit, generation, rate
from .peers import run as peers
from .servers import Process, gateway, has_nginx, plain_proxy, provider, relay

__all__ = ["ROUNDS", "peers", "run"]

ROUNDS = 7

_UPLOAD, _UPLOAD_SIDE = 5_000_000, 1280
_UPLOADS = 8
_NAMED = "sk-benchmark-named-key-of-a-studio"
_STUDIO = hashlib.sha256(_NAMED.encode()).hexdigest()
_LIMITS = f"keys: [{{name: studio, sha256: {_STUDIO}, images_per_day: 100000000, usd_per_month: 100000000}}]\n"
_RATE = "answers/s"


async def run(rounds: int) -> list[Ratio]:
    """All of it; nothing is measured where wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("the gateway's benchmark needs wrk: apt-get install wrk nginx-light")
    allow_many_files()  # for the servers too, which take it over
    with provider(SMALL, LARGE) as urls:
        return [
            *await _rates(urls, rounds),
            *await _limits(urls, rounds),
            *await _workers(urls, rounds),
            *await _memory(urls, max(rounds // 2, 2)),
        ]


async def _rates(urls: dict[int, str], rounds: int) -> list[Ratio]:
    with ExitStack() as stack:
        ours = stack.enter_context(gateway(urls, more=_LIMITS))
        small, large = (stack.enter_context(relay(urls[size])) for size in (SMALL, LARGE))
        text, upload = generation(str(SMALL)), edit(f"edit-{SMALL}", picture(_UPLOAD, _UPLOAD_SIDE))
        big, url, stream = (
            generation(str(LARGE), **more) for more in ({}, {"response_format": "url"}, {"stream": True})
        )
        plain, named, bigs = rate(ours.url, text), rate(ours.url, text, key=_NAMED), rate(ours.url, big)

        async def ratio(name: str, first: Measured, second: Measured, least: float | None = None) -> Ratio:
            return compared(name, await in_pairs(first, second, rounds), unit=_RATE, least=least)

        def with_headers(relay: Process, ask: Ask) -> tuple[Measured, Measured]:
            return rate(ours.url, ask, headers=SDK), rate(relay.url, ask, headers=SDK)

        edits = [rate(each.url, upload, connections=_UPLOADS) for each in (ours, small)]
        return [
            await ratio("12 KB picture, over the relay", plain, rate(small.url, text), 2.0),
            await ratio("12 KB picture with the SDK's headers, over the relay", *with_headers(small, text), 1.7),
            await ratio("1.5 MB picture, over the relay", bigs, rate(large.url, big), 1.7),
            await ratio("1.5 MB picture with the SDK's headers, over the relay", *with_headers(large, big), 1.7),
            await ratio("12 KB picture, the SDK's headers over none", rate(ours.url, text, headers=SDK), plain),
            await ratio("1.5 MB picture, the SDK's headers over none", rate(ours.url, big, headers=SDK), bigs),
            await ratio("5 MB upload, over the relay", edits[0], edits[1]),
            await ratio("12 KB picture, a named key's budget over the master key", named, plain),
            await ratio("1.5 MB picture as a URL, over b64_json", rate(ours.url, url), bigs),
            await ratio("1.5 MB picture as an event, over b64_json", rate(ours.url, stream), bigs),
            await _cpu("12 KB picture, CPU of an answer, over the relay", (ours, small), text, rounds, 0.5),
            await _cpu("1.5 MB picture, CPU of an answer, over the relay", (ours, large), big, rounds, 0.55),
        ]


async def _cpu(name: str, servers: tuple[Process, Process], ask: Ask, rounds: int, most: float) -> Ratio:
    """CPU that a server takes for an answer: a busy machine disturbs it less than answers a second."""

    def each(server: Process) -> Measured:
        async def measured() -> float:
            before = server.cpu()
            answered = await asyncio.to_thread(asked, server.url, ask, connections=CONNECTIONS, seconds=SECONDS)
            return (server.cpu() - before) / answered.requests * 1e6

        return measured

    return compared(name, await in_pairs(each(servers[0]), each(servers[1]), rounds), unit="µs CPU", most=most)


async def _limits(urls: dict[int, str], rounds: int) -> list[Ratio]:
    """What cannot be reached: nginx as a proxy that changes nothing, and nginx that sends the picture from its disk."""
    if not has_nginx():
        return []
    ratios = []
    with gateway(urls) as ours:
        for size, name in ((SMALL, "12 KB"), (LARGE, "1.5 MB")):
            with plain_proxy(urls[size]) as proxy:
                for limit, url in (("nginx as a plain proxy", proxy.url), ("sendfile", urls[size])):
                    pairs = await in_pairs(rate(ours.url, generation(str(size))), rate(url, direct()), rounds)
                    ratios.append(compared(f"{name} picture, over {limit}", pairs, unit=_RATE))
    return ratios


async def _workers(urls: dict[int, str], rounds: int) -> list[Ratio]:
    with gateway(urls, workers=2) as ours, relay(urls[SMALL], workers=2) as theirs:
        text = generation(str(SMALL))
        pairs = await in_pairs(rate(ours.url, text), rate(theirs.url, text), rounds)
        return [compared("12 KB picture, 2 workers each, over the relay", pairs, unit=_RATE)]


async def _memory(urls: dict[int, str], rounds: int) -> list[Ratio]:
    """Peak with large pictures, idle, start; and good traffic while thousands only hold connections."""
    peaks, idles, starts, crowds, sdk_peaks = [], [], [], [], []
    for _ in range(rounds):
        with gateway(urls) as ours, relay(urls[LARGE]) as theirs:
            starts.append((ours.seconds, theirs.seconds))
            idles.append((ours.memory(), theirs.memory()))
            for server in (ours, theirs):
                await rate(server.url, generation(str(LARGE)))()
            peaks.append((ours.peak(), theirs.peak()))
        with gateway(urls) as ours:
            await rate(ours.url, generation(str(LARGE)), headers=SDK)()
            sdk_peaks.append((ours.peak(), peaks[-1][0]))
        with gateway(urls, workers=2) as ours:  # one may not have as many files
            crowds.append(await crowd.measured(ours, generation(str(SMALL))))
    return [
        compared("peak memory, 1.5 MB pictures, over the relay", peaks, unit="MB", most=0.65),
        compared("peak memory, 1.5 MB pictures, the SDK's headers over none", sdk_peaks, unit="MB", most=1.3),
        compared("idle memory, over the relay", idles, unit="MB"),
        compared("time until it listens, over the relay", starts, unit="s"),
        compared("p99 of good traffic beside a crowd, over without", crowds, unit="ms", most=2),
    ]
