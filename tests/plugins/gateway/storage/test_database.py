"""The data directory, which several workers make and use at once."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.storage.database import DATABASE_NAME, Database, storage_required
from tests.descriptors import open_descriptors


class Watched(sqlite3.Connection):
    """Counts how many are being opened."""

    opening = most = 0

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        done = super().executescript(script)
        Watched.opening -= 1
        return done


def test_workers_that_begin_at_once_make_it_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite waits for another's lock, but not where it turns a new file to its log: one of them would fail then."""
    connect = sqlite3.connect

    def slow(*args: Any, **options: Any) -> sqlite3.Connection:
        Watched.opening += 1
        Watched.most = max(Watched.most, Watched.opening)
        time.sleep(0.02)
        return connect(*args, factory=Watched, **options)

    monkeypatch.setattr("impasto_plugins.gateway.storage.database.sqlite3.connect", slow)

    def begin(number: int) -> None:
        data = Database(tmp_path / "data")
        data.transact(lambda db: db.execute("INSERT INTO used VALUES (?, 'x', 1, 1)", (b"%d" % number,)))
        data._close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(4)))
    data = Database(tmp_path / "data")
    assert data.transact(lambda db: db.execute("SELECT count(*) FROM used").fetchone()) == (4,)
    data._close()
    assert Watched.most == 1


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "data")
    yield database
    database._close()
    database._thread.shutdown()


def used(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT count(*) FROM used").fetchone()
    return int(count)


def test_of_work_that_fails_nothing_is_written_and_its_error_is_raised(data: Database) -> None:
    def work(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO used VALUES (x'01', 'x', 1, 1)")
        raise LookupError("in the middle")

    for _ in range(2):  # no transaction is left open
        with pytest.raises(LookupError, match="in the middle"):
            data.transact(work)
    assert data.transact(used) == 0


def test_a_damaged_database_is_not_kept_open(data: Database) -> None:
    data.folder.mkdir()
    path = data.folder / DATABASE_NAME
    path.write_bytes(b"no database" * 1_000)
    for _ in range(3):
        with pytest.raises(sqlite3.DatabaseError, match="damaged"):
            data.transact(used)
    assert open_descriptors(path) == 0


@pytest.mark.parametrize("results", ["no folder", "an empty folder", "an image"])
def test_a_new_database_begins_only_if_there_are_no_results(tmp_path: Path, results: str) -> None:
    folder = tmp_path / "results"
    if results != "no folder":
        folder.mkdir()
    if results == "an image":
        (folder / "x.png").touch()
    data = Database(tmp_path / "data", result_folders=[folder])
    try:
        if results == "an image":
            with pytest.raises(sqlite3.DatabaseError, match="restore it"):
                data.transact(used)
        else:
            assert data.transact(used) == 0
    finally:
        data._close()


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), OSError(28, os.strerror(28))])
def test_without_storage_a_call_is_refused_and_may_be_repeated(error: Exception) -> None:
    with pytest.raises(APIError, match="nothing was sent, try again") as caught, storage_required():
        raise error
    answer = caught.value.to_response()
    assert answer.status == 503
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("5", "true")


def test_a_caller_who_left_is_no_fault_of_the_storage() -> None:
    with pytest.raises(ConnectionResetError), storage_required():
        raise ConnectionResetError
