"""Workers, and their calls in flight."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from impasto.ext import CallInFlight, LimitReached, Reservation, Use, WorkerEnded

from .budgets import columns_of, reservation_of
from .pool import ConnectionPool
from .reports import ReportQueue

_END_SECONDS = 0.1
"""Seconds until the ends of calls are reported, which seem to run for so long."""


class PostgresWorkers:
    """The workers of a schema; see Workers."""

    def __init__(self, pool: ConnectionPool, reports: ReportQueue) -> None:
        self._pool, self._reports = pool, reports

    async def register(self, worker: str, seconds: float) -> None:
        """Begin the lease of a worker."""
        await self._pool.fetch("SELECT {s}.register_worker($1, $2)", worker, seconds)

    async def renew(self, worker: str, seconds: float) -> bool:
        """Let a lease last for so many seconds from now; return False if others have taken over its calls."""
        ((is_renewed,),) = await self._pool.fetch("SELECT {s}.renew_worker($1, $2)", worker, seconds)
        return bool(is_renewed)

    async def end(self, worker: str) -> None:
        """End the lease of a worker that stops."""
        await self._pool.fetch("SELECT {s}.end_worker($1)", worker)

    async def remove(self, workers: Collection[str]) -> None:
        """Delete workers that have ended, and their calls in flight."""
        await self._pool.fetch("SELECT {s}.remove_workers($1)", list(workers))

    async def dead(self) -> dict[str, list[bytes]]:
        """Return the workers whose leases have ended, with the fingerprints of their calls."""
        return {row["id"]: row["identities"] for row in await self._pool.fetch("SELECT * FROM {s}.dead_workers()")}

    async def begin_call(
        self, call: CallInFlight, *, key: bytes = b"", uses: Sequence[Use] = ()
    ) -> Reservation | LimitReached:
        """Add a call, and reserve uses. Raises WorkerEnded."""
        statement = "SELECT * FROM {s}.begin_call($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        values = (call.id, call.identity, call.worker, call.state, key, *columns_of(uses))
        (row,) = await self._pool.fetch(statement, *values)
        if not row["is_alive"]:
            raise WorkerEnded("the lease of this process has ended")
        return reservation_of(key, uses, row)

    async def find_calls(self, identity: bytes) -> list[CallInFlight]:
        """Return the calls with a fingerprint."""
        rows = await self._pool.fetch("SELECT * FROM {s}.in_flight WHERE identity = $1 ORDER BY id", identity)
        return [CallInFlight(**dict(row)) for row in rows]

    async def mark_call(self, id: str, state: str) -> None:
        """Change the state of a call."""
        await self._pool.fetch("SELECT {s}.mark_call($1, $2)", id, state)

    async def end_calls(self, ids: Collection[str]) -> None:
        """Delete calls."""
        await self._reports.send(over=ids, within=_END_SECONDS)
