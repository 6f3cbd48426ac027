"""What a named key may spend: reserved before a call, settled after it by what is proved, exact across workers.

The minute slides; days and months are those of UTC. What may have been charged counts as spent. A key is known by
its hash, so that what it spent stays its own where it gets another name or other limits.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import attrs

from impasto import ImpastoError, Result
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.config.model import Named
from impasto_plugins.gateway.errors import SERVER, Failure, is_free
from impasto_plugins.gateway.storage.database import UNWRITABLE, Data

from .execution import Checked

_log = logging.getLogger("impasto.gateway")

_NANO = 1_000_000_000
"""Money is counted in whole billionths of a dollar: ten times 0.065 is 0.65 then."""

_MINUTE = 61
"""Seconds, by which a sliding window of whole seconds is never shorter than a minute."""

_UTC = "%Y-%m-%dT%H:%MZ"

_ADD = (
    "INSERT INTO used (key, what, period, amount) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
)


@attrs.frozen(kw_only=True)
class Held:
    """What one attempt has reserved: pictures of a day, money of a month."""

    key: bytes
    pictures: int
    nano_usd: int
    """Of one picture."""
    day: int
    month: int

    @property
    def cost(self) -> int:
        """Of all of them."""
        return self.pictures * self.nano_usd


class Purse:
    """One call's way to its key's limits. A call that falls back to another deployment pays each attempt by itself.

    ``counted``: it is no request of its own.
    """

    def __init__(self, data: Data, caller: Caller, *, counted: bool = False) -> None:
        self._data = data
        self._caller = caller
        self._counted = counted

    async def pay(self, checked: Checked, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Makes one attempt within the limits. Raises Failure where it is refused, and what the attempt raises."""
        limits = self._caller.limits
        if limits is None:
            return await attempt()
        held = await self._reserve(limits, checked)
        try:
            result = await attempt()
        except ImpastoError as error:
            free = checked.n if is_free(error) else sum(each.billed == "no" for each in (error, *error.errors))
            await self._settle(held, checked.n - free)
            raise
        await self._settle(held, len(result.artifacts) + sum(not is_free(lost.error) for lost in result.errors))
        return result

    async def _reserve(self, limits: Named, checked: Checked) -> Held:
        price = nano_usd(checked, limits)
        counted = self._counted

        def work(db: sqlite3.Connection) -> Held | Failure:
            now = self._data.clock()  # read in the transaction: no other worker's is later by mistake
            held = Held(
                key=self._caller.digest,
                pictures=checked.n,
                nano_usd=price,
                day=int(now // 86_400),
                month=_month(now),
            )
            _bring_back(db, held, now)
            try:
                if not counted:
                    _check_rate(db, limits, held.key, now)
                check(db, limits, held.key, pictures=held.pictures, nano_usd=held.cost, now=now)
            except Failure as failure:  # returned, so that what was brought back stays so
                return failure
            if not counted:
                db.execute(_ADD, (held.key, "requests", int(now), 1))
            db.execute(_ADD, (held.key, "pictures", held.day, held.pictures))
            db.execute(_ADD, (held.key, "nano_usd", held.month, held.cost))
            return held

        try:
            held = await self._data.write(work)
        except UNWRITABLE as error:
            _log.error("a key's limits can't be looked up: %s", error)
            said = "the gateway can't look this key's limits up; nothing was sent, try again"
            raise Failure(503, said, SERVER, "overloaded", retry_after=5, should_retry=True) from None
        if isinstance(held, Failure):
            raise held
        self._counted = True
        return held

    async def _settle(self, held: Held, charged: int) -> None:
        """Count the images that were charged: fewer than reserved if some failed, more if the provider made more."""
        more = charged - held.pictures
        if not more:
            return

        def work(db: sqlite3.Connection) -> None:
            db.execute(_ADD, (held.key, "pictures", held.day, more))
            db.execute(_ADD, (held.key, "nano_usd", held.month, more * held.nano_usd))

        try:
            await self._data.write(work)
        except UNWRITABLE as error:
            _log.error("the cost of a call could not be settled with key %r: %s", self._caller.name, error)


def nano_usd(checked: Checked, limits: Named | None) -> int:
    """What a picture costs, in billionths of a dollar. Raises Failure where that must be known and is not."""
    cost = checked.cost
    if cost is None and limits is not None and limits.usd_per_month is not None:
        raise _spent("this model's price is not known, and this key has a limit in USD")
    return round(cost.usd * _NANO) if cost is not None else 0


def _month(now: float) -> int:
    """Months since the year 0."""
    today = datetime.fromtimestamp(now, UTC)
    return today.year * 12 + today.month - 1


def sweep(db: sqlite3.Connection, now: float) -> None:
    """Forgets what no limit looks at any more."""
    oldest = {"requests": int(now) - _MINUTE + 1, "pictures": int(now // 86_400), "nano_usd": _month(now)}
    db.executemany("DELETE FROM used WHERE what = ? AND period < ?", oldest.items())


def _bring_back(db: sqlite3.Connection, held: Held, now: float) -> None:
    """Count as made now what was made in the future: the clock was set back since."""
    for what, current in (("requests", int(now)), ("pictures", held.day), ("nano_usd", held.month)):
        where = "key = ? AND what = ? AND period > ?"
        amount: int | None
        (amount,) = db.execute(f"SELECT SUM(amount) FROM used WHERE {where}", (held.key, what, current)).fetchone()  # noqa: S608 - fixed words
        if amount is not None:
            db.execute(f"DELETE FROM used WHERE {where}", (held.key, what, current))  # noqa: S608 - fixed words
            db.execute(_ADD, (held.key, what, current, amount))


def _check_rate(db: sqlite3.Connection, limits: Named, key: bytes, now: float) -> None:
    if limits.rpm is not None and (wait := _wait(db, key, limits.rpm, now)) > 0:
        said = f"this key may make {limits.rpm} requests a minute, and the next in {wait:.0f} s; nothing was sent"
        raise Failure(429, said, "rate_limit_error", "rate_limit_exceeded", retry_after=wait, should_retry=True)


def check(db: sqlite3.Connection, limits: Named, key: bytes, *, pictures: int, nano_usd: int, now: float) -> None:
    """Raises Failure where so many pictures more, for so much, would pass a limit of the key."""
    day, month = int(now // 86_400), _month(now)
    if limits.images_per_day is not None:
        left = limits.images_per_day - _used(db, key, "pictures", day)
        if pictures > left:
            again = datetime.fromtimestamp((day + 1) * 86_400, UTC)
            said = f"this key may make {limits.images_per_day} pictures a day, and {max(left, 0)} are left"
            raise _spent(f"{said} until {again:{_UTC}}", again.timestamp() - now)
    if limits.usd_per_month is not None:
        left = round(limits.usd_per_month * _NANO) - _used(db, key, "nano_usd", month)
        if nano_usd > left:
            again = datetime((month + 1) // 12, (month + 1) % 12 + 1, 1, tzinfo=UTC)
            said = f"this may cost {_usd(nano_usd)} USD; this key may spend {limits.usd_per_month:g} a month, and"
            raise _spent(f"{said} {_usd(left)} are left until {again:{_UTC}}", again.timestamp() - now)


def _wait(db: sqlite3.Connection, key: bytes, rpm: int, now: float) -> float:
    """Seconds until a key may make its next request; 0 where that is now."""
    question = "SELECT period, amount FROM used WHERE key = ? AND what = 'requests' AND period > ? ORDER BY period"
    made: list[tuple[int, int]] = db.execute(question, (key, int(now) - _MINUTE)).fetchall()
    surplus = sum(amount for _, amount in made) - rpm
    for second, amount in made:
        if surplus < 0:
            break
        surplus -= amount
        if surplus < 0:
            return second + _MINUTE - now
    return 0.0


def _spent(said: str, wait: float | None = None) -> Failure:
    kind = "insufficient_quota"
    return Failure(429, f"{said}; nothing was sent", kind, kind, retry_after=wait, should_retry=False)


def _usd(nano: int) -> str:
    return f"{max(nano, 0) / _NANO:.10g}"


def _used(db: sqlite3.Connection, key: bytes, what: str, period: int) -> int:
    question = "SELECT amount FROM used WHERE key = ? AND what = ? AND period = ?"
    row: tuple[int] | None = db.execute(question, (key, what, period)).fetchone()
    return row[0] if row is not None else 0
