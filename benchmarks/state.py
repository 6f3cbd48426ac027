"""Operations on a store of state over bare ones of its driver, or over those of another installation: CPU."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg

from impasto import RateLimit
from impasto_plugins.state.postgres import PostgresState
from impasto_plugins.state.sqlite import SQLiteState
from tests.postgres import own_server

from .measure import Ratio, compared, in_pairs
from .peers.keyed_state import USES, keyed_call

CALLS = 100
ROUNDS = 11
LIMIT = RateLimit(150, 10.0)
_SCRIPT = Path(__file__).parent / "peers/keyed_state.py"


async def run(rounds: int) -> list[Ratio]:
    """PostgreSQL over as many round trips that do nothing, SQLite over as many transactions of one row."""
    return [*await _on_postgres(rounds), await _on_sqlite(rounds)]


async def against(rounds: int, python: str) -> list[Ratio]:
    """The state of a call with a key and limits on SQLite, over that of another installation."""

    def measured(interpreter: str) -> Callable[[], Awaitable[float]]:
        async def once() -> float:
            return float(subprocess.run([interpreter, "-E", _SCRIPT], check=True, stdout=subprocess.PIPE).stdout)

        return once

    pairs = await in_pairs(measured(sys.executable), measured(python), rounds)
    return [compared("a keyed call's state on SQLite, over the other's", pairs, unit="ms CPU")]


async def _on_postgres(rounds: int) -> list[Ratio]:
    """A budget's reservation, one round trip, and a permit with its arrival, two."""
    with own_server() as server:
        store = PostgresState(server.dsn(pool_size="1"))
        await store.open()
        bare = await asyncpg.connect(server.dsn().partition("?")[0])
        await store.workers.register("worker", 3600.0)
        keys = itertools.count()

        async def reserve() -> None:
            await store.budgets.reserve(b"key", USES)

        async def permit() -> None:
            number = secrets.randbits(63)
            await store.rates.begin(f"key {next(keys) // CALLS}", number, "worker", LIMIT, 0.5)
            await store.rates.count([number])

        async def trip() -> None:
            await bare.fetch("SELECT 1")

        async def two_trips() -> None:
            await trip()
            await trip()

        try:
            return [
                compared(name, await in_pairs(_each(ours), _each(floor), rounds), unit="ms CPU", most=5.0)
                for name, ours, floor in (("reserve a budget", reserve, trip), ("a rate permit", permit, two_trips))
            ]
        finally:
            await bare.close()
            await store.aclose()


async def _on_sqlite(rounds: int) -> Ratio:
    """The four transactions of a call with a key and limits."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        store = SQLiteState(folder)
        await store.open()
        loop = asyncio.get_running_loop()
        bare = await loop.run_in_executor(thread, _create, Path(folder, "bare.db"))

        def insert() -> None:
            bare.execute("BEGIN IMMEDIATE")
            bare.execute("INSERT INTO rows VALUES (?, ?)", (secrets.token_hex(32), "{}"))
            bare.execute("COMMIT")

        async def ours() -> None:
            await keyed_call(store)

        async def floor() -> None:
            for _ in range(4):
                await loop.run_in_executor(thread, insert)

        try:
            pairs = await in_pairs(_each(ours), _each(floor), rounds)
        finally:
            await loop.run_in_executor(thread, bare.close)
            await store.aclose()
    return compared("a keyed call's state on SQLite", pairs, unit="ms CPU", most=2.0)


def _create(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, body TEXT)")
    return connection


def _each(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    async def measure() -> float:
        before = time.process_time()
        for _ in range(CALLS):
            await work()
        return (time.process_time() - before) / CALLS * 1_000

    return measure
