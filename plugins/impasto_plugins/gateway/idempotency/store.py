"""Stored calls and their outcomes, so that a repeated request costs nothing.

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

from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.errors import APIError, charge_unknown_error
from impasto_plugins.gateway.storage.database import DATABASE_ERRORS, Database

from .in_flight import InFlightTable, reclaim
from .serialization import OutcomeFiles, dump_outcome, load_failure

OUTCOME_IMAGES = "outcomes"
"""The images of stored calls, in the data directory."""

KEY_SECONDS = 24 * 3600.0
"""Seconds for which an Idempotency-Key is valid and a job is stored."""

RETRY_SECONDS = 15 * 60.0
"""Seconds for which an SDK's retry gets the outcome of an earlier attempt."""

MAX_GROUP_SIZE = 64
"""Outcomes that are stored together at most: each is in memory until its group is stored."""

_log = logging.getLogger("impasto.gateway")


def new_row_id() -> str:
    """Return a row's id: 64 hexadecimal digits that nobody can guess."""
    return secrets.token_hex(32)


@attrs.frozen(kw_only=True)
class StoredCall:
    """One stored call.

    ``identity`` is the fingerprint that a repeated request finds it by, ``content`` that of its content. ``worker``
    runs it. ``given``: the highest attempt number of an SDK that got it. ``accepted`` describes the provider's own
    jobs, ``outcome`` the outcome; both are JSON. Times are in seconds since 1970.
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


_COLUMNS = ", ".join(field.name for field in attrs.fields(StoredCall))
_INSERT = f"INSERT INTO outcomes ({_COLUMNS}) VALUES ({', '.join('?' for _ in attrs.fields(StoredCall))})"  # noqa: S608 - names of fields


@attrs.frozen(eq=False)
class _PendingOutcome:
    """An outcome to be stored; the future ``is_stored`` reports the success."""

    identity: bytes
    outcome: CallOutcome | APIError
    is_stored: asyncio.Future[bool]


class OutcomeStore:
    """The rows of a data directory."""

    def __init__(self, database: Database) -> None:
        self._data = database
        self._files = OutcomeFiles(database.folder / OUTCOME_IMAGES)
        self._queue: list[_PendingOutcome] = []
        self._storing: asyncio.Task[None] | None = None
        self._has_reported_strays = False

    async def insert_or_join(self, row: StoredCall, *, join: bool) -> StoredCall:
        """Insert a call before it is made; with ``join``, return an existing one with its fingerprint.

        Raises DATABASE_ERRORS.
        """

        def work(db: sqlite3.Connection) -> StoredCall:
            db.execute("DELETE FROM outcomes WHERE identity = ? AND expires <= ?", (row.identity, row.made))
            if join and (existing := _select_one(db, "identity = ?", row.identity)) is not None:
                return existing
            db.execute(_INSERT, attrs.astuple(row))
            return row

        return await self._data.write(work, durable=True)

    async def record_jobs(self, row: StoredCall, jobs: str) -> None:
        """Store an accepted provider job, so that it can be fetched later."""
        await self._set(row.id, accepted=jobs)

    async def finish(self, row: StoredCall, outcome: CallOutcome | APIError, *, forget: bool) -> bool:
        """Store the outcome of a call that was begun; return False if that failed.

        A call that cost nothing is no longer found by its fingerprint; with ``forget`` it is not found at all.
        """
        # A refused call runs again if it is repeated, so that its row must not be found; a job's row still has its id.
        not_charged = isinstance(outcome, APIError) and outcome.not_charged
        if not_charged and forget:
            return await self._write_after_call(lambda db: db.execute("DELETE FROM outcomes WHERE id = ?", (row.id,)))
        state, text = (await self._save_outcomes({row.id: outcome}))[row.id]
        return await self._set(row.id, state=state, outcome=text, **({"identity": b""} if not_charged else {}))

    async def update(self, row: StoredCall, outcome: CallOutcome) -> None:
        """Store changes of an outcome, except its images."""
        await self._set(row.id, outcome=dump_outcome(outcome))

    async def forget_content(self, row: StoredCall) -> None:
        """Note that a job's caller has its id: it is no longer found by its content."""
        await self._set(row.id, identity=b"")

    async def save(self, identity: bytes, outcome: CallOutcome | APIError) -> bool:
        """Store the outcome of a call for its retry; return False if that failed.

        Calls that wait at the same time are stored together, with one sync of the folder and one transaction.
        """
        pending = _PendingOutcome(identity, outcome, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store_groups())
        return await asyncio.shield(pending.is_stored)  # others wait for the group too, whoever is cancelled

    async def _store_groups(self) -> None:
        while self._queue:
            group, self._queue = self._queue[:MAX_GROUP_SIZE], self._queue[MAX_GROUP_SIZE:]
            is_kept = False
            try:
                is_kept = await self._store_group(group)
            except Exception:  # noqa: BLE001 - a bug here must not leave those waiting who come next
                _log.exception("outcomes of calls could not be stored")
            finally:
                for each in group:
                    each.is_stored.set_result(is_kept)

    async def _store_group(self, group: list[_PendingOutcome]) -> bool:
        ids, now = [new_row_id() for _ in group], self._data.clock()
        outcomes = await self._save_outcomes({id: each.outcome for id, each in zip(ids, group, strict=True)})

        def work(db: sqlite3.Connection) -> None:
            for id, each in zip(ids, group, strict=True):
                state, text = outcomes[id]
                _insert_outcome(db, each.identity, now, id=id, state=state, outcome=text)

        return await self._write_after_call(work)

    async def claim(self, identity: bytes, count: int, *, as_job: bool = False) -> StoredCall | None:
        """Claim the stored result for retry number ``count``. Each result is handed to at most one retry per count.

        ``as_job``: a call that was begun as a job, whatever its outcome.
        """
        condition = "worker != ''" if as_job else "state = 'done'"
        where = f"identity = ? AND {condition} AND given < ? AND expires > ? ORDER BY given, made"
        values = (identity, count, self._data.clock())

        def work(db: sqlite3.Connection) -> StoredCall | None:
            # Found and claimed in one transaction: two retries with the same count can't get the same image.
            if (row := _select_one(db, where, *values)) is not None:
                db.execute("UPDATE outcomes SET given = ? WHERE id = ?", (count, row.id))
            return row

        return await self._data.write(work)

    async def release(self, row: StoredCall, count: int) -> None:
        """Release a result whose retry left before it got it; the next retry gets it."""
        values = (row.given, row.id, count)
        await self._write_after_call(
            lambda db: db.execute("UPDATE outcomes SET given = ? WHERE id = ? AND given = ?", values)
        )

    async def find_failed(self, identity: bytes) -> StoredCall | None:
        """Return a failed attempt with this fingerprint that may have been charged, or None."""
        where, now = "identity = ? AND state = 'failed' AND expires > ?", self._data.clock()
        return await self._data.write(lambda db: _select_one(db, where, identity, now))

    async def find(self, id: str, owner: bytes) -> StoredCall | None:
        """Return a call by its id, for its owner alone. Raises DATABASE_ERRORS."""
        where, now = "id = ? AND owner = ? AND expires > ?", self._data.clock()
        return await self._data.write(lambda db: _select_one(db, where, id, owner, now))

    async def load(self, row: StoredCall) -> CallOutcome:
        """Return a call's outcome. Raises APIError: its own, or that its images are gone."""
        if row.state == "failed":
            raise load_failure(row.outcome)
        try:
            return await asyncio.to_thread(self._files.load, row.id, row.outcome)
        except OSError as error:
            _log.error("a stored image is missing: %s", error.strerror)
            raise charge_unknown_error() from None

    async def reclaim_dead_workers(self, table: InFlightTable) -> list[StoredCall]:
        """Take over calls of dead workers: return jobs that can be fetched; mark the rest as possibly charged.

        Raises DATABASE_ERRORS.
        """
        return await self._data.run(lambda: self._reclaim_dead_workers(table))

    def remove_expired(self, db: sqlite3.Connection) -> None:
        """Delete expired rows with their files, and old files without a row. Report lost rows, once."""
        expired = {id for (id,) in db.execute("SELECT id FROM outcomes WHERE expires <= ?", (self._data.clock(),))}
        db.executemany("DELETE FROM outcomes WHERE id = ?", [(id,) for id in expired])

        def has_row(id: str) -> bool:  # no other column is read: an outcome's JSON may be long
            return db.execute("SELECT 1 FROM outcomes WHERE id = ?", (id,)).fetchone() is not None

        strays = self._files.remove(expired, has_row, lifetime=KEY_SECONDS)
        if strays and not self._has_reported_strays:
            self._has_reported_strays = True
            _log.warning(
                "%d stored images in %r have no record: the database is an older copy or was damaged, or the gateway"
                " was killed while it stored them; their requests are charged again if they are repeated",
                strays,
                str(self._files.folder),
            )

    async def _set(self, id: str, **values: object) -> bool:
        statement = f"UPDATE outcomes SET {', '.join(f'{name} = ?' for name in values)} WHERE id = ?"  # noqa: S608 - names of fields
        return await self._write_after_call(lambda db: db.execute(statement, (*values.values(), id)))

    async def _write_after_call(self, work: Callable[[sqlite3.Connection], object]) -> bool:
        """Run a transaction after a call; a failing disk does not hold back the response."""
        try:
            await self._data.write(work, durable=True)
        except DATABASE_ERRORS as error:
            _log.error("the outcome of a call could not be stored: %s", error)
            return False
        return True

    async def _save_outcomes(self, outcomes: Mapping[str, CallOutcome | APIError]) -> dict[str, tuple[str, str]]:
        """Return the state and the outcome of each row."""
        successes = {id: outcome for id, outcome in outcomes.items() if isinstance(outcome, CallOutcome)}
        failures = {id: dump_outcome(outcome) for id, outcome in outcomes.items() if isinstance(outcome, APIError)}
        json_by_id = await asyncio.to_thread(self._files.save, successes) if successes else {}
        for id in successes.keys() - json_by_id.keys():
            failures[id] = dump_outcome(charge_unknown_error())
        return {id: ("done", json_by_id[id]) if id in json_by_id else ("failed", failures[id]) for id in outcomes}

    def _reclaim_dead_workers(self, table: InFlightTable) -> list[StoredCall]:
        with ExitStack() as tables:
            dead: dict[str, list[bytes]] = {}
            for path in table.other_tables():
                with suppress(OSError, ValueError):  # it lives, another worker was faster, or it is not a table
                    dead[path.name] = tables.enter_context(reclaim(path))
            if not dead:
                return []
            return self._data.transact(lambda db: self._reassign_calls(db, dead, table.name), durable=True)

    def _reassign_calls(
        self, db: sqlite3.Connection, dead: Mapping[str, list[bytes]], new_worker: str
    ) -> list[StoredCall]:
        # Jobs are fetched by this worker: a GET is free. Whatever else ran there may have been charged.
        now, lost_json = self._data.clock(), dump_outcome(charge_unknown_error())
        jobs: list[StoredCall] = []
        for worker, identities in dead.items():
            jobs += _select(db, "worker = ? AND state = 'running' AND accepted != ''", worker)
            move = "UPDATE outcomes SET worker = ? WHERE worker = ? AND state = 'running' AND accepted != ''"
            db.execute(move, (new_worker, worker))
            fail = "UPDATE outcomes SET state = 'failed', outcome = ? WHERE worker = ? AND state = 'running'"
            db.execute(fail, (lost_json, worker))
            for each in identities:
                _insert_outcome(db, each, now, id=new_row_id(), state="failed", outcome=lost_json)
        return jobs


def _insert_outcome(db: sqlite3.Connection, identity: bytes, now: float, **values: Any) -> None:
    row = StoredCall(owner=b"", identity=identity, made=now, expires=now + RETRY_SECONDS, **values)
    db.execute(_INSERT, attrs.astuple(row))


def _select(db: sqlite3.Connection, where: str, *values: object) -> list[StoredCall]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM outcomes WHERE {where}", values)  # noqa: S608 - where is written here
    names = [field.name for field in attrs.fields(StoredCall)]
    return [StoredCall(**dict(zip(names, each, strict=True))) for each in rows]


def _select_one(db: sqlite3.Connection, where: str, *values: object) -> StoredCall | None:
    return next(iter(_select(db, f"{where} LIMIT 1", *values)), None)
