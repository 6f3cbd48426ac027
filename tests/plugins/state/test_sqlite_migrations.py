"""A database of another version: that of the program before is migrated, that of a newer program is refused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from impasto.ext import StateError, StoredCall, StoredObject
from impasto_plugins.state.sqlite import SQLiteState
from impasto_plugins.state.sqlite.connection import DATABASE_NAME
from impasto_plugins.state.sqlite.migrations import VERSION

VERSION_0 = """
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
"""What the gateway ran at each start before schemas had versions."""

NOON = 1_790_856_000.0
"""Of 1 October 2026, UTC."""
DAY = 86_400.0
MONTH = 2026 * 12 + 9

CALL = ("c1", b"o", b"i", b"content", "done", "m", "url", "w", 2, "[1]", '{"a": 1}', NOON - 5, NOON + 5)
FILES = [
    ("file-1", b"o", "batch", 'a "name" é\n.jsonl', 10, "files/file-1", 1, NOON - 20, NOON + 9 * DAY),
    ("file-2", b"o", "batch", "", 99, "files/file-2", 0, NOON - 10, NOON + 9 * DAY),
]
BATCH = ("batch_1", b"o", b"i", "in_progress", '{"endpoint": "/v1/images/generations"}', 77, NOON - 9, NOON + DAY)


def create_version_0(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE_NAME)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(VERSION_0)
        db.executemany(
            "INSERT INTO used VALUES (?, ?, ?, ?)",
            [
                (b"k", "requests", int(NOON), 1),
                (b"k", "requests", int(NOON) - 30, 2),
                (b"k", "pictures", int(NOON // DAY), 4),
                (b"k", "nano_usd", MONTH, 65_000_000),
            ],
        )
        db.execute(f"INSERT INTO outcomes VALUES ({', '.join('?' * 13)})", CALL)
        db.executemany(f"INSERT INTO files VALUES ({', '.join('?' * 9)})", FILES)
        db.execute(f"INSERT INTO batches VALUES ({', '.join('?' * 8)})", BATCH)
        db.commit()


async def test_a_database_of_the_version_before_keeps_every_record(tmp_path: Path) -> None:
    create_version_0(tmp_path)
    state = SQLiteState(str(tmp_path), clock=lambda: NOON)
    (step,) = await state.migrate()
    assert step == "schema 1: moved the rows of the version before: 4 of used, 1 of outcomes, 2 of files, 1 of batches"
    assert await state.migrate() == []
    assert await state.calls.find("c1", b"o") == StoredCall(
        id="c1",
        owner=b"o",
        identity=b"i",
        content=b"content",
        state="done",
        model="m",
        response_format="url",
        worker="w",
        attempt=2,
        jobs="[1]",
        outcome='{"a": 1}',
        created=NOON - 5,
        expires=NOON + 5,
    )
    assert await state.budgets.used(b"k", "requests", "minute") == 3
    assert await state.budgets.used(b"k", "images", "day") == 4
    assert await state.budgets.used(b"k", "nano_usd", "month") == 65_000_000
    first, second = await state.objects.of_kind("file")
    assert json.loads(first.body) == {"filename": 'a "name" é\n.jsonl', "path": "files/file-1"}
    assert (first.label, first.status, first.size, first.expires) == ("batch", "ready", 10, NOON + 9 * DAY)
    assert (second.status, second.expires) == ("uploading", NOON - 10 + DAY), "an upload is removed after a day"
    assert await state.objects.of_kind("batch") == [
        StoredObject(
            kind="batch",
            id="batch_1",
            owner=b"o",
            status="in_progress",
            identity=b"i",
            size=77,
            body=BATCH[4],
            created=NOON - 9,
            expires=NOON + DAY,
        )
    ]
    await state.aclose()


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    create_version_0(tmp_path)
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db:
        db.execute("ALTER TABLE batches RENAME COLUMN about TO other")
    state = SQLiteState(str(tmp_path))
    with pytest.raises(StateError, match="about"):
        await state.open()
    await state.aclose()
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == {"used", "outcomes", "files", "batches"}
        assert db.execute("PRAGMA user_version").fetchone() == (0,)


async def test_the_program_before_refuses_a_migrated_database(tmp_path: Path) -> None:
    """It does not know versions; with empty tables it would not know what was paid for."""
    state = SQLiteState(str(tmp_path))
    await state.open()
    await state.aclose()
    with (
        closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db,
        pytest.raises(sqlite3.OperationalError, match="views may not be indexed"),
    ):
        db.executescript(VERSION_0)


async def test_a_worker_of_the_program_before_that_still_ran_lets_nothing_be_lost(tmp_path: Path) -> None:
    """Its test if the disk is writable sets the version to 0."""
    state = SQLiteState(str(tmp_path), clock=lambda: NOON)
    await state.open()
    call = StoredCall(id="a", owner=b"o", identity=b"i", created=NOON, expires=NOON + 9)
    await state.calls.insert([call])
    await state.aclose()
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db:
        db.execute("PRAGMA user_version = 0")
    state = SQLiteState(str(tmp_path), clock=lambda: NOON)
    assert await state.calls.find("a", b"o") == call
    assert (await state.check()).version == VERSION
    await state.aclose()


async def test_the_schema_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
        db.execute("CREATE TABLE calls (id)")
    state = SQLiteState(str(tmp_path), setting="general_settings.data_dir")
    for operation in (state.open, state.migrate, lambda: state.calls.find("a", b"")):
        with pytest.raises(StateError, match=r"general_settings\.data_dir: .*use the newer program"):
            await operation()
    assert not await state.is_usable()
    await state.aclose()


async def test_a_test_if_it_can_be_written_leaves_the_version(tmp_path: Path) -> None:
    state = SQLiteState(str(tmp_path))
    assert await state.is_usable()
    assert (await state.check()).version == VERSION
    await state.aclose()
