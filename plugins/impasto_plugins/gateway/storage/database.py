"""The data directory: one SQLite file that all workers share, and a thread for slow operations."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from impasto_plugins.gateway.errors import SERVER, APIError

T = TypeVar("T")

DATABASE_NAME = "gateway.sqlite3"

BUSY_SECONDS = 10.0
"""Seconds that a transaction waits for those of other workers."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
    key BLOB, what TEXT, period INTEGER, amount INTEGER NOT NULL, PRIMARY KEY (key, what, period)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    id TEXT PRIMARY KEY, owner BLOB NOT NULL, identity BLOB NOT NULL, content BLOB NOT NULL, state TEXT NOT NULL,
    model TEXT NOT NULL, response_format TEXT NOT NULL, worker TEXT NOT NULL, given INTEGER NOT NULL,
    accepted TEXT NOT NULL, outcome TEXT NOT NULL, made REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outcomes_by_identity ON outcomes (identity);
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, owner BLOB NOT NULL, purpose TEXT NOT NULL, filename TEXT NOT NULL, size INTEGER NOT NULL,
    path TEXT NOT NULL, ready INTEGER NOT NULL, made REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_owner ON files (owner, made);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, owner BLOB NOT NULL, identity BLOB NOT NULL, status TEXT NOT NULL, about TEXT NOT NULL,
    room INTEGER NOT NULL, made REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batches_by_owner ON batches (owner, made);
CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status);
"""

DATABASE_ERRORS = (sqlite3.Error, OSError)
"""Errors of a full or broken disk."""

_log = logging.getLogger("impasto.gateway")


class Database:
    """One worker's access to the data directory. ``clock`` returns seconds since 1970.

    If the directory is not writable, or its records are missing or damaged, only operations that need it fail; opening
    is retried on the next use. ``result_folders``: folders that have files only if there are records of them. A new
    database beside them would not know what was paid for.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.time, *, result_folders: Sequence[Path] = ()
    ) -> None:
        self.folder = folder
        self.clock = clock
        self._result_folders = result_folders
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="impasto-data")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._check: asyncio.Task[bool] | None = None

    async def open(self) -> None:
        """Create missing files, for this user alone; log if that is not possible."""
        try:
            await self.run(self._connect)
        except DATABASE_ERRORS as error:
            reason = getattr(error, "strerror", None) or error
            _log.error("can't store data in %r: %s; see general_settings.data_dir", str(self.folder), reason)

    async def aclose(self) -> None:
        """End the thread after its queue is empty."""
        await self.run(self._close)
        self._thread.shutdown(wait=False)  # it is at its end

    async def is_usable(self) -> bool:
        """Return True if the directory can be written to. One check at a time serves all who ask."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self.run(self._try_write))
        return await asyncio.shield(self._check)

    async def run(self, work: Callable[[], T]) -> T:
        """Run a function in the one thread, in order."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run one transaction, exclusive among all workers. Raises DATABASE_ERRORS.

        All of them survive this process; a ``durable`` one is on the disk and survives a power loss.
        """
        transaction = partial(self.transact, work, durable=durable)
        return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)

    def write_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one transaction in a thread that is not the loop's. Raises DATABASE_ERRORS."""
        return self._thread.submit(self.transact, work).result()

    def transact(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run ``write`` for code that is in the thread already."""
        db = self._open_connection()
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return result

    def _open_connection(self) -> sqlite3.Connection:
        """Return the connection to the file that is there. A removed file takes writes as long as it is open."""
        if self._connection is None:
            return self._connect()
        path = self.folder / DATABASE_NAME
        if not path.exists() or path.stat().st_ino != self._inode:
            raise sqlite3.DatabaseError(
                f"{DATABASE_NAME} was removed or replaced while the gateway ran; move it back, or restart the gateway:"
                " without these records repeated Idempotency-Keys are charged again"
            )
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / DATABASE_NAME
        with _exclusive_lock(self.folder):
            if not path.exists() or not path.stat().st_size:
                self._check_new()
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's other files take its mode
            db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
            try:
                _check_pages(db)
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(_SCHEMA)
            except BaseException:
                db.close()
                raise
        self._connection, self._inode = db, path.stat().st_ino
        return db

    def _try_write(self) -> bool:
        try:
            self.transact(lambda db: db.execute("PRAGMA user_version = 0"))
        except DATABASE_ERRORS:
            return False
        return True

    def _check_new(self) -> None:
        """Raise sqlite3.DatabaseError if a new database would forget what was paid for."""
        for folder in self._result_folders:
            if folder.is_dir() and any(folder.iterdir()):
                raise sqlite3.DatabaseError(
                    f"{DATABASE_NAME} is missing or empty, but there are results in {str(folder)!r}; restore it, or"
                    " move that folder away to begin again: repeated Idempotency-Keys are then charged again"
                )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _check_pages(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError if a page is damaged: its rows would be missing without an error."""
    try:
        (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:  # locked, or the disk fails
        raise
    except sqlite3.DatabaseError as error:
        problem = str(error)
    if problem != "ok":
        raise sqlite3.DatabaseError(
            f"{DATABASE_NAME} is damaged ({problem}); restore it, or move the whole directory away to begin again:"
            " repeated Idempotency-Keys are then charged again"
        )


@contextmanager
def _exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold a lock for one worker at a time: SQLite fails, instead of waiting, if another switches a new file to WAL."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def storage_required(action: str = "written down") -> Iterator[None]:
    """Convert storage errors to a refusal, around reads and writes that must precede a call."""
    try:
        yield
    except ConnectionError:  # the caller left
        raise
    except DATABASE_ERRORS as error:
        _log.error("a call can't be %s: %s", action, error)
        message = (
            f"the call can't be {action} now, and without that a repeated request could be charged twice; nothing was"
            " sent, try again"
        )
        raise APIError(503, message, SERVER, "overloaded", retry_after=5, should_retry=True) from None
