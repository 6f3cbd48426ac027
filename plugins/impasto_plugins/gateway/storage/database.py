"""The data directory: one SQLite file that all workers share, and a thread of its own for what is slow there."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

BUSY_SECONDS = 10.0
"""How long a transaction waits for those of other workers."""

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

UNWRITABLE = (sqlite3.Error, OSError)
"""What comes of a disk that is full or broken."""

_log = logging.getLogger("impasto.gateway")


class Data:
    """One worker's way to the data directory. ``clock`` gives seconds since 1970.

    A directory that can't be written stops nothing but what needs it, and is tried again then.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="impasto-data")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Makes what is missing, for this user alone; says so where that is not possible."""
        try:
            await self.in_thread(self._opened)
        except UNWRITABLE as error:
            said = getattr(error, "strerror", None) or error
            _log.error("can't keep data in %r: %s; see general_settings.data_dir", str(self.folder), said)

    async def aclose(self) -> None:
        """Ends the thread when it has done what it was given."""
        await self.in_thread(self._close)
        self._thread.shutdown(wait=False)  # it is at its end

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Runs in the one thread, in turn."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Runs one transaction, alone among all workers. Raises what is in UNWRITABLE.

        All of them outlive this process; a ``durable`` one has reached the disk and outlives the machine.
        """
        return await self.in_thread(lambda: self.transact(work, durable=durable))

    def write_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one transaction for a thread that is not a loop's. Raises what is in UNWRITABLE."""
        return self._thread.submit(self.transact, work).result()

    def transact(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """``write``, for what is in the thread already."""
        db = self._db or self._opened()
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        db.execute("BEGIN IMMEDIATE")
        try:
            done = work(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return done

    def _opened(self) -> sqlite3.Connection:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / "gateway.sqlite3"
        with _alone(self.folder):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's other files take its mode
            db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(_SCHEMA)
            except BaseException:
                db.close()
                raise
        self._db = db
        return db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One worker at a time: SQLite does not wait for another that turns a new file to its log, but fails."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
