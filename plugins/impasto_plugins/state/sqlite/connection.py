"""A connection to the database, in a thread of its own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from impasto.ext import StateError, StateReport
from impasto_plugins.state.clock import StoreClock
from impasto_plugins.state.results import folder_with_results

from .migrations import VERSION, migrate, report, version_of

T = TypeVar("T")

DATABASE_NAME = "gateway.sqlite3"

BUSY_SECONDS = 10.0
"""Seconds that a transaction waits for those of other processes."""


class SQLiteDatabase:
    """One process's access to the database of a folder. ``clock`` returns seconds since 1970, see SQLiteState.

    If the folder is not writable, or the database is missing or damaged, operations fail; opening is retried on the
    next use. ``result_folders``: see StateStore.
    """

    def __init__(
        self, folder: Path, setting: str, clock: Callable[[], float] | None = None, result_folders: Sequence[Path] = ()
    ) -> None:
        self.folder = folder
        self._own_clock = StoreClock(folder)
        self.clock: Callable[[], float] = clock or self._own_clock
        self._path = folder / DATABASE_NAME
        self._setting = setting
        self._result_folders = result_folders
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="impasto-state")
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._is_closed = False
        self._pid = os.getpid()

    async def open(self) -> None:
        """Create what is missing, for this user alone, and migrate an older version. Raises StateError."""
        await self._run(self._open_connection)

    async def aclose(self) -> None:
        """End the thread after its queue is empty."""
        if self._is_closed or self._pid != os.getpid():
            return
        self._is_closed = True
        try:
            closed = self._thread.submit(self._close)
        except RuntimeError:  # the interpreter ends: its threads have ended, so that this one may use the connection
            self._close()
            return
        self._thread.shutdown(wait=False)  # what is queued runs to its end
        await asyncio.wrap_future(closed)

    async def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run one transaction, exclusive among all processes. Raises StateError, and the errors of ``work``.

        All of them survive this process; a ``durable`` one is on the disk and survives a power loss. A caller that is
        cancelled does not stop it.
        """
        return await self._run(partial(self.transact, work, durable=durable))

    async def can_write(self) -> bool:
        """Return True if a transaction can write."""
        try:
            await self.write(_write_nothing)
        except StateError:
            return False
        return True

    async def check(self) -> StateReport:
        """Read the whole database, and change nothing."""
        try:
            return await self._run(self._check)
        except StateError as error:
            return StateReport(version=0, newest=VERSION, problems=[str(error)])

    async def migrate(self) -> Sequence[str]:
        """Open the database, and return the steps of its migration. Raises StateError."""
        return await self._run(self._connect)

    async def _run(self, work: Callable[[], T]) -> T:
        """Run a function in the one thread, in order."""
        if self._is_closed:
            raise StateError(f"the store in {str(self.folder)!r} is closed")
        if self._pid != os.getpid():  # the thread did not come along
            text = "the store was made before a fork; make one in this process"
            raise StateError(f"{self._setting}: {text}", is_permanent=True)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._convert_errors, work)

    def _convert_errors(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StateError(f"{self._setting}: can't store data in {str(self.folder)!r}: {reason}") from error

    def transact(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Run a transaction; the caller is in the thread."""
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
        self._own_clock.save()
        return result

    def _open_connection(self) -> sqlite3.Connection:
        """Return the connection to the file that is there. A removed file takes writes as long as it is open."""
        if self._connection is None:
            self._connect()
        elif _inode_of(self._path) != self._inode:
            raise sqlite3.DatabaseError(
                f"{DATABASE_NAME} was removed or replaced while it was in use; move it back, or restart the program:"
                " without these records repeated Idempotency-Keys are charged again"
            )
        assert self._connection is not None  # noqa: S101 - it is opened just now
        return self._connection

    def _connect(self) -> list[str]:
        """Open a connection, and return the steps of the migration."""
        self._close()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path
        with _exclusive_lock(self.folder):
            if not path.exists() or not path.stat().st_size:
                self._check_new()
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's other files take its mode
            db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
            try:
                _check_pages(db)
                self._own_clock.load()
                db.execute("PRAGMA journal_mode=WAL")
                steps = migrate(db)
            except BaseException:
                db.close()
                raise
        self._connection, self._inode = db, _inode_of(path)
        return steps

    def _check(self) -> StateReport:
        if not self._path.exists():
            return StateReport(version=0, newest=VERSION, problems=[f"{DATABASE_NAME} does not exist"])
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as db:
            _check_pages(db)
            return report(db) if version_of(db) else StateReport(version=0, newest=VERSION)

    def _check_new(self) -> None:
        """Raise sqlite3.DatabaseError if a new database would forget what was paid for."""
        if (folder := folder_with_results(self._result_folders)) is not None:
            raise sqlite3.DatabaseError(
                f"{DATABASE_NAME} is missing or empty, but there are results in {str(folder)!r}; restore it, or"
                " move that folder away to begin again: repeated Idempotency-Keys are then charged again"
            )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _inode_of(path: Path) -> int | None:
    """Return the number of a file, None if it is missing."""
    try:
        return path.stat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_nothing(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA user_version = {version_of(db)}")


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
    """Hold a lock for one process at a time: SQLite fails, and does not wait, if another switches a file to WAL."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
