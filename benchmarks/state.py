"""Operations on a PostgreSQL store over bare round trips of its driver: CPU of this process."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Awaitable, Callable

import asyncpg

from impasto import RateLimit
from impasto.ext import Use
from impasto_plugins.state.postgres import PostgresState
from tests.postgres import own_server

from .measure import Ratio, compared, in_pairs

CALLS = 100
ROUNDS = 11
LIMIT = RateLimit(150, 10.0)
USES = [
    Use(what="requests", period="minute", amount=1),
    Use(what="images", period="day", amount=1, limit=10**9),
    Use(what="nano_usd", period="month", amount=1),
]


async def run(rounds: int) -> list[Ratio]:
    """A budget's reservation, one round trip, and a permit with its arrival, two, each over as many that do nothing."""
    with own_server() as server:
        store = PostgresState(server.dsn(pool_size="1"))
        await store.open()
        bare = await asyncpg.connect(server.dsn().partition("?")[0])
        await store.workers.register("worker", 3600.0)
        keys = itertools.count()

        async def reserve() -> None:
            await store.budgets.reserve(b"key", USES)

        async def permit() -> None:
            number = secrets.randbits(63)
            await store.rates.begin(f"key {next(keys) // CALLS}", number, "worker", LIMIT, 0.5)
            await store.rates.count([number])

        async def trip() -> None:
            await bare.fetch("SELECT 1")

        async def two_trips() -> None:
            await trip()
            await trip()

        try:
            return [
                compared(name, await in_pairs(_each(ours), _each(floor), rounds), unit="ms CPU", most=5.0)
                for name, ours, floor in (("reserve a budget", reserve, trip), ("a rate permit", permit, two_trips))
            ]
        finally:
            await bare.close()
            await store.aclose()


def _each(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        before = time.process_time()
        for _ in range(CALLS):
            await work()
        return (time.process_time() - before) / CALLS * 1_000

    return measure
