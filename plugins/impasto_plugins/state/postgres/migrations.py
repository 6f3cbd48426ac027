"""The schema: numbered files of SQL, applied in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from impasto.ext import StateError, StateReport
from impasto_plugins.state.results import folder_with_results

from .address import PostgresAddress

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

VERSION = 2
"""The number of the last file."""

_COUNTS = """
    SELECT 'calls' AS kind, count(*), min(created) AS oldest FROM {s}.calls
    UNION ALL SELECT 'budgets', count(*), NULL FROM {s}.budgets
    UNION ALL SELECT kind, count(*), min(created) FROM {s}.objects GROUP BY kind
"""


_FORBIDDEN = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname <> 'version' AND NOT (
        has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
    ) ORDER BY c.relname LIMIT 1
"""

_MAY_CREATE = """
    SELECT CASE WHEN EXISTS (SELECT FROM pg_namespace WHERE nspname = $1) THEN has_schema_privilege($1, 'CREATE')
    ELSE has_database_privilege(current_database(), 'CREATE') END
"""


async def prepare(
    connection: PoolConnectionProxy[Record], address: PostgresAddress, result_folders: Sequence[Path]
) -> None:
    """Create a schema that is missing. Raises StateError if it has another version, or can't be used."""
    if not await examine(connection, address, result_folders):
        await migrate(connection, address.schema)


async def examine(
    connection: PoolConnectionProxy[Record], address: PostgresAddress, result_folders: Sequence[Path]
) -> bool:
    """Return True if a schema can be used, False if it is still to be created. Changes nothing. Raises StateError."""
    schema = address.schema
    if await connection.fetchval("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'"):
        raise StateError("PostgreSQL only reads here; it waits for a failover, or for the address of the other server")
    isolation = await connection.fetchval("SELECT current_setting('default_transaction_isolation')")
    if isolation != "read committed":
        problem = f"the user's default_transaction_isolation must be 'read committed', not {isolation!r}"
        raise StateError(problem, is_permanent=True)
    if (version := await version_of(connection, schema)) is not None:
        _check_version(version, schema)
        if version < VERSION:
            raise StateError(
                f"the schema {schema!r} has the older version {version}, and this program needs {VERSION}; run"
                f" `impasto state migrate {address.argument}`",
                is_permanent=True,
            )
        if (table := await connection.fetchval(_FORBIDDEN, schema)) is not None:
            raise StateError(
                f"the user may not read and change the table {table!r} of the schema {schema!r}; grant SELECT, INSERT,"
                " UPDATE and DELETE on its tables, or give another user",
                is_permanent=True,
            )
        return True
    if folder := await asyncio.to_thread(folder_with_results, result_folders):
        raise StateError(
            f"the schema {schema!r} is new, but there are results in {str(folder)!r}; give the address of their store,"
            " or move that folder away to begin again: repeated Idempotency-Keys are then charged again",
            is_permanent=True,
        )
    if not await connection.fetchval(_MAY_CREATE, schema):
        raise StateError(
            f"there are no tables in the schema {schema!r}, and the user may not create them; run"
            f" `impasto state migrate {address.argument}` as a user that may, and grant this one USAGE on the schema,"
            " and SELECT, INSERT, UPDATE and DELETE on its tables",
            is_permanent=True,
        )
    return False


async def migrate(connection: PoolConnectionProxy[Record], schema: str) -> list[str]:
    """Apply the files that are missing, all or none of them; return a line for each. Raises StateError.

    One process does it at a time.
    """
    steps = await asyncio.to_thread(_read_files)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('impasto.schema', 0))")
        version = await version_of(connection, schema)
        if version is None:
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema):
                await connection.execute(f'CREATE SCHEMA "{schema}"')
            await connection.execute(f'CREATE TABLE "{schema}".version (number integer NOT NULL)')
            await connection.execute(f'INSERT INTO "{schema}".version VALUES (0)')  # noqa: S608 - a checked name
            version = 0
        _check_version(version, schema)
        await connection.execute(f'SET LOCAL search_path = "{schema}"')
        for _, text in steps[version:]:
            await connection.execute(text)
        await connection.execute(f'UPDATE "{schema}".version SET number = {VERSION}')  # noqa: S608 - a checked name
    return [f"applied {name}" for name, _ in steps[version:]]


async def report(
    connection: PoolConnectionProxy[Record], address: PostgresAddress, result_folders: Sequence[Path]
) -> StateReport:
    """Count the records. Raises StateError if the schema can't be used."""
    if not await examine(connection, address, result_folders):
        return StateReport(version=0, newest=VERSION)
    rows = await connection.fetch(_COUNTS.replace("{s}", f'"{address.schema}"'))
    oldest = min((row["oldest"] for row in rows if row["oldest"] is not None), default=None)
    counts = {row["kind"]: row["count"] for row in rows}
    return StateReport(version=VERSION, newest=VERSION, counts=counts, oldest=oldest)


async def version_of(connection: PoolConnectionProxy[Record], schema: str) -> int | None:
    """Return the version of a schema, None if it has none."""
    # A query, since the functions that look up names may remember that another process has not created it yet.
    query = """SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = 'version')"""
    if not await connection.fetchval(query, schema):
        return None
    return int(await connection.fetchval(f'SELECT number FROM "{schema}".version'))  # noqa: S608 - a checked name


def _check_version(version: int, schema: str) -> None:
    if version > VERSION:
        raise StateError(
            f"the schema {schema!r} has version {version}, and this program knows versions up to {VERSION}; use the"
            " newer program, or another schema",
            is_permanent=True,
        )


def _read_files() -> list[tuple[str, str]]:
    """Return the names and contents of the files, in order."""
    folder = files("impasto_plugins.state.postgres").joinpath("schema")
    return sorted((each.name, each.read_text("utf-8")) for each in folder.iterdir() if each.name.endswith(".sql"))
