"""The tables, by the version of their schema, which is the database's ``user_version``."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence

from impasto.ext import StateReport

_TABLES = (
    """CREATE TABLE IF NOT EXISTS budgets (
        key BLOB, what TEXT, period TEXT, part INTEGER, amount INTEGER NOT NULL, PRIMARY KEY (key, what, period, part)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS calls (
        id TEXT PRIMARY KEY, owner BLOB NOT NULL, identity BLOB NOT NULL, content BLOB NOT NULL, state TEXT NOT NULL,
        model TEXT NOT NULL, response_format TEXT NOT NULL, worker TEXT NOT NULL, attempt INTEGER NOT NULL,
        jobs TEXT NOT NULL, outcome TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS calls_by_identity ON calls (identity)",
    """CREATE TABLE IF NOT EXISTS objects (
        kind TEXT NOT NULL, id TEXT PRIMARY KEY, owner BLOB NOT NULL, status TEXT NOT NULL, label TEXT NOT NULL,
        identity BLOB NOT NULL, size INTEGER NOT NULL, body TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS objects_by_owner ON objects (kind, owner, created)",
    "CREATE INDEX IF NOT EXISTS objects_by_status ON objects (kind, status)",
)

_FROM_VERSION_0 = {
    "used": """INSERT INTO budgets SELECT key, CASE what WHEN :old THEN 'images' ELSE what END,
        CASE what WHEN 'requests' THEN 'minute' WHEN :old THEN 'day' ELSE 'month' END,
        period, amount FROM used WHERE true ON CONFLICT DO UPDATE SET amount = amount + excluded.amount""",
    "outcomes": """INSERT OR IGNORE INTO calls SELECT id, owner, identity, content, state, model, response_format,
        worker, given, accepted, outcome, made, expires FROM outcomes""",
    "files": """INSERT OR IGNORE INTO objects SELECT 'file', id, owner,
        CASE WHEN ready THEN 'ready' ELSE 'uploading' END, purpose, x'', size, file_body(filename, path), made,
        CASE WHEN ready THEN expires ELSE min(expires, made + 86400) END FROM files""",
    "batches": """INSERT OR IGNORE INTO objects SELECT 'batch', id, owner, status, '', identity, room, about, made,
        expires FROM batches""",
}
"""The tables of version 0, and how their rows are moved."""

_BARRIER = "CREATE VIEW IF NOT EXISTS outcomes AS SELECT 'this database belongs to a newer version' AS reason"
"""Programs of version 0 do not look at the version, and would begin with empty tables: with no record of what was paid
for. They can't create the index of ``outcomes`` on a view, and refuse the database."""


def _create_tables(db: sqlite3.Connection) -> str:
    """Create the tables of version 1; move the rows of version 0, which may be there again."""
    for statement in _TABLES:
        db.execute(statement)
    db.create_function("file_body", 2, lambda filename, path: json.dumps({"filename": filename, "path": path}))
    moved = []
    for table, move in _FROM_VERSION_0.items():
        if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone():
            db.execute(move, {"old": "pictures"})  # the former name of images in budgets
            (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - a name written above
            moved.append(f"{count} of {table}")
            db.execute(f"DROP TABLE {table}")
    db.execute(_BARRIER)
    return f"moved the rows of the version before: {', '.join(moved)}" if moved else "created the tables"


_MIGRATIONS: Sequence[Callable[[sqlite3.Connection], str]] = (_create_tables,)
"""Each brings the schema to its number in this list, from 1, in one transaction, and returns what it did."""

VERSION = len(_MIGRATIONS)


def version_of(db: sqlite3.Connection) -> int:
    """Return the version of the schema; 0 for that of programs without migrations, or for none."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(db: sqlite3.Connection) -> list[str]:
    """Run the missing migrations, and return what they did. Raises sqlite3.DatabaseError for a newer schema."""
    if (version := version_of(db)) > VERSION:
        raise sqlite3.DatabaseError(newer_schema(version))
    steps = []
    for number in range(version + 1, VERSION + 1):
        db.execute("BEGIN EXCLUSIVE")
        try:
            steps.append(f"schema {number}: {_MIGRATIONS[number - 1](db)}")
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
    return steps


def newer_schema(version: int) -> str:
    """Return the refusal of a schema that this program does not know."""
    return (
        f"its schema has version {version}, and this program knows versions up to {VERSION}; use the newer program that"
        " wrote it, or another folder"
    )


def report(db: sqlite3.Connection) -> StateReport:
    """Count the records."""
    version = version_of(db)
    if version > VERSION:
        return StateReport(version=version, newest=VERSION, problems=[newer_schema(version)])
    rows: list[tuple[str, int, float | None]] = db.execute(
        "SELECT 'calls', count(*), min(created) FROM calls UNION ALL SELECT 'budgets', count(*), NULL FROM budgets"
        " UNION ALL SELECT kind, count(*), min(created) FROM objects GROUP BY kind"
    ).fetchall()
    created = [oldest for _, _, oldest in rows if oldest is not None]
    counts = {kind: count for kind, count, _ in rows}
    return StateReport(version=version, newest=VERSION, counts=counts, oldest=min(created, default=None))
