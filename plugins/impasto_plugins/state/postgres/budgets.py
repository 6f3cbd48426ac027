"""Budgets. Their arithmetic is in the schema, since each operation is one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from impasto.ext import LimitReached, Period, Reservation, Use

from .pool import ConnectionPool

if TYPE_CHECKING:
    from asyncpg import Record


class PostgresBudgets:
    """The budgets of a schema; see Budgets."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def reserve(self, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
        """Count all of these uses, or none of them if one would pass its limit."""
        statement = "SELECT * FROM {s}.reserve($1, $2, $3, $4, $5)"
        (row,) = await self._pool.fetch(statement, key, *columns_of(uses))
        return reservation_of(key, uses, row)

    async def settle(self, reservation: Reservation, spent: Mapping[str, int]) -> None:
        """Count what was spent in place of what was reserved."""
        changes = [(*name, spent[name[0]] - amount) for name, amount in reservation.amounts.items() if name[0] in spent]
        columns = [[row[index] for row in changes] for index in range(4)]
        await self._pool.fetch("SELECT {s}.settle($1, $2, $3, $4, $5)", reservation.key, *columns)

    async def check(self, key: bytes, uses: Sequence[Use]) -> LimitReached | None:
        """Return the first limit that these uses would pass, and count nothing."""
        statement = (
            "SELECT c.*, t.now FROM (SELECT {s}.seconds_now() AS now) t, {s}.check_uses($1, $2, $3, $4, $5, t.now) c"
        )
        (row,) = await self._pool.fetch(statement, key, *columns_of(uses))
        return _refusal(uses, row) if row["place"] is not None else None

    async def used(self, key: bytes, what: str, period: Period) -> int:
        """Return the amount of the current period."""
        (row,) = await self._pool.fetch("SELECT {s}.amount_used($1, $2, $3)", key, what, period)
        return int(row[0])

    async def delete_old(self) -> None:
        """Delete the amounts of periods that are over."""
        await self._pool.fetch("SELECT {s}.delete_old_budgets()")


def columns_of(uses: Sequence[Use]) -> tuple[list[str], list[str], list[int], list[int | None]]:
    """Return uses as arrays."""
    return (
        [use.what for use in uses],
        [use.period for use in uses],
        [use.amount for use in uses],
        [use.limit for use in uses],
    )


def reservation_of(key: bytes, uses: Sequence[Use], row: Record) -> Reservation | LimitReached:
    """Return the answer of the schema's function."""
    if row["place"] is not None:
        return _refusal(uses, row)
    parts: list[int] = row["parts"] or []
    amounts: dict[tuple[str, Period, int], int] = {
        (use.what, use.period, part): use.amount for use, part in zip(uses, parts, strict=True)
    }
    return Reservation(key=key, amounts=amounts)


def _refusal(uses: Sequence[Use], row: Record) -> LimitReached:
    ends = row["ends"]
    return LimitReached(use=uses[row["place"]], left=row["remaining"], ends=ends, seconds=ends - row["now"])
