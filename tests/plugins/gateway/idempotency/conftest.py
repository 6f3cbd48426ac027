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
from impasto.ext import StoredCall
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.http.memory_budget import MemoryBudget, MemoryReservation
from impasto_plugins.gateway.idempotency.coordinator import IdempotencyCoordinator
from impasto_plugins.gateway.idempotency.fingerprint import Fingerprint
from impasto_plugins.gateway.idempotency.in_flight import InFlightEntry, InFlightTable
from impasto_plugins.gateway.idempotency.session import CallLabel, IdempotencySession
from impasto_plugins.gateway.storage.contents import FolderContents
from impasto_plugins.gateway.storage.places import OUTCOMES
from impasto_plugins.state.sqlite import SQLiteState
from tests.plugins.gateway.records import calls_of

OWNER, CONTENT, KEY = (letter * 32 for letter in (b"o", b"c", b"k"))
ABOUT = CallLabel("m", "b64_json")
DONE = CallOutcome(
    artifacts=(Artifact(data=b"made", media_type="image/png"),), warnings=(), lost=(), cost=None, created=0
)


class Worker:
    """A worker of a gateway: its promises, and how often it asked its provider."""

    def __init__(self, folder: Path) -> None:
        self.state = SQLiteState(str(folder))
        self.data = self.state.database
        self.resumed: list[str] = []
        self.repeats = IdempotencyCoordinator(
            self.state, folder, FolderContents(folder / OUTCOMES), lambda row, flight: self.resumed.append(row.id)
        )
        self.in_flight = calls_of(self.repeats)
        self.calls = 0
        self.flow = MemoryBudget(1 << 30)

    async def make(self, row: StoredCall | None) -> CallOutcome:
        self.calls += 1
        return DONE

    async def ask(
        self, identity: Fingerprint, make: Callable[[StoredCall | None], Awaitable[CallOutcome]] | None = None
    ) -> tuple[bytes | str | None, bool]:
        """Return what a caller gets, an image or the code of an error, and True if an earlier call made it."""
        try:
            session = IdempotencySession(self.repeats, identity, MemoryReservation(self.flow))
            async with asyncio.timeout(60), session as part:
                done, row = await part.get_outcome(make or self.make, ABOUT)
                return done.artifacts[0].data, row is not None
        except APIError as failure:
            return failure.code, False

    async def begin(self, identity: Fingerprint) -> tuple[StoredCall, bool]:
        """Return a job's row, and True if it was there before."""
        claim: asyncio.Future[tuple[StoredCall, bool]] = asyncio.get_running_loop().create_future()

        async def make(row: StoredCall) -> CallOutcome:
            claim.set_result((row, False))
            return await self.make(row)

        async with IdempotencySession(self.repeats, identity, MemoryReservation(self.flow)) as part:
            await part.run_job(make, ABOUT, claim)
        return await claim


def identity(*, key: bytes | None = None, count: int | None = None, left: bool = False) -> Fingerprint:
    transport = None if left else SimpleNamespace(is_closing=lambda: False)
    request = cast("web.BaseRequest", SimpleNamespace(transport=transport, protocol=None, headers={}))
    return Fingerprint(request=request, owner=OWNER, content=CONTENT, key=key, count=count)


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


async def dead_worker(worker: Worker) -> InFlightTable:
    """Return the table of a worker that begins beside this one, and is killed with ``dies``."""
    dead = InFlightTable(worker.in_flight._folder)
    await worker.in_flight.run(dead.open)
    return dead


async def find(worker: Worker, flights: InFlightTable, identity: bytes) -> list[InFlightEntry]:
    return await worker.in_flight.run(lambda: flights.find(identity))
