"""The schema: created by whoever opens it first, migrated by the command alone, refused if it is newer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from impasto.ext import StateError
from impasto_plugins.state.postgres import PostgresState
from impasto_plugins.state.postgres.migrations import VERSION
from tests.plugins.state.postgres.conftest import StoreFactory
from tests.postgres import PASSWORD


async def execute(address: str, statement: str) -> None:
    """Run a statement in the schema of a store."""
    url = urlsplit(address)
    connection = await asyncpg.connect(url._replace(query="").geturl())
    try:
        await connection.execute(statement.replace("{s}", url.query.partition("=")[2]))
    finally:
        await connection.close()


async def test_stores_that_open_at_once_create_one_schema(factory: StoreFactory) -> None:
    stores = await asyncio.gather(*(factory() for _ in range(6)))
    for store in stores:
        report = await store.check()
        assert (report.version, report.newest, report.problems) == (VERSION, VERSION, ())


async def test_a_check_changes_nothing(postgres: str) -> None:
    store = PostgresState(postgres)
    assert (await store.check()).version == 0
    assert (await store.check()).version == 0
    await store.aclose()


async def test_an_older_schema_is_migrated_by_the_command_alone(postgres: str) -> None:
    await execute(postgres, "CREATE SCHEMA {s}; CREATE TABLE {s}.version AS SELECT 0 AS number")
    store = PostgresState(postgres)
    with pytest.raises(StateError, match="older version.*run `impasto state migrate '") as refused:
        await store.open()
    assert refused.value.is_permanent
    assert PASSWORD not in str(refused.value)
    assert postgres.replace(PASSWORD, "***") in str(refused.value)
    with pytest.raises(StateError, match="older version"):
        await store.now()
    assert len(await store.migrate()) == VERSION
    assert await store.migrate() == []
    assert await store.is_usable()
    await store.aclose()


async def test_a_newer_schema_is_refused(factory: StoreFactory, postgres: str) -> None:
    await factory()
    await execute(postgres, "UPDATE {s}.version SET number = 99")
    for work in (PostgresState.open, PostgresState.migrate):
        store = PostgresState(postgres)
        with pytest.raises(StateError, match="has version 99, and this program knows versions up to"):
            await work(store)
        await store.aclose()


async def test_a_new_schema_is_refused_beside_results(postgres: str, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"paid for")
    store = PostgresState(postgres, result_folders=[tmp_path])
    with pytest.raises(StateError, match="is new, but there are results in"):
        await store.open()
    (tmp_path / "image.png").unlink()
    await store.open()
    await store.aclose()
