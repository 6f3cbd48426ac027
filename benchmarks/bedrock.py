"""Bedrock: CPU of a call, and how long large answers hold up the loop, over a hand-written aiobotocore loop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from impasto import Client

from .call import AT_ONCE, HUGE, UPLOAD, UPLOAD_SIDE, each
from .floors import aws
from .lag import CALLS, longest_lag
from .measure import Ratio, compared, in_pairs
from .pictures import picture
from .server import LARGE, SMALL, running

MODEL = "stability.stable-image-core-v1:1"
EDIT = "us.stability.stable-image-remove-background-v1:0"
GIVEN: dict[str, Any] = {"prompt": "a lighthouse on a cliff", "aspect_ratio": "16:9", "output_format": "png"}

ROUNDS = 15

Call = Callable[[], Awaitable[object]]


async def run(rounds: int) -> list[Ratio]:
    """Small and large pictures down, a large one up; then 64 large ones at once."""
    return [
        await _cpu("bedrock, 12 KB picture", SMALL, rounds, calls=200, most=1.15),
        await _cpu("bedrock, 12 KB picture, 8 at once", SMALL, rounds, calls=200, at_once=AT_ONCE),
        await _cpu("bedrock, 1.5 MB picture", LARGE, rounds, calls=30, most=0.9),
        await _cpu("bedrock, 6 MB picture", HUGE, rounds, calls=10),
        await _upload(rounds, calls=10),
        *await _lag(rounds),
    ]


@asynccontextmanager
async def _both(size: int) -> AsyncIterator[tuple[Call, Call]]:
    with running(size) as url:
        async with _client(url) as client, aws.client(url, CALLS) as by_hand:

            async def ours() -> object:
                return (await client.run(f"bedrock/{MODEL}", **GIVEN)).artifacts[0].data

            async def floor() -> object:
                return await aws.invoke(by_hand, MODEL, GIVEN)

            assert await ours() == await floor()
            yield ours, floor


def _client(url: str) -> Client:
    return Client(
        bedrock_endpoint=url,
        aws_region=aws.REGION,
        aws_access_key_id=aws.ACCESS_KEY,
        aws_secret_access_key=aws.SECRET_KEY,
    )


async def _cpu(name: str, size: int, rounds: int, *, calls: int, at_once: int = 1, most: float | None = None) -> Ratio:
    async with _both(size) as both:
        ours, floor = (each(call, calls, at_once) for call in both)
        return compared(name, await in_pairs(ours, floor, rounds), unit="µs CPU", most=most)


async def _upload(rounds: int, *, calls: int) -> Ratio:
    with running() as url, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture.png")
        path.write_bytes(picture(UPLOAD, UPLOAD_SIDE))
        async with _client(url) as client, aws.client(url, CALLS) as by_hand:

            async def ours() -> object:
                return await client.run(f"bedrock/{EDIT}", image=path)

            async def floor() -> object:
                return await aws.invoke(by_hand, EDIT, {}, path)

            pairs = await in_pairs(each(ours, calls, 1), each(floor, calls, 1), rounds)
            return compared("bedrock, 5 MB up from a path", pairs, unit="µs CPU")


async def _lag(rounds: int) -> list[Ratio]:
    """In CPU that the process takes between two turns of the loop; by the clock it is the same where it runs alone."""
    async with _both(LARGE) as (ours, floor):
        name = f"bedrock, {CALLS} x 1.5 MB at once, longest lag"
        cpu = time.process_time
        in_cpu = await in_pairs(longest_lag(ours, cpu), longest_lag(floor, cpu), rounds)
        by_clock = await in_pairs(longest_lag(ours), longest_lag(floor), rounds)
        return [
            compared(f"{name} in CPU", in_cpu, unit="ms", most=0.25),
            compared(f"{name} by the clock", by_clock, unit="ms"),
        ]
