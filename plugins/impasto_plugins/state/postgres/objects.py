"""Files and batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from impasto.ext import ObjectsFull, StoredObject

from .pool import ConnectionPool
from .rows import list_to_json, object_of, object_of_json, to_json


class PostgresObjects:
    """The objects of a schema; see ObjectRecords."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def insert(
        self, item: StoredObject, *, max_count: int, max_bytes: int | None = None, since: float | None = None
    ) -> StoredObject | ObjectsFull:
        """Insert an object, or return the one that the same request of its owner made after ``since``."""
        statement = "SELECT * FROM {s}.insert_object($1, $2, $3, $4)"
        (row,) = await self._pool.fetch(statement, to_json(item), max_count, max_bytes, since)
        if row["object"] is None:
            return ObjectsFull(count=row["count"], bytes=row["bytes"])
        return object_of_json(row["object"])

    async def replace(
        self,
        old: StoredObject,
        new: StoredObject,
        *,
        further: Sequence[StoredObject] = (),
        max_bytes: int | None = None,
    ) -> bool | ObjectsFull:
        """Replace an object that is still as ``old``, and insert ``further`` ones."""
        statement = "SELECT * FROM {s}.replace_object($1, $2, $3, $4)"
        values = (to_json(old), to_json(new), list_to_json(further), max_bytes)
        (row,) = await self._pool.fetch(statement, *values)
        if row["is_replaced"] is None:
            return ObjectsFull(count=0, bytes=max(row["bytes"], 0))
        return bool(row["is_replaced"])

    async def delete(self, ids: Collection[str]) -> None:
        """Delete objects."""
        await self._pool.fetch("SELECT {s}.delete_objects($1)", list(ids))

    async def find(self, kind: str, id: str, owner: bytes) -> StoredObject | None:
        """Return an object by its id, for its owner alone, unless it has expired."""
        statement = (
            "SELECT * FROM {s}.objects WHERE kind = $1 AND id = $2 AND owner = $3 AND expires > {s}.seconds_now()"
        )
        rows = await self._pool.fetch(statement, kind, id, owner)
        return object_of(rows[0]) if rows else None

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
        # The join's left side has one row exactly if ``after`` is known, or there is none.
        statement = f"""
            SELECT o.* FROM (
                SELECT NULL AS id, NULL AS created WHERE $6::text IS NULL
                UNION ALL SELECT id, created::text FROM {{s}}.objects WHERE kind = $1 AND owner = $2 AND id = $6
            ) AS last LEFT JOIN LATERAL (
                SELECT * FROM {{s}}.objects WHERE kind = $1 AND owner = $2
                AND expires > {{s}}.seconds_now()
                AND ($3::text[] IS NULL OR status = ANY($3)) AND ($4::text IS NULL OR label = $4)
                AND (last.id IS NULL OR (created, id) {sign} (last.created::float8, last.id))
                ORDER BY created {order}, id {order} LIMIT $5
            ) AS o ON true
        """  # noqa: S608 - fixed words
        chosen = None if statuses is None else list(statuses)
        rows = await self._pool.fetch(statement, kind, owner, chosen, label, limit, after)
        if not rows:
            raise KeyError(after)
        return [object_of(row) for row in rows if row["id"] is not None]

    async def of_kind(self, kind: str, statuses: Collection[str] | None = None) -> list[StoredObject]:
        """Return the objects of all owners, expired ones too, the oldest first."""
        statement = (
            "SELECT * FROM {s}.objects WHERE kind = $1 AND ($2::text[] IS NULL OR status = ANY($2))"
            " ORDER BY created, id"
        )
        chosen = None if statuses is None else list(statuses)
        return [object_of(row) for row in await self._pool.fetch(statement, kind, chosen)]

    async def delete_expired(self, kind: str, *, keep: Collection[str] = ()) -> list[StoredObject]:
        """Delete expired objects, except those of some statuses, and return them."""
        rows = await self._pool.fetch("SELECT * FROM {s}.delete_expired_objects($1, $2)", kind, list(keep))
        return [object_of(row) for row in rows]
