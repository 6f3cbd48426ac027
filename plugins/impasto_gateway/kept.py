"""Outcomes of calls that may have been charged, kept so that a repeated request costs nothing.

Each is a row: ``running`` (it has an Idempotency-Key), ``done`` or ``failed``. Its pictures are files, which are on the
disk before the row says that it is done.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import attrs

from impasto import Artifact, Cost, File

from .calls import Done
from .data import UNWRITABLE, Data
from .errors import REPLAYED, SERVER, Failure
from .flights import Flights, taken_over
from .large import HELD

KEY_SECONDS = 24 * 3600.0
"""How long an Idempotency-Key holds."""

RETRY_SECONDS = 15 * 60.0
"""How long an SDK's retry is given what an earlier attempt came to."""

_STRAY_SECONDS = 3600.0
"""After which a picture file without a row is nobody's."""

_PIECE = 1 << 20

_INSERT = "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_log = logging.getLogger("impasto.gateway")


def unknown() -> Failure:
    """What is told of a call that nobody can tell the outcome of."""
    said = (
        "an earlier attempt at this request left for the provider and its outcome was lost: it may have been charged;"
        " look at the provider's account, then ask again as a new request"
    )
    return Failure(502, said, SERVER, "charge_unknown", should_retry=False, free=False)


@attrs.frozen
class Row:
    """One call that was written down. ``content`` is what was asked for; ``outcome`` is JSON, empty while it runs."""

    id: str
    content: bytes
    state: str
    outcome: str = attrs.field(repr=False)


class Kept:
    """The rows and the picture files of a data directory."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._folder = data.folder / "pictures"

    async def begin(self, owner: bytes, identity: bytes, content: bytes, worker: str) -> tuple[Row, bool]:
        """Writes a call down before it is made; where there is one of this identity, gives that, and False.

        Raises what is in UNWRITABLE.
        """
        now, id = self._data.clock(), secrets.token_hex(32)

        def work(db: sqlite3.Connection) -> tuple[Row, bool]:
            db.execute("DELETE FROM calls WHERE identity = ? AND expires <= ?", (identity, now))
            if (row := _row(db, "identity = ?", identity)) is not None:
                return row, False
            values = (id, owner, identity, content, "running", worker, 0, "", now, now + KEY_SECONDS)
            db.execute(_INSERT, values)
            return Row(id, content, "running", ""), True

        return await self._data.write(work, durable=True)

    async def finish(self, row: Row, outcome: Done | Failure) -> None:
        """Writes down what became of a call that was begun; one that cost nothing is forgotten."""
        if isinstance(outcome, Failure) and outcome.free:
            await self._after(lambda db: db.execute("DELETE FROM calls WHERE id = ?", (row.id,)))
            return
        state, told = await self._told(row.id, outcome)
        values = (state, told, row.id)
        await self._after(lambda db: db.execute("UPDATE calls SET state = ?, outcome = ? WHERE id = ?", values))

    async def keep(self, identity: bytes, outcome: Done | Failure) -> bool:
        """Keeps what became of a call for its retry; False where that failed."""
        id, now = secrets.token_hex(32), self._data.clock()
        state, told = await self._told(id, outcome)
        values = (id, b"", identity, b"", state, None, 0, told, now, now + RETRY_SECONDS)
        return await self._after(lambda db: db.execute(_INSERT, values))

    async def claim(self, identity: bytes, count: int) -> Row | None:
        """The result that waits for a call's retry of this count: no other of the same count is given it."""
        where = "identity = ? AND state = 'done' AND given < ? AND expires > ? ORDER BY given, made"
        values = (identity, count, self._data.clock())

        def work(db: sqlite3.Connection) -> Row | None:
            if (row := _row(db, where, *values)) is not None:
                db.execute("UPDATE calls SET given = ? WHERE id = ?", (count, row.id))
            return row

        return await self._data.write(work)

    async def unclaim(self, row: Row, count: int) -> None:
        """A retry left before it was given its result, which waits for the next again."""
        values = (row.id, count)
        await self._after(lambda db: db.execute("UPDATE calls SET given = 0 WHERE id = ? AND given = ?", values))

    async def failed(self, identity: bytes) -> Row | None:
        """An attempt of this identity that may have been charged, and came to nothing."""
        where, now = "identity = ? AND state = 'failed' AND expires > ?", self._data.clock()
        return await self._data.write(lambda db: _row(db, where, identity, now))

    async def load(self, row: Row) -> Done:
        """What a call came to. Raises Failure: its own, or where its pictures are gone."""
        told = json.loads(row.outcome)
        if row.state == "failed":
            raise Failure(**told, should_retry=False, free=False, headers=dict(REPLAYED))
        try:
            artifacts = await asyncio.to_thread(self._artifacts, row.id, told["artifacts"])
        except OSError as error:
            _log.error("a picture that was kept is gone: %s", error.strerror)
            raise unknown() from None
        return Done(
            artifacts=artifacts,
            warnings=tuple(told["warnings"]),
            lost=tuple(told["lost"]),
            cost=Cost(**told["cost"]) if told["cost"] is not None else None,
            created=told["created"],
            names=tuple(told["names"]),
        )

    async def take_over(self, flights: Flights) -> None:
        """Writes down that what dead workers were doing may have been charged. Raises what is in UNWRITABLE."""
        await self._data.in_thread(lambda: self._take_over(flights))

    def remove_expired(self, db: sqlite3.Connection) -> None:
        """Removes rows that have expired, and files that no row names."""
        db.execute("DELETE FROM calls WHERE expires <= ?", (self._data.clock(),))
        with suppress(OSError):
            old = [
                each.name for each in os.scandir(self._folder) if each.stat().st_mtime < time.time() - _STRAY_SECONDS
            ]
            for name in old:
                if _row(db, "id = ?", name.partition(".")[0]) is None:
                    (self._folder / name).unlink(missing_ok=True)

    async def _after(self, work: Callable[[sqlite3.Connection], object]) -> bool:
        """A transaction that comes after a call, whose answer is not held back by a disk that fails."""
        try:
            await self._data.write(work, durable=True)
        except UNWRITABLE as error:
            _log.error("the outcome of a call could not be kept: %s", error)
            return False
        return True

    async def _told(self, id: str, outcome: Done | Failure) -> tuple[str, str]:
        """A row's state and outcome. The pictures are on the disk then."""
        if isinstance(outcome, Done):
            try:
                await asyncio.to_thread(self._save, id, outcome.artifacts)
            except OSError as error:
                _log.error("a picture that was paid for could not be kept: %s", error.strerror)
                outcome = unknown()
            else:
                return "done", _done(outcome)
        return "failed", _failed(outcome)

    def _save(self, id: str, artifacts: Iterable[Artifact]) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for i, artifact in enumerate(artifacts):
            number = os.open(self._folder / f"{id}.{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(number, "wb") as target, artifact.content.open() as source:
                shutil.copyfileobj(source, target, _PIECE)
                target.flush()
                os.fsync(number)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _artifacts(self, id: str, told: Sequence[Mapping[str, Any]]) -> tuple[Artifact, ...]:
        paths = [self._folder / f"{id}.{i}" for i in range(len(told))]
        return tuple(_artifact(path, each) for path, each in zip(paths, told, strict=True))

    def _take_over(self, flights: Flights) -> None:
        with ExitStack() as tables:
            dead: dict[str, list[bytes]] = {}
            for path in flights.others():
                with suppress(OSError, ValueError):  # it lives, another worker was faster, or it is no table
                    dead[path.name] = tables.enter_context(taken_over(path))
            if dead:
                self._data.transact(lambda db: self._lose(db, dead), durable=True)

    def _lose(self, db: sqlite3.Connection, dead: Mapping[str, list[bytes]]) -> None:
        now, told = self._data.clock(), _failed(unknown())
        for worker, identities in dead.items():
            db.execute(
                "UPDATE calls SET state = 'failed', outcome = ? WHERE worker = ? AND state = 'running'", (told, worker)
            )
            for each in identities:
                values = (secrets.token_hex(32), b"", each, b"", "failed", None, 0, told, now, now + RETRY_SECONDS)
                db.execute(_INSERT, values)


def _row(db: sqlite3.Connection, where: str, *values: object) -> Row | None:
    found = db.execute(f"SELECT id, content, state, outcome FROM calls WHERE {where} LIMIT 1", values).fetchone()  # noqa: S608 - where is written here
    return Row(*found) if found is not None else None


def _artifact(path: Path, told: Mapping[str, Any]) -> Artifact:
    if path.stat().st_size <= HELD:
        return Artifact(data=path.read_bytes(), **told)
    return Artifact(data=b"", file=File.of(path), **told)


def _done(done: Done) -> str:
    pictures = [
        attrs.asdict(each, filter=lambda field, _: field.name not in ("data", "file")) for each in done.artifacts
    ]
    cost = attrs.asdict(done.cost) if done.cost is not None else None
    return json.dumps({**attrs.asdict(done, recurse=False), "artifacts": pictures, "cost": cost})


def _failed(failure: Failure) -> str:
    return json.dumps({name: getattr(failure, name) for name in ("status", "message", "type", "code", "param")})
