"""Connections to PostgreSQL: what their failures say, how they recover, and what a cancelled operation leaves."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import asyncpg
import attrs
import pytest

from impasto import ConfigError
from impasto.ext import Reservation, StateError, Use
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.state.postgres.conftest import StoreFactory
from tests.postgres import PASSWORD, PostgresServer, own_server

IMAGES = Use(what="images", period="day", amount=1)


async def failure(address: str) -> str:
    """The error of opening a store."""
    store = PostgresState(address, setting="general_settings.state")
    try:
        with pytest.raises(StateError) as caught:
            await store.open()
        with pytest.raises(StateError):
            await store.now()
        assert await store.is_usable() is False
        assert (await store.check()).problems
    finally:
        await store.aclose()
    return str(caught.value)


async def test_a_failure_names_the_setting_and_the_cause_and_no_password(postgres_server: PostgresServer) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]  # nobody listens
        wrong = {
            postgres_server.dsn(password="other-password"): "refused the user or the password",
            postgres_server.dsn(database="nowhere"): "no database of this name",
            f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/x": f"can't reach PostgreSQL at 127.0.0.1:{port}",
            f"postgresql://u:{PASSWORD}@host.invalid/x": "can't reach PostgreSQL at host.invalid",
        }
        for address, cause in wrong.items():
            message = await failure(address)
            assert message.startswith("general_settings.state: ")
            assert cause in message
            assert PASSWORD not in message
            assert "other-password" not in message


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("schema=Bad-Name", "schema must be up to 48 of a-z, 0-9 and _, not 'Bad-Name'"),
        ("pool_size=0", "pool_size must be a number from 1 to 100, not '0'"),
        ("command_timeout=soon", "command_timeout must be a number from 0.1 to 60, not 'soon'"),
        ("statement_cache_size=-1", "statement_cache_size must be a number from 0 to 1000, not '-1'"),
    ],
)
def test_a_wrong_parameter_of_the_address_is_refused_by_name(query: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="state: ") as caught:
        PostgresState(f"postgresql://u:{PASSWORD}@127.0.0.1/x?{query}")
    assert problem in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_without_the_extra_the_error_has_the_command_that_installs_it() -> None:
    code = """
import asyncio, sys
sys.modules["asyncpg"] = None
from impasto import MissingExtra
from impasto_plugins.state.postgres import PostgresState
try:
    asyncio.run(PostgresState("postgresql://u@127.0.0.1/x").open())
except MissingExtra as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'impasto[postgres]'" in ran.stdout, ran.stderr


async def test_an_operation_is_one_round_trip(store: PostgresState) -> None:
    before = store.round_trips
    await store.budgets.reserve(b"key", [IMAGES, attrs.evolve(IMAGES, what="money", period="month")])
    assert store.round_trips == before + 1


async def test_without_prepared_statements_each_operation_is_a_transaction(factory: StoreFactory) -> None:
    store = await factory(statement_cache_size=0, pool_size=2)
    answers = await asyncio.gather(*(store.budgets.reserve(b"key", [IMAGES]) for _ in range(20)))
    assert all(isinstance(each, Reservation) for each in answers)
    assert await store.budgets.used(b"key", "images", "day") == 20


async def test_a_cancelled_operation_happened_or_not_and_leaves_no_connection_behind(factory: StoreFactory) -> None:
    store = await factory(pool_size=1)
    counted = 0
    for steps in range(40):
        task = asyncio.create_task(store.budgets.reserve(b"key", [IMAGES]))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        counted += isinstance(outcome, Reservation)
    used = await store.budgets.used(b"key", "images", "day")  # behind all of them, on the one connection
    assert counted <= used <= 40


async def test_processes_have_no_more_connections_than_the_pool(factory: StoreFactory, postgres: str) -> None:
    store = await factory(pool_size=2)
    await asyncio.gather(*(store.budgets.reserve(b"key", [IMAGES]) for _ in range(20)))
    own = await asyncpg.connect(urlsplit(postgres)._replace(query="").geturl())
    try:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'impasto' AND query LIKE $1"
        assert await own.fetchval(query, f"%{urlsplit(postgres).query.partition('=')[2]}%") <= 2
    finally:
        await own.close()
    assert await store.budgets.used(b"key", "images", "day") == 20


async def test_a_closed_store_says_so(postgres: str) -> None:
    store = PostgresState(postgres)
    await store.open()
    await store.aclose()
    with pytest.raises(StateError, match="the store is closed"):
        await store.now()


async def test_commits_wait_for_the_disk_also_if_the_user_turned_that_off(factory: StoreFactory, postgres: str) -> None:
    store = await factory()
    own = await asyncpg.connect(urlsplit(postgres)._replace(query="").geturl())
    schema = urlsplit(postgres).query.partition("=")[2]
    try:
        async with own.transaction():
            await own.execute("SET LOCAL synchronous_commit = off")
            await own.execute(f'SELECT "{schema}".delete_call($1)', "any")
            assert await own.fetchval("SHOW synchronous_commit") == "on"
        assert await own.fetchval("SELECT count(*) FROM pg_class WHERE relpersistence = 'u'") == 0, (
            "no table is UNLOGGED"
        )
    finally:
        await own.close()
    assert await store.is_usable()


async def test_after_kills_of_the_database_nothing_is_forgotten_and_the_store_recovers() -> None:
    with own_server() as server:
        store = PostgresState(server.dsn())
        await store.open()
        reserved = failed = 0

        async def spend() -> None:
            nonlocal reserved, failed
            while not is_over:
                try:
                    await store.budgets.reserve(b"key", [IMAGES])
                    reserved += 1
                except StateError:
                    failed += 1
                    await asyncio.sleep(0.01)

        is_over = False
        tasks = [asyncio.create_task(spend()) for _ in range(8)]
        for _ in range(2):
            goal = reserved + 50
            while reserved < goal:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill)
            assert await store.is_usable() is False
            await asyncio.to_thread(server.start)
        goal = reserved + 20
        while reserved < goal:
            await asyncio.sleep(0.01)
        is_over = True
        await asyncio.gather(*tasks)
        used = await store.budgets.used(b"key", "images", "day")
        await store.aclose()
    # An answer that was lost may have been counted: at most one of each connection and kill.
    assert reserved <= used <= reserved + failed
    assert used - reserved <= 4 * 2


async def test_a_store_of_another_event_loop_says_so(factory: StoreFactory) -> None:
    store = await factory()
    with pytest.raises(StateError, match="the store belongs to another event loop") as refused:
        await asyncio.to_thread(lambda: asyncio.run(store.now()))
    assert refused.value.is_permanent
    assert await store.now() > 0
