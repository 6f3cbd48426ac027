"""Calls that are written down, and what came of them, so that a repeated request costs nothing.

A row is ``running`` (it has an Idempotency-Key, or is a job), ``done`` or ``failed``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

import attrs

from impasto_plugins.gateway.calls.execution import Done
from impasto_plugins.gateway.errors import Failure, unknown
from impasto_plugins.gateway.storage.database import UNWRITABLE, Data

from .in_flight import Flights, taken_over
from .serialization import Files, failed, told

KEY_SECONDS = 24 * 3600.0
"""How long an Idempotency-Key holds, and a job is kept."""

RETRY_SECONDS = 15 * 60.0
"""How long an SDK's retry is given what an earlier attempt came to."""

GROUP = 64
"""How many outcomes are kept together at most: each is in memory until its group is kept."""

_log = logging.getLogger("impasto.gateway")


def new_id() -> str:
    """A row's id: 64 hexadecimal digits, which nobody guesses."""
    return secrets.token_hex(32)


@attrs.frozen(kw_only=True)
class Row:
    """One call that was written down.

    ``identity`` is what a repeated request finds it by, ``content`` what was asked for. ``worker`` makes it.
    ``given``: the highest count of an SDK's attempts that was given it. ``accepted`` tells of the provider's own jobs,
    ``outcome`` of what came of it; both are JSON. Times are in seconds since 1970.
    """

    id: str
    owner: bytes
    identity: bytes
    content: bytes = b""
    state: str = "running"
    model: str = ""
    response_format: str = ""
    worker: str = ""
    given: int = 0
    accepted: str = ""
    outcome: str = attrs.field(default="", repr=False)
    made: float
    expires: float


_COLUMNS = ", ".join(field.name for field in attrs.fields(Row))
_INSERT = f"INSERT INTO outcomes ({_COLUMNS}) VALUES ({', '.join('?' for _ in attrs.fields(Row))})"  # noqa: S608 - names of fields


@attrs.frozen(eq=False)
class _Waiting:
    """An outcome that is to be kept; ``is_kept`` is the answer to whoever asked for that."""

    identity: bytes
    outcome: Done | Failure
    is_kept: asyncio.Future[bool]


class Kept:
    """The rows of a data directory."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._files = Files(data.folder / "pictures")
        self._waiting: list[_Waiting] = []
        self._keeping: asyncio.Task[None] | None = None

    async def begin(self, row: Row, *, join: bool) -> Row:
        """Writes a call down before it is made; with ``join``, where there is one of its identity, gives that.

        Raises what is in UNWRITABLE.
        """

        def work(db: sqlite3.Connection) -> Row:
            db.execute("DELETE FROM outcomes WHERE identity = ? AND expires <= ?", (row.identity, row.made))
            if join and (there := _row(db, "identity = ?", row.identity)) is not None:
                return there
            db.execute(_INSERT, attrs.astuple(row))
            return row

        return await self._data.write(work, durable=True)

    async def accept(self, row: Row, accepted: str) -> None:
        """Writes down what a provider took on, so that it can be fetched later."""
        await self._set(row.id, accepted=accepted)

    async def finish(self, row: Row, outcome: Done | Failure, *, forget: bool) -> bool:
        """Writes down what became of a call that was begun; False where that failed.

        One that cost nothing is no longer found by its identity; with ``forget`` it is not found at all.
        """
        free = isinstance(outcome, Failure) and outcome.free
        if free and forget:
            return await self._after(lambda db: db.execute("DELETE FROM outcomes WHERE id = ?", (row.id,)))
        state, text = (await self._saved({row.id: outcome}))[row.id]
        return await self._set(row.id, state=state, outcome=text, **({"identity": b""} if free else {}))

    async def update(self, row: Row, done: Done) -> None:
        """Writes down what changed of an outcome but for its pictures."""
        await self._set(row.id, outcome=told(done))

    async def settle(self, row: Row) -> None:
        """A job's caller knows its id: it is not found by its content any more."""
        await self._set(row.id, identity=b"")

    async def keep(self, identity: bytes, outcome: Done | Failure) -> bool:
        """Keeps what became of a call for its retry; False where that failed.

        Calls that wait at the same time are kept together: one folder is synced and one transaction committed for all.
        """
        waiting = _Waiting(identity, outcome, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._keep_in_groups())
        return await asyncio.shield(waiting.is_kept)  # others wait for the group too, whoever is cancelled

    async def _keep_in_groups(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            is_kept = False
            try:
                is_kept = await self._keep_group(group)
            except Exception:  # noqa: BLE001 - a bug here must not leave those waiting who come next
                _log.exception("outcomes of calls could not be kept")
            finally:
                for each in group:
                    each.is_kept.set_result(is_kept)

    async def _keep_group(self, group: list[_Waiting]) -> bool:
        ids, now = [new_id() for _ in group], self._data.clock()
        outcomes = await self._saved({id: each.outcome for id, each in zip(ids, group, strict=True)})

        def work(db: sqlite3.Connection) -> None:
            for id, each in zip(ids, group, strict=True):
                state, text = outcomes[id]
                _keep(db, each.identity, now, id=id, state=state, outcome=text)

        return await self._after(work)

    async def claim(self, identity: bytes, count: int, *, begun: bool = False) -> Row | None:
        """The result that waits for a call's retry of this count: no other of the same count is given it.

        ``begun``: a call that was begun as a job, whatever became of it.
        """
        which = "worker != ''" if begun else "state = 'done'"
        where = f"identity = ? AND {which} AND given < ? AND expires > ? ORDER BY given, made"
        values = (identity, count, self._data.clock())

        def work(db: sqlite3.Connection) -> Row | None:
            if (row := _row(db, where, *values)) is not None:
                db.execute("UPDATE outcomes SET given = ? WHERE id = ?", (count, row.id))
            return row

        return await self._data.write(work)

    async def unclaim(self, row: Row, count: int) -> None:
        """A retry left before it was given its result, which waits for the next again."""
        values = (row.given, row.id, count)
        await self._after(lambda db: db.execute("UPDATE outcomes SET given = ? WHERE id = ? AND given = ?", values))

    async def failed(self, identity: bytes) -> Row | None:
        """An attempt of this identity that may have been charged, and came to nothing."""
        where, now = "identity = ? AND state = 'failed' AND expires > ?", self._data.clock()
        return await self._data.write(lambda db: _row(db, where, identity, now))

    async def find(self, id: str, owner: bytes) -> Row | None:
        """A call by its id, for its owner alone. Raises what is in UNWRITABLE."""
        where, now = "id = ? AND owner = ? AND expires > ?", self._data.clock()
        return await self._data.write(lambda db: _row(db, where, id, owner, now))

    async def load(self, row: Row) -> Done:
        """What a call came to. Raises Failure: its own, or where its pictures are gone."""
        if row.state == "failed":
            raise failed(row.outcome)
        try:
            return await asyncio.to_thread(self._files.load, row.id, row.outcome)
        except OSError as error:
            _log.error("a picture that was kept is gone: %s", error.strerror)
            raise unknown() from None

    async def take_over(self, flights: Flights) -> list[Row]:
        """Takes what dead workers were doing: jobs that can be fetched, given here; the rest may have been charged.

        Raises what is in UNWRITABLE.
        """
        return await self._data.in_thread(lambda: self._take_over(flights))

    def remove_expired(self, db: sqlite3.Connection) -> None:
        """Removes rows that have expired, and files that no row names."""
        db.execute("DELETE FROM outcomes WHERE expires <= ?", (self._data.clock(),))
        self._files.remove_strays(lambda row_id: _row(db, "id = ?", row_id) is not None)

    async def _set(self, id: str, **values: object) -> bool:
        statement = f"UPDATE outcomes SET {', '.join(f'{name} = ?' for name in values)} WHERE id = ?"  # noqa: S608 - names of fields
        return await self._after(lambda db: db.execute(statement, (*values.values(), id)))

    async def _after(self, work: Callable[[sqlite3.Connection], object]) -> bool:
        """A transaction that comes after a call, whose answer is not held back by a disk that fails."""
        try:
            await self._data.write(work, durable=True)
        except UNWRITABLE as error:
            _log.error("the outcome of a call could not be kept: %s", error)
            return False
        return True

    async def _saved(self, outcomes: Mapping[str, Done | Failure]) -> dict[str, tuple[str, str]]:
        """The state and the outcome of each row."""
        done = {id: outcome for id, outcome in outcomes.items() if isinstance(outcome, Done)}
        failed = {id: told(outcome) for id, outcome in outcomes.items() if isinstance(outcome, Failure)}
        saved = await asyncio.to_thread(self._files.save, done) if done else {}
        lost = told(unknown())
        return {id: ("done", saved[id]) if id in saved else ("failed", failed.get(id, lost)) for id in outcomes}

    def _take_over(self, flights: Flights) -> list[Row]:
        with ExitStack() as tables:
            dead: dict[str, list[bytes]] = {}
            for path in flights.others():
                with suppress(OSError, ValueError):  # it lives, another worker was faster, or it is no table
                    dead[path.name] = tables.enter_context(taken_over(path))
            if not dead:
                return []
            return self._data.transact(lambda db: self._taken(db, dead, flights.name), durable=True)

    def _taken(self, db: sqlite3.Connection, dead: Mapping[str, list[bytes]], heir: str) -> list[Row]:
        now, lost = self._data.clock(), told(unknown())
        taken: list[Row] = []
        for worker, identities in dead.items():
            taken += _rows(db, "worker = ? AND state = 'running' AND accepted != ''", worker)
            move = "UPDATE outcomes SET worker = ? WHERE worker = ? AND state = 'running' AND accepted != ''"
            db.execute(move, (heir, worker))
            fail = "UPDATE outcomes SET state = 'failed', outcome = ? WHERE worker = ? AND state = 'running'"
            db.execute(fail, (lost, worker))
            for each in identities:
                _keep(db, each, now, id=new_id(), state="failed", outcome=lost)
        return taken


def _keep(db: sqlite3.Connection, identity: bytes, now: float, **values: Any) -> None:
    row = Row(owner=b"", identity=identity, made=now, expires=now + RETRY_SECONDS, **values)
    db.execute(_INSERT, attrs.astuple(row))


def _rows(db: sqlite3.Connection, where: str, *values: object) -> list[Row]:
    found = db.execute(f"SELECT {_COLUMNS} FROM outcomes WHERE {where}", values)  # noqa: S608 - where is written here
    names = [field.name for field in attrs.fields(Row)]
    return [Row(**dict(zip(names, each, strict=True))) for each in found]


def _row(db: sqlite3.Connection, where: str, *values: object) -> Row | None:
    return next(iter(_rows(db, f"{where} LIMIT 1", *values)), None)
