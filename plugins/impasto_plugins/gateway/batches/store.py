"""What is known of files and batches: rows of the data directory, which all workers share."""

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

from impasto_plugins.gateway.config.model import DAY, Batches
from impasto_plugins.gateway.errors import Failure
from impasto_plugins.gateway.idempotency.coordinator import promised
from impasto_plugins.gateway.storage.database import Data

ACTIVE = ("validating", "in_progress", "finalizing", "cancelling")
"""The statuses of batches that some worker has work with."""

_UNSAID: Mapping[str, object] = {
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
"""What is told of a batch as long as nothing else is known."""

FILE_ID = re.compile(r"file-[0-9a-f]{32}")
IMAGE_PURPOSES = ("vision", "batch")
"""The purposes of files that a call, or a line of a batch, may name as its images."""

T = TypeVar("T")
Told = dict[str, Any]
"""A batch as it is told, in OpenAI's words."""


def new_id(kind: str) -> str:
    """An id that nobody guesses."""
    return kind + secrets.token_hex(16)


@attrs.frozen(kw_only=True)
class Stored:
    """A file. ``path`` is where its content is, below the batches' folder; times are in seconds since 1970.

    ``ready`` is false while it comes in; ``size``, in bytes, is then what it may come to.
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

    def told(self) -> Told:
        """As OpenAI tells it."""
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
class Batch:
    """A batch: ``about`` is the JSON of what is told of it but for its status.

    ``identity``: what a repeated request finds it by. ``room``: bytes of the disk that its pictures may take.
    """

    id: str
    owner: bytes
    identity: bytes
    status: str
    about: str
    room: int
    made: float
    expires: float

    def told(self) -> Told:
        """As OpenAI tells it."""
        words = {name: value for name, value in json.loads(self.about).items() if name[0] != "_"}
        return {"id": self.id, "object": "batch", **_UNSAID, **words, "status": self.status}

    def word(self, name: str) -> Any:
        """What is written of it under a name, None where nothing is. Names with a dash before them are not told."""
        return json.loads(self.about).get(name)

    def changed(self, status: str | None = None, room: int | None = None, **more: object) -> Batch:
        """The same with other words."""
        about = json.dumps({**json.loads(self.about), **more})
        status, room = status or self.status, self.room if room is None else room
        return attrs.evolve(self, status=status, room=room, about=about)


@attrs.frozen(kw_only=True)
class Page:
    """Which part of a list is asked for. ``after``: the id that it comes behind."""

    limit: int
    after: str | None = None
    order: Literal["asc", "desc"] = "desc"


_TABLES: Mapping[type, str] = {Stored: "files", Batch: "batches"}

Listed = tuple[Sequence[T], bool]
"""A part of a list, and whether there is more."""


class Records:
    """Its methods raise Failure where the data directory can't be written."""

    def __init__(self, data: Data) -> None:
        self._data = data

    @property
    def now(self) -> float:
        """Seconds since 1970."""
        return self._data.clock()

    async def reserve(self, file: Stored, limits: Batches) -> None:
        """Writes down that a file comes in. Raises Failure where it is one too many, or there is no room for it."""

        def work(db: sqlite3.Connection) -> None:
            (number,) = db.execute("SELECT COUNT(*) FROM files WHERE owner = ?", (file.owner,)).fetchone()
            if number >= limits.max_files:
                raise _full(f"a key may keep {limits.max_files:,} files, and this one has them; delete some")
            check_room(db, file.size, limits)
            db.execute(_insert(Stored), attrs.astuple(file))

        await self._write(work)

    async def came(self, file: Stored) -> Stored:
        """The file is there, whole."""
        done = attrs.evolve(file, ready=True)
        values = (file.filename, file.purpose, file.size, file.expires, file.id)
        statement = "UPDATE files SET filename = ?, purpose = ?, size = ?, expires = ?, ready = 1 WHERE id = ?"
        await self._write(lambda db: db.execute(statement, values), durable=True)
        return done

    async def forget(self, file: Stored) -> None:
        """There is no such file any more."""
        await self._write(lambda db: db.execute("DELETE FROM files WHERE id = ?", (file.id,)))

    async def file(self, id: str, owner: bytes) -> Stored | None:
        """A file by its id, for its owner alone."""
        return await self._write(lambda db: self._file(db, id, owner))

    async def image(self, id: str, owner: bytes, param: str) -> Stored:
        """Return the file that an argument names as its image. Raises Failure."""
        return _usable(await self._write(lambda db: self._file(db, id, owner)), id, param)

    def image_sync(self, id: str, owner: bytes, param: str) -> Stored:
        """Return the file that a line names as its image, in a thread other than the loop's. Raises Failure."""
        with promised():
            return _usable(self._data.write_sync(lambda db: self._file(db, id, owner)), id, param)

    def _file(self, db: sqlite3.Connection, id: str, owner: bytes) -> Stored | None:
        if FILE_ID.fullmatch(id) is None:
            return None
        return next(iter(rows(db, Stored, "id = ? AND owner = ? AND ready AND expires > ?", id, owner, self.now)), None)

    async def files(self, owner: bytes, purpose: str | None, page: Page) -> Listed[Stored]:
        """A key's files, and whether there are more."""
        where, values = "owner = ? AND ready AND expires > ?", [owner, self.now]
        if purpose is not None:
            where, values = f"{where} AND purpose = ?", [*values, purpose]
        return await self._write(lambda db: _page(db, Stored, where, values, page))

    async def begin(self, batch: Batch, *, since: float | None, most: int) -> tuple[Batch, bool]:
        """Writes a batch down; where there is one of its identity made ``since`` then, gives that, and whether so.

        Raises Failure where a key has as many as ``most``.
        """

        def work(db: sqlite3.Connection) -> tuple[Batch, bool]:
            if since is not None:
                where = "owner = ? AND identity = ? AND made > ?"
                if found := rows(db, Batch, where, batch.owner, batch.identity, since):
                    return found[0], True
            (number,) = db.execute("SELECT COUNT(*) FROM batches WHERE owner = ?", (batch.owner,)).fetchone()
            if number >= most:
                raise _full(f"a key may have {most:,} batches, and this one has them; they are forgotten in time")
            db.execute(_insert(Batch), attrs.astuple(batch))
            return batch, False

        return await self._write(work, durable=True)

    async def batch(self, id: str, owner: bytes) -> Batch | None:
        """A batch by its id, for its owner alone."""
        where = "id = ? AND owner = ? AND expires > ?"
        found = await self._write(lambda db: rows(db, Batch, where, id, owner, self.now))
        return next(iter(found), None)

    async def batches(self, owner: bytes, page: Page) -> Listed[Batch]:
        """A key's batches, and whether there are more."""
        where, values = "owner = ? AND expires > ?", [owner, self.now]
        return await self._write(lambda db: _page(db, Batch, where, values, page))

    async def active(self) -> Sequence[Batch]:
        """Those that are not through, of all keys, the oldest first."""
        where = f"status IN ({', '.join('?' for _ in ACTIVE)}) ORDER BY made"
        return await self._write(lambda db: rows(db, Batch, where, *ACTIVE))

    async def change(
        self,
        id: str,
        change: Callable[[Batch], Batch],
        *,
        files: Sequence[Stored] = (),
        check: Callable[[sqlite3.Connection], object] | None = None,
    ) -> Batch:
        """Changes a batch alone among all workers, once ``check`` let it pass; adds the files that it leaves.

        Raises KeyError where there is none, and what ``check`` raises.
        """

        def work(db: sqlite3.Connection) -> Batch:
            if check is not None:
                check(db)
            found = rows(db, Batch, "id = ?", id)
            if not found:
                raise KeyError(id)
            batch = change(found[0])
            db.execute("DELETE FROM batches WHERE id = ?", (id,))
            db.execute(_insert(Batch), attrs.astuple(batch))
            db.executemany(_insert(Stored), [attrs.astuple(file) for file in files])
            return batch

        return await self._write(work, durable=True)

    async def expired(self) -> tuple[Sequence[Stored], Sequence[Batch]]:
        """Takes away the rows of what has expired, and gives them."""

        def work(db: sqlite3.Connection) -> tuple[Sequence[Stored], Sequence[Batch]]:
            where = f"expires <= ? AND status NOT IN ({', '.join('?' for _ in ACTIVE)})"
            gone = "expires <= ? OR (NOT ready AND made <= ?)"  # the latter came in as a process stopped
            files = rows(db, Stored, gone, self.now, self.now - DAY)
            batches = rows(db, Batch, where, self.now, *ACTIVE)
            db.executemany("DELETE FROM files WHERE id = ?", [(file.id,) for file in files])
            db.executemany("DELETE FROM batches WHERE id = ?", [(batch.id,) for batch in batches])
            return files, batches

        return await self._write(work)

    async def known(self) -> frozenset[str]:
        """The ids of all files and batches."""
        found = await self._write(lambda db: db.execute("SELECT id FROM files UNION SELECT id FROM batches").fetchall())
        return frozenset(id for (id,) in found)

    async def paths(self) -> frozenset[str]:
        """Where the content of every file is."""
        found: list[tuple[str]] = await self._write(lambda db: db.execute("SELECT path FROM files").fetchall())
        return frozenset(path for (path,) in found)

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        with promised():
            return await self._data.write(work, durable=durable)


def check_file_id(id: str, param: str) -> None:
    """Raise Failure for text that is not the id of a file."""
    if FILE_ID.fullmatch(id) is None:
        said = f"{param}: file_id must be the id of a file of POST /v1/files"
        raise Failure(400, said, code="invalid_image", param=param)


def _usable(file: Stored | None, id: str, param: str) -> Stored:
    check_file_id(id, param)
    if file is None:
        raise missing_file(param)
    if file.purpose not in IMAGE_PURPOSES:
        said = f"{param}: the file must have the purpose {' or '.join(IMAGE_PURPOSES)}, not {file.purpose}"
        raise Failure(400, said, code="invalid_image", param=param)
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


def missing_file(param: str | None = None) -> Failure:
    """Return the refusal of an id without a file."""
    said = "there is no such file, or it is another key's, or it has expired"
    return Failure(404, f"{param}: {said}" if param else said, code="not_found", param=param)


def check_room(db: sqlite3.Connection, size: int, limits: Batches) -> None:
    """Raises Failure where so many more bytes may not be kept."""
    (files,) = db.execute("SELECT COALESCE(SUM(size), 0) FROM files").fetchone()
    (pictures,) = db.execute("SELECT COALESCE(SUM(room), 0) FROM batches").fetchone()
    left = limits.max_bytes - files - pictures
    if size > left:
        raise _full(
            f"this may take {size:,} bytes, and of those that the gateway keeps for batches {max(left, 0):,} are"
            " left; delete files, or let batches.max_bytes be raised"
        )


def _full(said: str) -> Failure:
    return Failure(429, f"{said}; nothing was sent", "insufficient_quota", "insufficient_quota", should_retry=False)


def rows(db: sqlite3.Connection, kind: type[T], where: str, *values: object) -> list[T]:
    """The records that a condition finds."""
    names = [field.name for field in attrs.fields(kind)]  # type: ignore[arg-type]  # an attrs class
    found = db.execute(f"SELECT {', '.join(names)} FROM {_TABLES[kind]} WHERE {where}", values)  # noqa: S608 - written here
    return [kind(**dict(zip(names, each, strict=True))) for each in found]


def _insert(kind: type[attrs.AttrsInstance]) -> str:
    names = [field.name for field in attrs.fields(kind)]
    return f"INSERT INTO {_TABLES[kind]} ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})"  # noqa: S608 - names of fields


def _page(db: sqlite3.Connection, kind: type[T], where: str, values: Sequence[object], page: Page) -> Listed[T]:
    """Raises Failure where the cursor is none."""
    table = _TABLES[kind]
    sign = ">" if page.order == "asc" else "<"
    given = list(values)
    if page.after is not None:
        found = db.execute(f"SELECT made FROM {table} WHERE id = ? AND owner = ?", (page.after, values[0])).fetchone()  # noqa: S608 - a table of ours
        if found is None:
            raise Failure(400, "after: is the id of nothing that is there", code="invalid_value", param="after")
        where, given = f"{where} AND (made, id) {sign} (?, ?)", [*given, found[0], page.after]
    order = f"{where} ORDER BY made {page.order}, id {page.order} LIMIT ?"
    listed = rows(db, kind, order, *given, page.limit + 1)
    return listed[: page.limit], len(listed) > page.limit


def listing(told: Sequence[Mapping[str, object]], *, more: bool) -> Mapping[str, object]:
    """A list as OpenAI tells it."""
    first, last = (told[0]["id"], told[-1]["id"]) if told else (None, None)
    return {"object": "list", "data": told, "first_id": first, "last_id": last, "has_more": more}
