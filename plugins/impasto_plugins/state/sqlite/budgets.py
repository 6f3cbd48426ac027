"""Budgets."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from impasto.ext import LimitReached, Period, Reservation, Use
from impasto_plugins.state.periods import PERIODS, check_use, current_part, first_part

from .connection import SQLiteDatabase

_ADD = (
    "INSERT INTO budgets (key, what, period, part, amount) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
)


class SQLiteBudgets:
    """The budgets of a database; see Budgets."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    async def reserve(self, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
        """Count all of these uses, or none of them if one would pass its limit."""

        def work(db: sqlite3.Connection) -> Reservation | LimitReached:
            now = self._database.clock()  # read in the transaction: no other process's is later by mistake
            rows = [_bring_back(db, key, use, _select_parts(db, key, use.what, use.period, now), now) for use in uses]
            for use, parts in zip(uses, rows, strict=True):
                if (refusal := check_use(use, parts, now)) is not None:
                    return refusal  # returned, not raised, so that what was brought back stays so
            amounts: dict[tuple[str, Period, int], int] = {
                (use.what, use.period, current_part(use.period, now)): use.amount for use in uses
            }
            db.executemany(_ADD, [(key, *name, amount) for name, amount in amounts.items()])
            return Reservation(key=key, amounts=amounts)

        return await self._database.write(work)

    async def settle(self, reservation: Reservation, spent: Mapping[str, int]) -> None:
        """Count what was spent in place of what was reserved."""
        # The difference, not the amount: other processes have added to the same period meanwhile.
        changes = [
            (reservation.key, *name, spent[name[0]] - amount)
            for name, amount in reservation.amounts.items()
            if name[0] in spent
        ]
        await self._database.write(lambda db: db.executemany(_ADD, changes))

    async def check(self, key: bytes, uses: Sequence[Use]) -> LimitReached | None:
        """Return the first limit that these uses would pass, and count nothing."""

        def work(db: sqlite3.Connection) -> LimitReached | None:
            now = self._database.clock()
            refusals = (check_use(use, _select_parts(db, key, use.what, use.period, now), now) for use in uses)
            return next((each for each in refusals if each is not None), None)

        return await self._database.write(work)

    async def used(self, key: bytes, what: str, period: Period) -> int:
        """Return the amount of the current period."""

        def work(db: sqlite3.Connection) -> int:
            return sum(amount for _, amount in _select_parts(db, key, what, period, self._database.clock()))

        return await self._database.write(work)

    async def delete_old(self) -> None:
        """Delete the amounts of periods that are over."""

        def work(db: sqlite3.Connection) -> None:
            now = self._database.clock()
            oldest = [(period, first_part(period, now)) for period in PERIODS]
            db.executemany("DELETE FROM budgets WHERE period = ? AND part < ?", oldest)

        await self._database.write(work)


def _select_parts(db: sqlite3.Connection, key: bytes, what: str, period: Period, now: float) -> list[tuple[int, int]]:
    """Return the parts that count now, in order; those of the future too, since the clock was set back."""
    query = "SELECT part, amount FROM budgets WHERE key = ? AND what = ? AND period = ? AND part >= ? ORDER BY part"
    return db.execute(query, (key, what, period, first_part(period, now))).fetchall()


def _bring_back(
    db: sqlite3.Connection, key: bytes, use: Use, parts: list[tuple[int, int]], now: float
) -> list[tuple[int, int]]:
    """Count usage in the future as usage now."""
    current = current_part(use.period, now)
    if not parts or parts[-1][0] <= current:
        return parts
    name = (key, use.what, use.period)
    db.execute("DELETE FROM budgets WHERE key = ? AND what = ? AND period = ? AND part > ?", (*name, current))
    db.execute(_ADD, (*name, current, sum(amount for part, amount in parts if part > current)))
    return _select_parts(db, key, use.what, use.period, now)
