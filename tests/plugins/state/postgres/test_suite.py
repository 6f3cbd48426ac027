"""The suite of stores on PostgreSQL, for a user with no other rights than to create a schema."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import urlsplit

import asyncpg
import pytest

from impasto.ext import StateStore
from impasto.testing import StateSuite
from impasto_plugins.state.postgres import PostgresState
from tests.postgres import PASSWORD, PostgresServer


class TestPostgresState(StateSuite):
    state_type: ClassVar[type[StateStore] | None] = PostgresState
    server: ClassVar[PostgresServer]

    @pytest.fixture
    def address(self, postgres_server: PostgresServer) -> str:
        type(self).server = postgres_server
        name = f"test_{secrets.token_hex(6)}"
        self._execute(
            f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'; GRANT CREATE ON DATABASE postgres TO {name}"
        )  # fmt: skip
        return postgres_server.dsn(schema=name).replace("//postgres:", f"//{name}:")

    def set_clock(self, state: StateStore, seconds: float) -> None:
        assert isinstance(state, PostgresState)
        self._execute(
            f"""CREATE OR REPLACE FUNCTION {state._pool.address.schema}.seconds_now() RETURNS float8
            LANGUAGE sql VOLATILE AS $$ SELECT extract(epoch FROM clock_timestamp())::float8 + {seconds} $$"""
        )

    @contextmanager
    def outage(self, address: str) -> Iterator[None]:
        user = urlsplit(address).username
        self._execute(f"ALTER ROLE {user} CONNECTION LIMIT 0")
        self._execute(f"SELECT pg_terminate_backend(pid, 9000) FROM pg_stat_activity WHERE usename = '{user}'")
        yield
        self._execute(f"ALTER ROLE {user} CONNECTION LIMIT -1")

    def _execute(self, statement: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.server.dsn().partition("?")[0])
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:  # the caller may have a running loop
            thread.submit(lambda: asyncio.run(run())).result()
