"""Workers, and their calls in flight."""

from __future__ import annotations

from collections.abc import Collection

from impasto.ext import CallInFlight, WorkerEnded

from .pool import ConnectionPool


class PostgresWorkers:
    """The workers of a schema; see Workers."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def register(self, worker: str, seconds: float) -> None:
        """Begin the lease of a worker."""
        await self._pool.fetch("SELECT {s}.register_worker($1, $2)", worker, seconds)

    async def renew(self, worker: str, seconds: float) -> bool:
        """Let a lease last for so many seconds from now; return False if it had ended."""
        ((is_renewed,),) = await self._pool.fetch("SELECT {s}.renew_worker($1, $2)", worker, seconds)
        return bool(is_renewed)

    async def remove(self, workers: Collection[str]) -> None:
        """Delete workers, and their calls in flight."""
        await self._pool.fetch("SELECT {s}.remove_workers($1)", list(workers))

    async def dead(self) -> dict[str, list[bytes]]:
        """Return the workers whose leases have ended, with the fingerprints of their calls."""
        return {row["id"]: row["identities"] for row in await self._pool.fetch("SELECT * FROM {s}.dead_workers()")}

    async def begin_call(self, call: CallInFlight) -> list[CallInFlight]:
        """Add a call, and return the others with its fingerprint. Raises WorkerEnded."""
        rows = await self._pool.fetch("SELECT * FROM {s}.begin_call($1, $2, $3)", call.id, call.identity, call.worker)
        if rows and rows[0]["id"] is None:
            raise WorkerEnded("the lease of this process has ended")
        return [CallInFlight(**dict(row)) for row in rows]

    async def mark_call(self, id: str, state: str) -> None:
        """Change the state of a call."""
        await self._pool.fetch("SELECT {s}.change_call($1, $2)", id, state)

    async def end_call(self, id: str) -> None:
        """Delete a call."""
        await self._pool.fetch("SELECT {s}.change_call($1, NULL)", id)
