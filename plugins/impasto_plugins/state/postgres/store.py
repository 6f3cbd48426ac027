"""The store, composed of its tables."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from impasto.ext import StateError, StateReport, WorkerLease

from .address import PostgresAddress
from .budgets import PostgresBudgets
from .calls import PostgresCalls
from .migrations import VERSION, migrate, report
from .objects import PostgresObjects
from .pool import ConnectionPool
from .rates import PostgresRates
from .reports import ReportQueue
from .workers import PostgresWorkers

_log = logging.getLogger("impasto")


class PostgresState:
    """A store in a schema of a PostgreSQL database, which it creates. Its clock is the server's."""

    def __init__(self, address: str, *, setting: str = "state", result_folders: Sequence[Path] = ()) -> None:
        self._pool = ConnectionPool(PostgresAddress.parse(address, setting), setting, result_folders)
        self.calls = PostgresCalls(self._pool)
        self.budgets = PostgresBudgets(self._pool)
        self.objects = PostgresObjects(self._pool)
        reports = ReportQueue(self._pool)
        self.workers = PostgresWorkers(self._pool, reports)
        self.rates = PostgresRates(self._pool, reports)
        self.lease = WorkerLease(self.workers)

    @property
    def round_trips(self) -> int:
        """The number of statements that were sent to the server."""
        return self._pool.round_trips

    async def open(self) -> None:
        """Connect, and create a schema that is missing. Raises StateError, also for one of another version."""
        await self._pool.open()

    async def aclose(self) -> None:
        """End the lease of this process, and close the connections after running operations."""
        try:
            await self.lease.aclose()
        except StateError as error:
            _log.warning("the lease of this process ends later: %s", error)
        finally:
            await self._pool.aclose()

    async def now(self) -> float:
        """Return the server's clock."""
        (row,) = await self._pool.fetch("SELECT {s}.seconds_now()")
        return float(row[0])

    async def is_usable(self) -> bool:
        """Return True if the server takes writes: the number of a transaction is written to its log."""
        try:
            await self._pool.fetch("SELECT pg_current_xact_id(), {s}.seconds_now()")
        except StateError:
            return False
        return True

    async def check(self) -> StateReport:
        """Count the records, and change nothing."""
        pool = self._pool
        try:
            return await pool.run(
                lambda connection: report(connection, pool.address, pool.result_folders), on_any_schema=True
            )
        except StateError as error:
            return StateReport(version=0, newest=VERSION, problems=[str(error)], is_away=not error.is_permanent)

    async def migrate(self) -> Sequence[str]:
        """Bring the schema up to this version; return a line for each step. Raises StateError."""
        schema = self._pool.address.schema
        return await self._pool.run(lambda connection: migrate(connection, schema), on_any_schema=True)
