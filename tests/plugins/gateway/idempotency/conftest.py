"""One worker's promises and a data directory, without a gateway around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web

from impasto import Artifact
from impasto_plugins.gateway.calls.execution import Done
from impasto_plugins.gateway.errors import Failure
from impasto_plugins.gateway.http.memory_budget import Flow
from impasto_plugins.gateway.idempotency.coordinator import About, Repeats
from impasto_plugins.gateway.idempotency.fingerprint import Identity
from impasto_plugins.gateway.idempotency.in_flight import Flights, Seen
from impasto_plugins.gateway.idempotency.store import Row
from impasto_plugins.gateway.storage.database import Data

OWNER, CONTENT, KEY = (letter * 32 for letter in (b"o", b"c", b"k"))
ABOUT = About("m", "b64_json")
DONE = Done(artifacts=(Artifact(data=b"made", media_type="image/png"),), warnings=(), lost=(), cost=None, created=0)


class Worker:
    """A worker of a gateway: its promises, and how often it asked its provider."""

    def __init__(self, folder: Path) -> None:
        self.data = Data(folder)
        self.resumed: list[str] = []
        self.repeats = Repeats(self.data, lambda row, flight: self.resumed.append(row.id))
        self.made = 0
        self.flow = Flow(1 << 30)

    async def make(self, row: Row | None) -> Done:
        self.made += 1
        return DONE

    async def ask(
        self, identity: Identity, make: Callable[[Row | None], Awaitable[Done]] | None = None
    ) -> tuple[bytes | str | None, bool]:
        """Return what a caller gets, an image or the code of an error, and True if an earlier call made it."""
        try:
            async with asyncio.timeout(60), self.repeats.part(identity, self.flow.share()) as part:
                done, row = await part.outcome(make or self.make, ABOUT)
                return done.artifacts[0].data, row is not None
        except Failure as failure:
            return failure.code, False

    async def begin(self, identity: Identity) -> tuple[Row, bool]:
        """Return a job's row, and True if it was there before."""
        begun: asyncio.Future[tuple[Row, bool]] = asyncio.get_running_loop().create_future()

        async def make(row: Row) -> Done:
            begun.set_result((row, False))
            return await self.make(row)

        async with self.repeats.part(identity, self.flow.share()) as part:
            await part.job(make, ABOUT, begun)
        return await begun


def identity(*, key: bytes | None = None, count: int | None = None, left: bool = False) -> Identity:
    transport = None if left else SimpleNamespace(is_closing=lambda: False)
    request = cast("web.BaseRequest", SimpleNamespace(transport=transport, protocol=None, headers={}))
    return Identity(request=request, owner=OWNER, content=CONTENT, key=key, count=count)


Hire = Callable[[], Awaitable[Worker]]


@pytest.fixture
async def hire(tmp_path: Path) -> AsyncIterator[Hire]:
    workers: list[Worker] = []

    async def hire() -> Worker:
        workers.append(Worker(tmp_path))
        await workers[-1].data.open()
        await workers[-1].repeats.open()
        return workers[-1]

    yield hire
    for worker in workers:
        await worker.repeats.aclose()
        await worker.data.aclose()


@pytest.fixture
async def worker(hire: Hire) -> Worker:
    return await hire()


async def dead_worker(worker: Worker) -> Flights:
    """Return the table of a worker that begins beside this one, and is killed with ``dies``."""
    dead = Flights(worker.repeats.flights._folder)
    await worker.data.in_thread(dead.open)
    return dead


async def find(worker: Worker, flights: Flights, identity: bytes) -> list[Seen]:
    return await worker.data.in_thread(lambda: flights.find(identity))
