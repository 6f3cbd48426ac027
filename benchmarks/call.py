"""CPU that a call takes in the client's process, over a hand-written aiohttp loop that posts the same form."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from impasto import Client

from .environments import environment, version
from .floors import loop
from .measure import Ratio, compared, in_pairs
from .pictures import picture
from .server import LARGE, SMALL, running

MODEL, PATH = "stability/stable-image-core", "/v2beta/stable-image/generate/core"
EDIT, EDIT_PATH = "stability/erase", "/v2beta/stable-image/edit/erase"
GIVEN: dict[str, Any] = {"prompt": "a lighthouse on a cliff", "aspect_ratio": "16:9", "output_format": "png"}
UPLOAD, UPLOAD_SIDE = 5_000_000, 1280
HUGE = 6_000_000
AT_ONCE = 8

ROUNDS = 15


async def run(rounds: int) -> list[Ratio]:
    """Small and large pictures down, a large one up."""
    return [
        await _download("call, 12 KB picture", SMALL, rounds, calls=200, most=1.25),
        await _download("call, 12 KB picture, 8 at once", SMALL, rounds, calls=200, at_once=AT_ONCE),
        await _download("call, 1.5 MB picture, floor asks for bytes", LARGE, rounds, calls=30),
        await _download("call, 1.5 MB picture, floor asks for JSON", LARGE, rounds, calls=30, json=True, most=0.75),
        await _download("call, 6 MB picture, floor asks for bytes", HUGE, rounds, calls=10),
        await _download("call, 6 MB picture, floor asks for JSON", HUGE, rounds, calls=10, json=True),
        await _download("call, 12 KB picture, by the clock", SMALL, rounds, calls=200, clock=time.perf_counter),
        await _download("call, 1.5 MB picture, by the clock", LARGE, rounds, calls=30, clock=time.perf_counter),
        await _upload(rounds, calls=15),
    ]


async def peers(rounds: int) -> list[Ratio]:
    """Other people's clients, each in a process of its own: LiteLLM's, and OpenAI's against its own API."""
    bin = environment("litellm", "litellm[proxy]")
    return [
        await _over_peer(f"call, {name} picture, over {peer} {version(bin, peer)}", bin, peer, size, rounds)
        for peer in ("litellm", "openai")
        for size, name in ((SMALL, "12 KB"), (LARGE, "1.5 MB"))
    ]


async def _over_peer(name: str, bin: Path, peer: str, size: int, rounds: int) -> Ratio:
    calls = 100 if size == SMALL else 20
    with running(size) as url:
        async with Client(api_key=loop.KEY, api_base=url) as client:

            def run_peer() -> float:
                command: list[str | Path] = [
                    bin / "python",
                    Path(__file__).parent / f"peers/{peer}_sdk.py",
                    url,
                    str(calls),
                ]
                offline = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
                return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=offline, text=True).stdout)

            async def theirs() -> float:
                return await asyncio.to_thread(run_peer)

            pairs = await in_pairs(each(lambda: client.run(MODEL, **GIVEN), calls, 1), theirs, rounds, warm=False)
            return compared(name, pairs, unit="µs CPU")


async def _download(
    name: str,
    size: int,
    rounds: int,
    *,
    calls: int,
    at_once: int = 1,
    json: bool = False,
    most: float | None = None,
    clock: Callable[[], float] = time.process_time,
) -> Ratio:
    accept = "application/json" if json else "image/*"
    with running(size) as url:
        async with Client(api_key=loop.KEY, api_base=url) as client, loop.session() as session:

            async def ours() -> object:
                return (await client.run(MODEL, **GIVEN)).artifacts[0].data

            async def floor() -> object:
                return await loop.post(session, url + PATH, GIVEN, accept=accept)

            assert await ours() == await floor()
            measured = [each(call, calls, at_once, clock) for call in (ours, floor)]
            unit = "µs CPU" if clock is time.process_time else "µs"
            return compared(name, await in_pairs(measured[0], measured[1], rounds), unit=unit, most=most)


async def _upload(rounds: int, *, calls: int) -> Ratio:
    with running() as url, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        path.write_bytes(picture(UPLOAD, UPLOAD_SIDE))
        async with Client(api_key=loop.KEY, api_base=url) as client, loop.session() as session:

            async def ours() -> object:
                return await client.run(EDIT, image=path)

            async def floor() -> object:
                return await loop.post(session, url + EDIT_PATH, {}, image=path)

            measured = [each(call, calls, 1) for call in (ours, floor)]
            pairs = await in_pairs(measured[0], measured[1], rounds)
            return compared("call, 5 MB up from a path", pairs, unit="µs CPU")


def each(
    call: Callable[[], Awaitable[object]],
    calls: int,
    at_once: int,
    clock: Callable[[], float] = time.process_time,
) -> Callable[[], Awaitable[float]]:
    """Measures what a call takes, in microseconds."""

    async def worker() -> None:
        for _ in range(calls // at_once):
            await call()

    async def measured() -> float:
        start = clock()
        await asyncio.gather(*(worker() for _ in range(at_once)))
        return (clock() - start) / calls * 1e6

    return measured
