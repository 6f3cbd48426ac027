"""What a call costs before and after the network: ``client.run`` over a transport that answers at once."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from impasto import Client, Handler, Middleware, Registry, WireRequest, WireResponse, hookimpl
from impasto.client_state import BUILT_IN
from impasto.registry import MIDDLEWARE, OPERATIONS
from impasto_plugins.stability.stable_image_core import operation

from .floors import route as floor
from .measure import Ratio, compared, in_pairs
from .pictures import picture

MODEL = "stability/stable-image-core"
GIVEN: dict[str, Any] = {"prompt": "a lighthouse on a cliff", "aspect_ratio": "16:9", "seed": 7}
CALLS = 1_000
OPERATIONS_INSTALLED = (30, 300, 3_000)
LAYERS = (1, 2, 4, 8)
MANY = OPERATIONS_INSTALLED[-1]

ROUNDS = 21

PICTURE = picture(12_000)
HEADERS = {"content-type": "image/png", "finish-reason": "SUCCESS", "seed": "7", "x-request-id": "r1"}


class Nowhere:
    """A transport that answers at once."""

    @hookimpl
    async def send(self, wire: WireRequest) -> WireResponse:
        wire.call.begin_attempt()  # not sending(): a transport's own reports are no part of a dispatch
        return WireResponse(status=200, headers=HEADERS, body=PICTURE)


class FloorNowhere:
    @floor.hookimpl
    async def send(self, wire: floor.WireRequest) -> floor.WireResponse:
        return floor.WireResponse(status=200, headers=HEADERS, body=PICTURE)


async def run(rounds: int) -> list[Ratio]:
    """Dispatch over the least route; with more and more operations installed over two, and with more middleware."""
    few = Registry(discover=False)
    for name in (MODEL, "stability/other"):
        few.add(OPERATIONS, name, operation)
    for layer in BUILT_IN:
        few.add(MIDDLEWARE, layer, Registry().load(MIDDLEWARE, layer, object))
    route = floor.Route(FloorNowhere())

    async def least() -> None:
        await route(route.operation.request(**GIVEN))

    ours = _each(_caller(few))
    return [
        compared("dispatch", await in_pairs(ours, _each(least), rounds), unit="µs CPU", most=2.5),
        *[await _crowded(number, ours, rounds) for number in OPERATIONS_INSTALLED],
        *[await _layered(number, few, ours, rounds) for number in LAYERS],
    ]


async def _crowded(number: int, ours: Callable[[], Awaitable[float]], rounds: int) -> Ratio:
    with many_installed(number) as many:
        pairs = await in_pairs(_each(_caller(many)), ours, rounds)
    return compared(f"dispatch, {number:,} operations installed over 2", pairs, unit="µs CPU", most=1.15)


async def _layered(number: int, registry: Registry, ours: Callable[[], Awaitable[float]], rounds: int) -> Ratio:
    async def through(wire: WireRequest, next: Handler, /) -> WireResponse:
        return await next(wire)

    pairs = await in_pairs(_each(_caller(registry, (through,) * number)), ours, rounds)
    return compared(f"dispatch, {number} more middleware over none", pairs, unit="µs CPU")


def _caller(registry: Registry, layers: Sequence[Middleware] = ()) -> Callable[[], Awaitable[object]]:
    # a base of our own: against the vendor's, the rate limit of 150 in 10 s would be what is measured
    client = Client(
        registry=registry,
        transport=Nowhere(),
        middleware=tuple(layers),
        api_key="sk-benchmark",
        api_base="http://127.0.0.1:9",
    )
    return lambda: client.run(MODEL, **GIVEN)


def _each(call: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[float]]:
    async def measured() -> float:
        start = time.process_time()
        for index in range(CALLS):
            await call()
            if index % 50 == 0:
                await asyncio.sleep(0)  # nothing else lets the loop run, which clears away cancelled timers
        return (time.process_time() - start) / CALLS * 1e6

    return measured


@contextlib.contextmanager
def many_installed(number: int = MANY) -> Iterator[Registry]:
    """A registry that found so many more operations in the metadata of an installed distribution."""
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder, "crowd-1.0.dist-info")
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crowd\nVersion: 1.0\n")
        points = "\n".join(f"crowd/model-{i} = crowd.model_{i}:operation" for i in range(number))
        (info / "entry_points.txt").write_text(f"[{OPERATIONS}]\n{points}\n")
        sys.path.append(folder)
        try:
            registry = Registry()
            assert len(registry.names(OPERATIONS)) >= number
            yield registry
        finally:
            sys.path.remove(folder)
