"""Calls."""

from __future__ import annotations

import secrets
import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import attrs

from impasto.ext import CALLER_WAITS, StoredCall

from .connection import SQLiteDatabase
from .rows import RecordTable

_CALLS = RecordTable("calls", StoredCall)
_CHANGEABLE = ("state", "outcome", "jobs", "identity")


class SQLiteCalls:
    """The calls of a database; see CallRecords."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    async def insert_or_join(self, call: StoredCall, *, join: bool) -> StoredCall:
        """Insert a call before it is made; with ``join``, return an existing one with its fingerprint."""

        def work(db: sqlite3.Connection) -> StoredCall:
            now = self._database.clock()
            db.execute("DELETE FROM calls WHERE identity = ? AND expires <= ?", (call.identity, now))
            if join and (existing := _CALLS.select_one(db, "identity = ?", call.identity)) is not None:
                return existing
            new = call if call.created else attrs.evolve(call, created=now, expires=now + call.expires)
            return new if _CALLS.insert(db, new) else _CALLS.select(db, "id = ?", call.id)[0]

        return await self._database.write(work, durable=True)

    async def insert(self, calls: Sequence[StoredCall]) -> None:
        """Insert calls that are over."""

        def work(db: sqlite3.Connection) -> None:
            now = self._database.clock()
            for call in calls:
                new = call if call.created else attrs.evolve(call, created=now, expires=now + call.expires)
                _CALLS.insert(db, new)

        await self._database.write(work, durable=True)

    async def update(self, id: str, **columns: str | bytes) -> None:
        """Change columns of a call."""
        if unknown := columns.keys() - _CHANGEABLE:
            raise TypeError(f"update() can't change {', '.join(sorted(unknown))}")
        statement = f"UPDATE calls SET {', '.join(f'{name} = ?' for name in columns)} WHERE id = ?"  # noqa: S608 - names of columns
        if columns.get("state") == "failed":
            statement += " AND state != 'done'"
        await self._database.write(lambda db: db.execute(statement, (*columns.values(), id)), durable=True)

    async def delete(self, id: str) -> None:
        """Delete a call."""
        await self._database.write(lambda db: db.execute("DELETE FROM calls WHERE id = ?", (id,)), durable=True)

    async def find(self, id: str, owner: bytes) -> StoredCall | None:
        """Return a call by its id, for its owner alone."""
        where = "id = ? AND owner = ? AND expires > ?"
        return await self._database.write(lambda db: _CALLS.select_one(db, where, id, owner, self._database.clock()))

    async def find_failed(self, identity: bytes) -> StoredCall | None:
        """Return a failed call with this fingerprint."""
        where = "identity = ? AND state = 'failed' AND expires > ?"
        return await self._database.write(lambda db: _CALLS.select_one(db, where, identity, self._database.clock()))

    async def claim(self, identity: bytes, count: int, *, as_job: bool) -> StoredCall | None:
        """Return a result for retry number ``count`` and mark it."""
        condition = "worker != ''" if as_job else "state = 'done'"
        where = f"identity = ? AND {condition} AND attempt < ? AND expires > ? ORDER BY attempt, created"

        def work(db: sqlite3.Connection) -> StoredCall | None:
            # Found and marked in one transaction: two retries with the same count can't get the same image.
            if (call := _CALLS.select_one(db, where, identity, count, self._database.clock())) is not None:
                db.execute("UPDATE calls SET attempt = ? WHERE id = ?", (count, call.id))
            return call

        return await self._database.write(work)

    async def release(self, call: StoredCall, count: int) -> None:
        """Take back the mark of a call."""
        statement, values = "UPDATE calls SET attempt = ? WHERE id = ? AND attempt = ?", (call.attempt, call.id, count)
        await self._database.write(lambda db: db.execute(statement, values), durable=True)

    async def take_over(
        self, dead: Mapping[str, Sequence[bytes]], worker: str, *, outcome: str, seconds: float
    ) -> list[StoredCall]:
        """Give the jobs of dead workers to a worker; end their other running calls as failed."""

        def work(db: sqlite3.Connection) -> list[StoredCall]:
            now = self._database.clock()
            jobs: list[StoredCall] = []
            for each, identities in dead.items():
                found = _CALLS.select(db, "worker = ? AND state = 'running' AND jobs != ''", each)
                unknown = Counter(identities)
                unknown.subtract(job.identity for job in found if job.attempt == CALLER_WAITS)
                jobs += found
                move = "UPDATE calls SET worker = ?, attempt = 0 WHERE worker = ? AND state = 'running' AND jobs != ''"
                db.execute(move, (worker, each))
                fail = "UPDATE calls SET state = 'failed', outcome = ? WHERE worker = ? AND state = 'running'"
                db.execute(fail, (outcome, each))
                for identity in unknown.elements():
                    failed = StoredCall(
                        id=secrets.token_hex(32),
                        owner=b"",
                        identity=identity,
                        state="failed",
                        outcome=outcome,
                        created=now,
                        expires=now + seconds,
                    )
                    _CALLS.insert(db, failed)
            return [attrs.evolve(job, worker=worker, attempt=0) for job in jobs]

        return await self._database.write(work, durable=True)

    async def delete_expired(self) -> frozenset[str]:
        """Delete expired calls and return their ids."""

        def work(db: sqlite3.Connection) -> frozenset[str]:
            rows = db.execute("SELECT id FROM calls WHERE expires <= ?", (self._database.clock(),)).fetchall()
            db.executemany("DELETE FROM calls WHERE id = ?", rows)
            return frozenset(id for (id,) in rows)

        return await self._database.write(work)

    async def missing(self, ids: Collection[str]) -> frozenset[str]:
        """Return those of the ids that no call has."""

        def work(db: sqlite3.Connection) -> frozenset[str]:
            # No other column is read: an outcome's JSON may be long.
            query = "SELECT 1 FROM calls WHERE id = ?"
            return frozenset(id for id in ids if db.execute(query, (id,)).fetchone() is None)

        return await self._database.write(work)
