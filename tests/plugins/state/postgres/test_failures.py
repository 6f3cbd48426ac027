"""Failures of PostgreSQL: those that only a change ends, and those that end by themselves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from impasto import ConfigError
from impasto.ext import StateError, check_store, open_store
from impasto_plugins.state.postgres import PostgresState
from tests.postgres import PASSWORD, PostgresServer, own_server

USER = "reader"


async def execute(server: PostgresServer, *statements: str) -> None:
    """Run statements as the server's owner."""
    connection = await asyncpg.connect(urlsplit(server.dsn())._replace(query="").geturl())
    try:
        for each in statements:
            await connection.execute(each)
    finally:
        await connection.close()


async def refusal(address: str) -> str:
    """The error of a start, which is that of a check too. The same store works once its cause is away."""
    store = PostgresState(address, setting="--state")
    try:
        with pytest.raises(ConfigError) as refused:
            await open_store(store)
        with pytest.raises(StateError) as failed:
            await store.budgets.delete_old()
        assert failed.value.is_permanent
    finally:
        await store.aclose()
    with pytest.raises(ConfigError) as found:
        await check_store(PostgresState(address, setting="--state"))
    assert str(found.value) == str(refused.value)
    assert PASSWORD not in str(refused.value)
    return str(refused.value)


async def outage(address: str) -> str:
    """The error of a store that is away."""
    store = PostgresState(address, setting="--state")
    try:
        away = await open_store(store)
        assert away is not None
        assert not away.is_permanent
    finally:
        await store.aclose()
    assert await check_store(PostgresState(address, setting="--state")) == str(away)
    return str(away)


@pytest.fixture
async def no_database() -> AsyncIterator[int]:
    """The port of a server that speaks HTTP."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def test_a_wrong_address_is_permanent(postgres_server: PostgresServer, no_database: int) -> None:
    place = f"{PASSWORD}@127.0.0.1"
    wrong = {
        postgres_server.dsn(password="other"): "refused the user or the password",
        postgres_server.dsn(database="nowhere"): "no database of this name",
        postgres_server.dsn(sslmode="require"): "refuses TLS, or is not PostgreSQL; correct host and port, or sslmode",
        postgres_server.dsn(sslmode="sometimes"): "`sslmode` parameter must be one of: disable",
        postgres_server.dsn(nosuch="1"): 'unrecognized configuration parameter "nosuch"',
        f"postgresql://u:{place}:{no_database}/x": "refuses TLS, or is not PostgreSQL",
        f"postgresql://u:{PASSWORD}@host.invalid/x": "can't reach PostgreSQL at host.invalid: there is no host of this",
        f"postgresql://u:{PASSWORD}@a..b/x": "invalid address of a..b: it can't be parsed",
    }
    for address, cause in wrong.items():
        message = await refusal(address)
        assert message.startswith("--state: ")
        assert cause in message


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("postgresql://u:{p}/{p}@127.0.0.1/x", "the password needs %2F for /"),
        ("postgresql://u:{p}#{p}@127.0.0.1/x", "the password needs %2F for /"),
        ("postgresql://u:{p}", "invalid host or port"),
        ("postgresql://u:{p}@127.0.0.1:70000/x", "invalid host or port"),
        ("postgresql://u:{p}@one:5432,two:x/x", "invalid host or port"),
        ("postgresql://u:{p}@127.0.0.1/x?sslrootcert=nosuch.crt", "sslrootcert: can't read 'nosuch.crt'"),
    ],
)
def test_an_address_that_is_no_url_is_refused_without_its_password(address: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="--state: ") as caught:
        PostgresState(address.format(p=PASSWORD), setting="--state")
    assert problem in str(caught.value)
    assert PASSWORD not in str(caught.value)


async def test_an_outage_is_not_permanent(postgres_server: PostgresServer) -> None:
    with socket.socket() as refusing, socket.socket() as silent:
        refusing.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for sock, cause in ((refusing, "Connection refused"), (silent, "did not answer in time")):
            address = f"postgresql://u:{PASSWORD}@127.0.0.1:{sock.getsockname()[1]}/x?command_timeout=0.1"
            assert cause in await outage(address)
    full = "CREATE USER crowd PASSWORD 'crowd' CONNECTION LIMIT 0"
    await execute(postgres_server, full)
    try:
        address = postgres_server.dsn(schema="crowd").replace(f"postgres:{PASSWORD}", "crowd:crowd")
        assert "too many connections" in await outage(address)
    finally:
        await execute(postgres_server, "DROP USER crowd")


async def test_a_server_that_only_reads_is_waited_for(postgres_server: PostgresServer) -> None:
    only_reads = "ALTER DATABASE replica SET default_transaction_read_only = on"
    await execute(postgres_server, "CREATE DATABASE replica", only_reads)
    try:
        assert "PostgreSQL only reads here" in await outage(postgres_server.dsn(database="replica"))
    finally:
        await execute(postgres_server, "DROP DATABASE replica WITH (FORCE)")


async def test_rights_that_a_user_lacks_are_named_at_the_start(postgres_server: PostgresServer) -> None:
    schema = "rights"
    address = postgres_server.dsn(schema=schema).replace(f"postgres:{PASSWORD}", f"{USER}:{PASSWORD}")
    owner = PostgresState(postgres_server.dsn(schema=schema))
    await execute(postgres_server, f"CREATE USER {USER} PASSWORD '{PASSWORD}'")
    try:
        missing = await refusal(address)
        assert f"run `impasto state migrate '{address.replace(PASSWORD, '***')}'` as a user that may" in missing
        await owner.open()
        assert "permission denied" in await refusal(address)
        await execute(postgres_server, f"GRANT USAGE ON SCHEMA {schema} TO {USER}")
        await execute(postgres_server, f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {USER}")
        assert "may not read and change the table 'arrivals'" in await refusal(address)
        rights = "SELECT, INSERT, UPDATE, DELETE"
        await execute(postgres_server, f"GRANT {rights} ON ALL TABLES IN SCHEMA {schema} TO {USER}")
        store = PostgresState(address)
        assert await open_store(store) is None
        assert await store.is_usable()
        await store.lease.hold()
        await store.aclose()
        assert await check_store(PostgresState(address)) is None
    finally:
        await owner.aclose()
        await execute(postgres_server, f"DROP SCHEMA {schema} CASCADE", f"DROP OWNED BY {USER}", f"DROP USER {USER}")


async def test_a_password_that_changes_in_use_is_logged_once_and_may_change_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with own_server() as server:
        address = server.dsn(schema="rotated")
        other = address.replace(f"postgres:{PASSWORD}", f"app:{PASSWORD}")
        await execute(server, f"CREATE USER app SUPERUSER PASSWORD '{PASSWORD}'")
        store = PostgresState(other, setting="--state")
        assert await open_store(store) is None
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
        await execute(server, "ALTER USER app PASSWORD 'new'", cut)
        for _ in range(4):
            assert not await store.is_usable()
        (record,) = [each for each in caplog.records if each.name == "impasto"]
        assert "refused the user or the password" in record.message
        with pytest.raises(StateError, match="refused the user") as failed:
            await store.now()
        assert failed.value.is_permanent
        await execute(server, f"ALTER USER app PASSWORD '{PASSWORD}'")
        assert await store.is_usable()
        await store.aclose()


async def test_a_pooler_that_keeps_no_prepared_statements_is_named(postgres: str) -> None:
    store = PostgresState(f"{postgres}&pool_size=1")
    try:
        await store.now()
        await store._pool.run(lambda connection: connection.execute("DEALLOCATE ALL"))  # as its other servers are
        with pytest.raises(StateError, match="add statement_cache_size=0 to the address") as failed:
            await store.now()
        assert failed.value.is_permanent
    finally:
        await store.aclose()
