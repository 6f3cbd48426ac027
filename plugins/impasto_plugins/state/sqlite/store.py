"""The store, composed of its tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from impasto import ConfigError
from impasto.ext import RESULTS, StateReport

from .budgets import SQLiteBudgets
from .calls import SQLiteCalls
from .connection import SQLiteDatabase
from .objects import SQLiteObjects


class SQLiteState:
    """A store in a folder, which it creates for this user alone.

    ``clock`` returns seconds since 1970; without it the store has a StoreClock.
    """

    def __init__(
        self,
        address: str,
        *,
        setting: str = "state",
        result_folders: Sequence[Path] = (),
        clock: Callable[[], float] | None = None,
    ) -> None:
        if "://" in address:
            raise ConfigError(f"{setting}: a SQLite store is a folder; give its path, without a scheme")
        folder = Path(address)
        self.database = SQLiteDatabase(folder, setting, clock, (*result_folders, folder / RESULTS))
        self.calls = SQLiteCalls(self.database)
        self.budgets = SQLiteBudgets(self.database)
        self.objects = SQLiteObjects(self.database)
        self._probe: asyncio.Task[bool] | None = None

    async def open(self) -> None:
        """Open the database; create it if it is missing, and migrate one of an older version. Raises StateError."""
        await self.database.open()

    async def aclose(self) -> None:
        """Close the connection after running operations."""
        await self.database.aclose()

    async def now(self) -> float:
        """Return the store's clock."""
        return self.database.clock()

    async def is_usable(self) -> bool:
        """Return True if the database takes writes. One test at a time serves all who ask."""
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self.database.can_write())
        return await asyncio.shield(self._probe)

    async def check(self) -> StateReport:
        """Read the whole database, and change nothing."""
        return await self.database.check()

    async def migrate(self) -> Sequence[str]:
        """Bring the tables up to this version, and return what was done. Raises StateError."""
        return await self.database.migrate()
