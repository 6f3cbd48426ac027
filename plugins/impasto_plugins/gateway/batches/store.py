"""Rows of files and batches in the data directory, shared by all workers."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import attrs

from impasto_plugins.gateway.config.model import DAY_SECONDS, BatchesConfig
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.storage.database import Database, storage_required

ACTIVE = ("validating", "in_progress", "finalizing", "cancelling")
"""Statuses of batches with work left."""

_DEFAULT_ATTRIBUTES: Mapping[str, object] = {
    "errors": None,
    "model": None,
    "output_file_id": None,
    "error_file_id": None,
    "in_progress_at": None,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 0, "completed": 0, "failed": 0},
    "metadata": None,
}
"""Fields of a batch before anything is known about them."""

FILE_ID = re.compile(r"file-[0-9a-f]{32}")
IMAGE_PURPOSES = ("vision", "batch")
"""Purposes of files that a call, or a line of a batch, may use as images."""

T = TypeVar("T")
Payload = dict[str, Any]
"""A batch object in OpenAI's form."""


def new_object_id(kind: str) -> str:
    """Return an id that nobody can guess."""
    return kind + secrets.token_hex(16)


@attrs.frozen(kw_only=True)
class FileRow:
    """A file. ``path`` is its content's, below the batches' folder; times are in seconds since 1970.

    ``ready`` is False during its upload; ``size``, in bytes, is then its maximum.
    """

    id: str
    owner: bytes
    purpose: str
    filename: str
    size: int
    path: str
    ready: bool
    made: float
    expires: float

    def to_openai(self) -> Payload:
        """Return the file in OpenAI's form."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": int(self.made),
            "expires_at": int(self.expires),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


@attrs.frozen(kw_only=True)
class BatchRow:
    """A batch: ``about`` is the JSON of its fields except its status.

    ``identity``: the fingerprint that a repeated request finds it by. ``room``: disk bytes that its images may take.
    """

    id: str
    owner: bytes
    identity: bytes
    status: str
    about: str
    room: int
    made: float
    expires: float

    def to_openai(self) -> Payload:
        """Return the batch in OpenAI's form."""
        attributes = {name: value for name, value in json.loads(self.about).items() if name[0] != "_"}
        return {"id": self.id, "object": "batch", **_DEFAULT_ATTRIBUTES, **attributes, "status": self.status}

    def attribute(self, name: str) -> Any:
        """Return a stored attribute, or None. Attributes with a leading dash are internal and never sent to clients."""
        return json.loads(self.about).get(name)

    def with_attributes(self, status: str | None = None, room: int | None = None, **attributes: object) -> BatchRow:
        """Return a copy with other attributes."""
        about = json.dumps({**json.loads(self.about), **attributes})
        status, room = status or self.status, self.room if room is None else room
        return attrs.evolve(self, status=status, room=room, about=about)


@attrs.frozen(kw_only=True)
class PageQuery:
    """The requested page of a list. ``after``: the id before its first."""

    limit: int
    after: str | None = None
    order: Literal["asc", "desc"] = "desc"


_TABLES: Mapping[type, str] = {FileRow: "files", BatchRow: "batches"}

PageOf = tuple[Sequence[T], bool]
"""A page of a list, and True if there is more."""


class BatchStore:
    """The store. Its methods raise APIError if the data directory can't be written."""

    def __init__(self, database: Database) -> None:
        self._data = database

    @property
    def now(self) -> float:
        """Return the seconds since 1970."""
        return self._data.clock()

    async def reserve(self, file: FileRow, limits: BatchesConfig) -> None:
        """Insert a row for an upload. Raises APIError if there are too many files, or no space for it."""

        def work(db: sqlite3.Connection) -> None:
            (count,) = db.execute("SELECT COUNT(*) FROM files WHERE owner = ?", (file.owner,)).fetchone()
            if count >= limits.max_files:
                raise _quota_error(f"a key may have {limits.max_files:,} files, and this key has as many; delete some")
            check_room(db, file.size, limits)
            db.execute(_insert_statement(FileRow), attrs.astuple(file))

        await self._transact(work)

    async def mark_ready(self, file: FileRow) -> FileRow:
        """Note that the file is complete."""
        ready_file = attrs.evolve(file, ready=True)
        values = (file.filename, file.purpose, file.size, file.expires, file.id)
        statement = "UPDATE files SET filename = ?, purpose = ?, size = ?, expires = ?, ready = 1 WHERE id = ?"
        await self._transact(lambda db: db.execute(statement, values), durable=True)
        return ready_file

    async def delete_row(self, file: FileRow) -> None:
        """Delete the row of a file."""
        await self._transact(lambda db: db.execute("DELETE FROM files WHERE id = ?", (file.id,)))

    async def file(self, id: str, owner: bytes) -> FileRow | None:
        """Return a file by its id, for its owner alone."""
        return await self._transact(lambda db: self._file(db, id, owner))

    async def image(self, id: str, owner: bytes, param: str) -> FileRow:
        """Return the file that an argument names as its image. Raises APIError."""
        return _require_image(await self._transact(lambda db: self._file(db, id, owner)), id, param)

    def image_sync(self, id: str, owner: bytes, param: str) -> FileRow:
        """Return the file that a line names as its image, in a thread other than the loop's. Raises APIError."""
        with storage_required():
            return _require_image(self._data.write_sync(lambda db: self._file(db, id, owner)), id, param)

    def _file(self, db: sqlite3.Connection, id: str, owner: bytes) -> FileRow | None:
        if FILE_ID.fullmatch(id) is None:
            return None
        return next(
            iter(select_records(db, FileRow, "id = ? AND owner = ? AND ready AND expires > ?", id, owner, self.now)),
            None,
        )

    async def files(self, owner: bytes, purpose: str | None, page: PageQuery) -> PageOf[FileRow]:
        """Return a key's files, and True if there are more."""
        where, values = "owner = ? AND ready AND expires > ?", [owner, self.now]
        if purpose is not None:
            where, values = f"{where} AND purpose = ?", [*values, purpose]
        return await self._transact(lambda db: _select_page(db, FileRow, where, values, page))

    async def insert_or_find(self, batch: BatchRow, *, since: float | None, maximum: int) -> tuple[BatchRow, bool]:
        """Insert a batch. If one with the same fingerprint was created after ``since``, return that one and True.

        Raises APIError if a key has as many as ``maximum``.
        """

        def work(db: sqlite3.Connection) -> tuple[BatchRow, bool]:
            if since is not None:
                where = "owner = ? AND identity = ? AND made > ?"
                if existing := select_records(db, BatchRow, where, batch.owner, batch.identity, since):
                    return existing[0], True
            (count,) = db.execute("SELECT COUNT(*) FROM batches WHERE owner = ?", (batch.owner,)).fetchone()
            if count >= maximum:
                raise _quota_error(f"a key may have {maximum:,} batches, and this key has as many; they expire in time")
            db.execute(_insert_statement(BatchRow), attrs.astuple(batch))
            return batch, False

        return await self._transact(work, durable=True)

    async def batch(self, id: str, owner: bytes) -> BatchRow | None:
        """Return a batch by its id, for its owner alone."""
        where = "id = ? AND owner = ? AND expires > ?"
        matches = await self._transact(lambda db: select_records(db, BatchRow, where, id, owner, self.now))
        return next(iter(matches), None)

    async def batches(self, owner: bytes, page: PageQuery) -> PageOf[BatchRow]:
        """Return a key's batches, and True if there are more."""
        where, values = "owner = ? AND expires > ?", [owner, self.now]
        return await self._transact(lambda db: _select_page(db, BatchRow, where, values, page))

    async def active(self) -> Sequence[BatchRow]:
        """Return unfinished batches of all keys, the oldest first."""
        where = f"status IN ({', '.join('?' for _ in ACTIVE)}) ORDER BY made"
        return await self._transact(lambda db: select_records(db, BatchRow, where, *ACTIVE))

    async def change(
        self,
        id: str,
        change: Callable[[BatchRow], BatchRow],
        *,
        files: Sequence[FileRow] = (),
        check: Callable[[sqlite3.Connection], object] | None = None,
    ) -> BatchRow:
        """Change a batch in one transaction after ``check`` allowed it; add its output files.

        Raises KeyError if there is none, and the errors of ``check``.
        """

        def work(db: sqlite3.Connection) -> BatchRow:
            if check is not None:
                check(db)
            existing = select_records(db, BatchRow, "id = ?", id)
            if not existing:
                raise KeyError(id)
            batch = change(existing[0])
            db.execute("DELETE FROM batches WHERE id = ?", (id,))
            db.execute(_insert_statement(BatchRow), attrs.astuple(batch))
            db.executemany(_insert_statement(FileRow), [attrs.astuple(file) for file in files])
            return batch

        return await self._transact(work, durable=True)

    async def remove_expired(self) -> tuple[Sequence[FileRow], Sequence[BatchRow]]:
        """Delete the rows of expired files and batches, and return them."""

        def work(db: sqlite3.Connection) -> tuple[Sequence[FileRow], Sequence[BatchRow]]:
            batch_condition = f"expires <= ? AND status NOT IN ({', '.join('?' for _ in ACTIVE)})"
            file_condition = "expires <= ? OR (NOT ready AND made <= ?)"  # the latter came in as a process stopped
            files = select_records(db, FileRow, file_condition, self.now, self.now - DAY_SECONDS)
            batches = select_records(db, BatchRow, batch_condition, self.now, *ACTIVE)
            db.executemany("DELETE FROM files WHERE id = ?", [(file.id,) for file in files])
            db.executemany("DELETE FROM batches WHERE id = ?", [(batch.id,) for batch in batches])
            return files, batches

        return await self._transact(work)

    async def ids(self) -> frozenset[str]:
        """Return the ids of all files and batches."""
        rows = await self._transact(
            lambda db: db.execute("SELECT id FROM files UNION SELECT id FROM batches").fetchall()
        )
        return frozenset(id for (id,) in rows)

    async def paths(self) -> frozenset[str]:
        """Return the paths of every file's content."""
        rows: list[tuple[str]] = await self._transact(lambda db: db.execute("SELECT path FROM files").fetchall())
        return frozenset(path for (path,) in rows)

    async def _transact(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        with storage_required():
            return await self._data.write(work, durable=durable)


def check_file_id(id: str, param: str) -> None:
    """Raise APIError for text that is not the id of a file."""
    if FILE_ID.fullmatch(id) is None:
        message = f"{param}: file_id must be the id of a file of POST /v1/files"
        raise APIError(400, message, code="invalid_image", param=param)


def _require_image(file: FileRow | None, id: str, param: str) -> FileRow:
    check_file_id(id, param)
    if file is None:
        raise missing_file(param)
    if file.purpose not in IMAGE_PURPOSES:
        message = f"{param}: the file must have the purpose {' or '.join(IMAGE_PURPOSES)}, not {file.purpose}"
        raise APIError(400, message, code="invalid_image", param=param)
    return file


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which stays if the first is deleted. Raises OSError."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except FileExistsError:
        return
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def missing_file(param: str | None = None) -> APIError:
    """Return the refusal of an id without a file."""
    message = "unknown file: it does not exist, belongs to another key, or has expired"
    return APIError(404, f"{param}: {message}" if param else message, code="not_found", param=param)


def check_room(db: sqlite3.Connection, size: int, limits: BatchesConfig) -> None:
    """Raise APIError if so many more bytes may not be stored."""
    (files,) = db.execute("SELECT COALESCE(SUM(size), 0) FROM files").fetchone()
    (batches,) = db.execute("SELECT COALESCE(SUM(room), 0) FROM batches").fetchone()
    remaining = limits.max_bytes - files - batches
    if size > remaining:
        raise _quota_error(
            f"this may take {size:,} bytes, and {max(remaining, 0):,} of the gateway's space for batches are"
            " left; delete files, or ask the operator to raise batches.max_bytes"
        )


def _quota_error(message: str) -> APIError:
    return APIError(429, f"{message}; nothing was sent", "insufficient_quota", "insufficient_quota", should_retry=False)


def select_records(db: sqlite3.Connection, kind: type[T], where: str, *values: object) -> list[T]:
    """Return the records that match a condition."""
    names = [field.name for field in attrs.fields(kind)]  # type: ignore[arg-type]  # an attrs class
    cursor = db.execute(f"SELECT {', '.join(names)} FROM {_TABLES[kind]} WHERE {where}", values)  # noqa: S608 - written here
    return [kind(**dict(zip(names, each, strict=True))) for each in cursor]


def _insert_statement(kind: type[attrs.AttrsInstance]) -> str:
    names = [field.name for field in attrs.fields(kind)]
    return f"INSERT INTO {_TABLES[kind]} ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})"  # noqa: S608 - names of fields


def _select_page(
    db: sqlite3.Connection, kind: type[T], where: str, values: Sequence[object], page: PageQuery
) -> PageOf[T]:
    """Raise APIError for an invalid cursor."""
    table = _TABLES[kind]
    sign = ">" if page.order == "asc" else "<"
    parameters = list(values)
    if page.after is not None:
        row = db.execute(f"SELECT made FROM {table} WHERE id = ? AND owner = ?", (page.after, values[0])).fetchone()  # noqa: S608 - a table of ours
        if row is None:
            raise APIError(400, "after: unknown id", code="invalid_value", param="after")
        where, parameters = f"{where} AND (made, id) {sign} (?, ?)", [*parameters, row[0], page.after]
    order = f"{where} ORDER BY made {page.order}, id {page.order} LIMIT ?"
    records = select_records(db, kind, order, *parameters, page.limit + 1)
    return records[: page.limit], len(records) > page.limit


def list_payload(items: Sequence[Mapping[str, object]], *, has_more: bool) -> Mapping[str, object]:
    """Return a list in OpenAI's form."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": has_more}
