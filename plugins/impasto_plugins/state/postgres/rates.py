"""Rate windows."""

from __future__ import annotations

from collections.abc import Collection

from impasto import RateLimit
from impasto.ext import WorkerEnded

from .pool import ConnectionPool
from .reports import ReportQueue

_COUNT_SECONDS = 0.02
"""Seconds until arrivals are reported, which hold their places for so long."""


class PostgresRates:
    """The rate windows of a schema; see Rates."""

    def __init__(self, pool: ConnectionPool, reports: ReportQueue) -> None:
        self._pool, self._reports = pool, reports

    async def begin(self, key: str, permit: int, worker: str, limit: RateLimit, slack: float) -> float:
        """Return 0 if a request may go, or the seconds to wait before the next try. Raises WorkerEnded."""
        statement = "SELECT {s}.begin_send($1, $2, $3, $4, $5, $6)"
        values = (key, permit, worker, limit.requests, limit.seconds, slack)
        ((wait,),) = await self._pool.fetch(statement, *values)
        if wait is None:
            raise WorkerEnded("the lease of this process has ended")
        return float(wait)

    async def count(self, permits: Collection[int]) -> None:
        """Note that requests have arrived."""
        await self._reports.send(arrived=permits, within=_COUNT_SECONDS)

    async def release(self, key: str, permits: Collection[int]) -> None:
        """Take back the permits of requests that never left."""
        await self._pool.fetch("SELECT {s}.release_permits($1, $2)", key, list(permits))

    async def pause(self, key: str, seconds: float) -> None:
        """Let no request of a key go for so many seconds."""
        await self._pool.fetch("SELECT {s}.pause_rate($1, $2)", key, seconds)
