"""Calls."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

from impasto.ext import StoredCall

from .pool import ConnectionPool
from .rows import call_of, list_to_json, to_json


class PostgresCalls:
    """The calls of a schema; see CallRecords."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def insert_or_join(self, call: StoredCall, *, join: bool) -> StoredCall:
        """Insert a call before it is made; with ``join``, return an existing one with its fingerprint."""
        return call_of((await self._pool.fetch("SELECT * FROM {s}.insert_or_join($1, $2)", to_json(call), join))[0])

    async def insert(self, calls: Sequence[StoredCall]) -> None:
        """Insert calls that are over."""
        await self._pool.fetch("SELECT {s}.insert_calls($1)", list_to_json(calls))

    async def update(self, id: str, **columns: str | bytes) -> None:
        """Change columns of a call."""
        values = [columns.pop(name, None) for name in ("state", "outcome", "jobs", "identity")]
        if columns:
            raise TypeError(f"update() can't change {', '.join(sorted(columns))}")
        await self._pool.fetch("SELECT {s}.update_call($1, $2, $3, $4, $5)", id, *values)

    async def delete(self, id: str) -> None:
        """Delete a call."""
        await self._pool.fetch("SELECT {s}.delete_call($1)", id)

    async def find(self, id: str, owner: bytes) -> StoredCall | None:
        """Return a call by its id, for its owner alone."""
        statement = "SELECT * FROM {s}.calls WHERE id = $1 AND owner = $2 AND expires > {s}.seconds_now()"
        return await self._first(statement, id, owner)

    async def find_failed(self, identity: bytes) -> StoredCall | None:
        """Return a failed call with this fingerprint."""
        statement = (
            "SELECT * FROM {s}.calls WHERE identity = $1 AND state = 'failed' AND expires > {s}.seconds_now() LIMIT 1"
        )
        return await self._first(statement, identity)

    async def claim(self, identity: bytes, count: int, *, as_job: bool) -> StoredCall | None:
        """Return a result for retry number ``count`` and mark it."""
        return await self._first("SELECT * FROM {s}.claim_call($1, $2, $3)", identity, count, as_job)

    async def release(self, call: StoredCall, count: int) -> None:
        """Take back the mark of a call."""
        await self._pool.fetch("SELECT {s}.release_call($1, $2, $3)", call.id, count, call.attempt)

    async def take_over(
        self, dead: Mapping[str, Sequence[bytes]], worker: str, *, outcome: str, seconds: float
    ) -> list[StoredCall]:
        """Give the jobs of dead workers to a worker; end their other running calls as failed."""
        # A name of its own for each, so that repeating this adds them once.
        failures = {
            hashlib.sha256(f"{each} {number} ".encode() + identity).hexdigest(): identity
            for each, identities in dead.items()
            for number, identity in enumerate(identities)
        }
        statement = "SELECT * FROM {s}.take_over($1, $2, $3, $4, $5, $6)"
        ids, identities = list(failures), list(failures.values())
        rows = await self._pool.fetch(statement, list(dead), worker, outcome, ids, identities, seconds)
        return [call_of(row) for row in rows]

    async def delete_expired(self) -> frozenset[str]:
        """Delete expired calls and return their ids."""
        return frozenset(row[0] for row in await self._pool.fetch("SELECT {s}.delete_expired_calls()"))

    async def missing(self, ids: Collection[str]) -> frozenset[str]:
        """Return those of the ids that no call has."""
        rows = await self._pool.fetch("SELECT id FROM {s}.calls WHERE id = ANY($1)", list(ids))
        return frozenset(ids).difference(row[0] for row in rows)

    async def _first(self, statement: str, *values: object) -> StoredCall | None:
        rows = await self._pool.fetch(statement, *values)
        return call_of(rows[0]) if rows else None
