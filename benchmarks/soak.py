"""A gateway under a steady load with faults, watched: ``python -m benchmarks.soak --minutes 60``.

One answer in twenty is a fault. Callers send the headers of OpenAI's SDKs; half of them open a connection for each
request, and one answer in fifty is left in its middle. Memory, open files, threads and the data directory are read
every few seconds; at the end stands by how much each grew in an hour, by a straight line through the second half, and
how long SIGTERM took. Exit code 1 if memory grew by more than ``--most`` MB an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import random
import statistics
import sys
import time
from collections import Counter
from typing import Any

import aiohttp
import attrs
from PIL import Image

from impasto_plugins.emulator import SHORT, serve

from .gateway.load import KEY, SDK
from .gateway.servers import Process, gateway
from .gateway.world import bytes_of, stopped

CALLERS = 8
WATCH_SECONDS = 5.0
LEAVES = 0.02
"""Part of the answers that are left in their middle."""

FAULTS: list[dict[str, Any]] = [
    {"kind": "truncate"},
    {"kind": "reset"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 502, "body": "html"},
    {"kind": "filtered"},
]
"""Each meets one answer in a hundred."""


@attrs.frozen
class Sample:
    """What the gateway takes: ``hours`` since the beginning, ``memory`` in MB."""

    hours: float
    memory: float
    files: float
    threads: float
    disk: float
    """MB in the data directory."""


async def soaked(minutes: float) -> tuple[list[Sample], Counter[str]]:
    """Runs it; the samples, and how often each status was answered."""
    answered: Counter[str] = Counter()
    with serve(SHORT) as emulator, gateway({0: emulator.url}) as server:
        for seed, fault in enumerate(FAULTS):
            emulator.fault(**fault, probability=0.01, seed=seed)
        end = time.monotonic() + minutes * 60
        watching = asyncio.create_task(_watch(server))
        headers = {"authorization": f"Bearer {KEY}", **SDK}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(force_close=True)) as closing,
        ):
            callers = (_caller((session, closing)[i % 2], server.url, end, answered, i) for i in range(CALLERS))
            await asyncio.gather(*callers)
            async with session.get(f"{emulator.url}/_emulator/charges") as charges:
                answered["charged"] = (await charges.json())["count"]
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        seconds, code = await asyncio.to_thread(stopped, server)
        print(f"SIGTERM took {seconds:.2f} s, exit code {code}")
    return _samples, answered


_samples: list[Sample] = []


def _noise(side: int) -> bytes:
    """A picture of so many pixels square, of nearly as many bytes as pixels."""
    out = io.BytesIO()
    Image.effect_noise((side, side), 100).save(out, "PNG")
    return out.getvalue()


async def _watch(server: Process) -> None:
    began = time.monotonic()
    while True:
        files = sum(each.num_fds() for each in server.tree())
        threads = sum(each.num_threads() for each in server.tree())
        _samples.append(
            Sample((time.monotonic() - began) / 3600, server.memory(), files, threads, bytes_of(server.folder) / 1e6)
        )
        await asyncio.sleep(WATCH_SECONDS)


async def _caller(session: aiohttp.ClientSession, url: str, end: float, answered: Counter[str], seed: int) -> None:
    draw, upload = random.Random(seed), _noise(1000)
    uri = "data:image/png;base64," + base64.b64encode(_noise(200)).decode()
    for turn in itertools.count():
        if time.monotonic() > end:
            return
        try:
            match draw.randrange(4):
                case 0:
                    form = aiohttp.FormData({"model": "edit-0"})
                    form.add_field("image", upload, filename="a.png")
                    call = session.post(f"{url}/v1/images/edits", data=form)
                case 1:
                    call = session.post(f"{url}/v1/images/edits", json={"model": "edit-0", "image": uri})
                case 2:
                    asked = {"model": "0", "prompt": f"{seed} {turn}", "response_format": "url"}
                    call = session.post(f"{url}/v1/images/generations", json=asked)
                case _:
                    asked = {"model": "0", "prompt": f"{seed} {turn}"}
                    call = session.post(f"{url}/v1/images/generations", json={**asked, "stream": draw.random() < 0.5})
            async with call as answer:
                if draw.random() < LEAVES:
                    answer.close()
                    answered["left"] += 1
                    continue
                await answer.read()
                answered[str(answer.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            answered[type(error).__name__] += 1


def slope(samples: list[Sample], name: str) -> float:
    """By how much a figure grew in an hour, by a line through the second half."""
    later = samples[len(samples) // 2 :]
    return statistics.linear_regression([each.hours for each in later], [getattr(each, name) for each in later]).slope


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--most", type=float, default=10, help="MB that memory may grow by in an hour")
    asked = parser.parse_args()
    samples, answered = asyncio.run(soaked(asked.minutes))
    print(f"{asked.minutes:g} minutes, {sum(answered.values()):,} answers: {dict(answered)}")
    for name in ("memory", "files", "threads", "disk"):
        first, last = (getattr(samples[i], name) for i in (len(samples) // 2, -1))
        print(f"{name:8} {first:8.1f} at half time, {last:8.1f} at the end, {slope(samples, name):+8.2f} an hour")
    return int(slope(samples, "memory") > asked.most)


if __name__ == "__main__":
    sys.exit(main())
