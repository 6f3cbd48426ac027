"""Files and batches."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

import attrs

from impasto.ext import ObjectsFull, StoredObject

from .connection import SQLiteDatabase
from .rows import RecordTable

_OBJECTS = RecordTable("objects", StoredObject)
_COLUMNS = [field.name for field in attrs.fields(StoredObject)]
_REPLACE = (
    f"UPDATE objects SET {', '.join(f'{name} = ?' for name in _COLUMNS)}"  # noqa: S608 - names of columns
    f" WHERE {' AND '.join(f'{name} = ?' for name in _COLUMNS)}"
)


class SQLiteObjects:
    """The objects of a database; see ObjectRecords."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    async def insert(
        self, item: StoredObject, *, max_count: int, max_bytes: int | None = None, since: float | None = None
    ) -> StoredObject | ObjectsFull:
        """Insert an object, or return the one that the same request of its owner made after ``since``."""

        def work(db: sqlite3.Connection) -> StoredObject | ObjectsFull:
            same = "kind = ? AND id = ? AND owner = ?"
            if (existing := _OBJECTS.select_one(db, same, item.kind, item.id, item.owner)) is not None:
                return existing
            if since is not None:
                where = "kind = ? AND owner = ? AND identity = ? AND created > ?"
                existing = _OBJECTS.select_one(db, where, item.kind, item.owner, item.identity, since)
                if existing is not None:
                    return existing
            query = "SELECT COUNT(*) FROM objects WHERE kind = ? AND owner = ?"
            (count,) = db.execute(query, (item.kind, item.owner)).fetchone()
            remaining = _remaining_bytes(db, max_bytes)
            if count >= max_count or (remaining is not None and item.size > remaining):
                return ObjectsFull(count=max(max_count - count, 0), bytes=max(remaining or 0, 0))
            _OBJECTS.insert(db, item)
            return item

        return await self._database.write(work, durable=True)

    async def replace(
        self,
        old: StoredObject,
        new: StoredObject,
        *,
        further: Sequence[StoredObject] = (),
        max_bytes: int | None = None,
    ) -> bool | ObjectsFull:
        """Replace an object that is still as ``old``, and insert ``further`` ones."""

        def work(db: sqlite3.Connection) -> bool | ObjectsFull:
            if _OBJECTS.select_one(db, "id = ?", old.id) != old:
                return False
            more = new.size - old.size + sum(each.size for each in further)
            remaining = _remaining_bytes(db, max_bytes)
            if remaining is not None and more > remaining:
                return ObjectsFull(count=0, bytes=max(remaining, 0))
            db.execute(_REPLACE, (*attrs.astuple(new), *attrs.astuple(old)))
            for each in further:
                _OBJECTS.insert(db, each)
            return True

        return await self._database.write(work, durable=True)

    async def delete(self, ids: Collection[str]) -> None:
        """Delete objects."""
        statement = "DELETE FROM objects WHERE id = ?"
        await self._database.write(lambda db: db.executemany(statement, [(id,) for id in ids]))

    async def find(self, kind: str, id: str, owner: bytes) -> StoredObject | None:
        """Return an object by its id, for its owner alone, unless it has expired."""
        where = "kind = ? AND id = ? AND owner = ? AND expires > ?"
        values = (kind, id, owner)
        return await self._database.write(lambda db: _OBJECTS.select_one(db, where, *values, self._database.clock()))

    async def page(
        self,
        kind: str,
        owner: bytes,
        *,
        limit: int,
        after: str | None = None,
        ascending: bool = False,
        statuses: Collection[str] | None = None,
        label: str | None = None,
    ) -> list[StoredObject]:
        """Return an owner's objects in the order in which they were made. Raises KeyError if ``after`` is unknown."""
        sign, order = (">", "ASC") if ascending else ("<", "DESC")

        def work(db: sqlite3.Connection) -> list[StoredObject]:
            where, values = _with_statuses("kind = ? AND owner = ?", [kind, owner], statuses)
            if label is not None:
                where, values = f"{where} AND label = ?", [*values, label]
            if after is not None:
                last = _OBJECTS.select_one(db, "kind = ? AND id = ? AND owner = ?", kind, after, owner)
                if last is None:
                    raise KeyError(after)
                where, values = f"{where} AND (created, id) {sign} (?, ?)", [*values, last.created, last.id]
            where = f"{where} AND expires > ? ORDER BY created {order}, id {order} LIMIT ?"
            return _OBJECTS.select(db, where, *values, self._database.clock(), limit)

        return await self._database.write(work)

    async def of_kind(self, kind: str, statuses: Collection[str] | None = None) -> list[StoredObject]:
        """Return the objects of all owners, expired ones too, the oldest first."""
        where, values = _with_statuses("kind = ?", [kind], statuses)
        return await self._database.write(lambda db: _OBJECTS.select(db, f"{where} ORDER BY created, id", *values))

    async def delete_expired(self, kind: str, *, keep: Collection[str] = ()) -> list[StoredObject]:
        """Delete expired objects, except those of some statuses, and return them."""

        def work(db: sqlite3.Connection) -> list[StoredObject]:
            expired = _OBJECTS.select(db, "kind = ? AND expires <= ?", kind, self._database.clock())
            removed = [each for each in expired if each.status not in keep]
            db.executemany("DELETE FROM objects WHERE id = ?", [(each.id,) for each in removed])
            return removed

        return await self._database.write(work)


def _remaining_bytes(db: sqlite3.Connection, max_bytes: int | None) -> int | None:
    if max_bytes is None:
        return None
    (size,) = db.execute("SELECT COALESCE(SUM(size), 0) FROM objects").fetchone()
    return max_bytes - int(size)


def _with_statuses(where: str, values: list[object], statuses: Collection[str] | None) -> tuple[str, list[object]]:
    """Return the condition and its values, with the statuses that are allowed."""
    if statuses is None:
        return where, values
    return f"{where} AND status IN ({', '.join('?' for _ in statuses)})", [*values, *statuses]
