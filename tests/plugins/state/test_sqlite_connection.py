"""The folder of a SQLite store, which several processes make and use at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from impasto.ext import StateError
from impasto_plugins.state.sqlite import connection, migrations
from impasto_plugins.state.sqlite.connection import DATABASE_NAME, SQLiteDatabase
from tests.descriptors import open_descriptors

USED_AFTER_A_FORK = """
import asyncio, os, sys
from impasto.ext import StateError
from impasto_plugins.state.sqlite import SQLiteState

store = SQLiteState(sys.argv[1], setting="state")

asyncio.run(store.budgets.delete_old())
if os.fork() == 0:
    try:
        asyncio.run(store.budgets.delete_old())
    except StateError as error:
        print(error, error.is_permanent, flush=True)
    asyncio.run(store.aclose())
    os._exit(0)
os.wait()
asyncio.run(store.budgets.delete_old())
asyncio.run(store.aclose())
"""
INSERT = "INSERT INTO budgets VALUES (?, 'x', 'day', 1, 1)"


def database_in(folder: Path, *results: Path) -> SQLiteDatabase:
    return SQLiteDatabase(folder, "general_settings.data_dir", time.time, results)


def count(db: sqlite3.Connection) -> int:
    (found,) = db.execute("SELECT count(*) FROM budgets").fetchone()
    return int(found)


def test_processes_that_begin_at_once_make_it_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite waits for another's lock, but not when it turns a new file to its log: one of them would fail then."""
    migrate, opening, most = migrations.migrate, list[int](), list[int]()

    def slow(db: sqlite3.Connection) -> Any:
        opening.append(1)
        most.append(len(opening))
        time.sleep(0.02)
        steps = migrate(db)
        opening.pop()
        return steps

    monkeypatch.setattr(connection, "migrate", slow)

    def begin(number: int) -> None:
        database = database_in(tmp_path / "data")
        database.transact(lambda db: db.execute(INSERT, (b"%d" % number,)))
        database._close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin, range(4)))
    database = database_in(tmp_path / "data")
    assert database.transact(count) == 4
    database._close()
    assert most == [1] * 5


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SQLiteDatabase]:
    database = database_in(tmp_path / "data")
    yield database
    database._close()
    database._thread.shutdown()


def test_of_work_that_fails_nothing_is_written_and_its_error_is_raised(database: SQLiteDatabase) -> None:
    def work(db: sqlite3.Connection) -> None:
        db.execute(INSERT, (b"k",))
        raise LookupError("in the middle")

    for _ in range(2):  # no transaction is left open
        with pytest.raises(LookupError, match="in the middle"):
            database.transact(work)
    assert database.transact(count) == 0


async def test_a_damaged_database_is_not_kept_open(tmp_path: Path) -> None:
    database = database_in(tmp_path)
    path = tmp_path / DATABASE_NAME
    path.write_bytes(b"no database" * 1_000)
    for _ in range(3):
        with pytest.raises(StateError, match=r"general_settings\.data_dir: .*damaged"):
            await database.write(count)
    assert open_descriptors(path) == 0
    await database.aclose()


@pytest.mark.parametrize("results", ["no folder", "an empty folder", "an image"])
async def test_a_new_database_begins_only_if_there_are_no_results(tmp_path: Path, results: str) -> None:
    folder = tmp_path / "results"
    if results != "no folder":
        folder.mkdir()
    if results == "an image":
        (folder / "x.png").touch()
    database = database_in(tmp_path / "data", folder)
    if results == "an image":
        with pytest.raises(StateError, match="restore it"):
            await database.write(count)
    else:
        assert await database.write(count) == 0
    await database.aclose()


async def test_after_its_end_it_is_not_opened_again(tmp_path: Path) -> None:
    database = database_in(tmp_path)
    await database.write(count)
    await database.aclose()
    await database.aclose()
    with pytest.raises(StateError, match="is closed"):
        await database.write(count)


def test_a_store_that_was_made_before_a_fork_says_so_and_is_the_parents(tmp_path: Path) -> None:
    command = [sys.executable, "-c", USED_AFTER_A_FORK, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout == "state: the store was made before a fork; make one in this process True\n"
