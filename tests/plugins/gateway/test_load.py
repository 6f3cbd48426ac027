"""Load as the world loads, for a moment: the SDK's headers, connections that are kept, opened and left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from benchmarks.gateway.load import SDK_HEADERS, generation
from benchmarks.gateway.world import Counts, Way, bytes_of, phase

from tests.images import padded
from tests.reliability.servers import PICTURE_HEADERS, head, raw, serving

from .conftest import Start, config, entry
from .records import calls_of

SIZES = (12_000, 1_500_000, 6_000_000)


@pytest.fixture
async def entries() -> AsyncIterator[str]:
    """A model for each size of an image."""
    async with AsyncExitStack() as stack:
        text = ""
        for size in SIZES:
            server = await stack.enter_async_context(serving())
            server.posts = [raw(head(200, {**PICTURE_HEADERS, "content-length": str(size)}), padded(size))]
            text += entry(f"'{size}'", "stability/stable-image-core", server.url)
        yield text


async def test_sdks_that_come_and_go_leave_nothing_but_what_they_did_not_read(
    start: Start, entries: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gateway.world.KEY", "sk-1234")
    gateway = await start(config("", entries=entries))
    server, app, repeats = gateway.gateway._server, gateway.gateway._app, gateway.gateway._idempotency
    counts, before = Counts(), bytes_of(state)
    for way in Way:
        for size in SIZES:
            ask = generation(str(size))
            await phase(gateway.url, ask, way, connections=8, seconds=0.3, headers=SDK_HEADERS, counts=counts)
    assert counts.failed == 0
    assert counts.answered > 0
    assert await asyncio.wait_for(gateway.gateway.drain(), 60)
    assert (app.memory.used_bytes, len(repeats._deliveries), len(calls_of(repeats)._calls)) == (0, 0, 0)
    assert bytes_of(state) - before - counts.left_bytes <= 5_000_000
    async with asyncio.timeout(60):
        while server.open:
            await asyncio.sleep(0.01)
