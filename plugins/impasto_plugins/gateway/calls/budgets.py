"""Budgets of named keys: reserved before a call, settled after it by evidence, exact across workers.

The minute slides; days and months are those of UTC. A possible charge counts as spent. A key is identified by its
hash, so that its usage stays if its name or limits change.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import attrs

from impasto import ImpastoError, Result
from impasto.ext import billed_of_failures, billed_of_images, is_not_charged
from impasto_plugins.cli.terminal.output import count_of
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.config.model import KeyConfig
from impasto_plugins.gateway.errors import SERVER, APIError
from impasto_plugins.gateway.storage.database import DATABASE_ERRORS, Database

from .execution import PreparedCall

_log = logging.getLogger("impasto.gateway")

_NANO = 1_000_000_000
"""Money is counted in whole billionths of a dollar, so that ten times 0.065 is 0.65."""

_MINUTE = 61
"""Seconds: with one more than 60, a window of whole seconds is never shorter than a minute."""

_UTC = "%Y-%m-%dT%H:%MZ"

_ADD_USAGE = (
    "INSERT INTO used (key, what, period, amount) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
)


@attrs.frozen(kw_only=True)
class Reservation:
    """The reservation of one attempt: images of a day, money of a month."""

    key: bytes
    images: int
    nano_usd: int
    """The price of one image."""
    day: int
    month: int

    @property
    def cost(self) -> int:
        """The price of all images."""
        return self.images * self.nano_usd


@attrs.define(eq=False)
class BudgetGuard:
    """Checks one call against its key's limits. Each attempt of a fallback is charged by itself.

    ``is_counted``: it does not count as a request.
    """

    _data: Database
    _caller: Caller
    is_counted: bool = attrs.field(default=False, kw_only=True)

    async def charge(self, prepared_call: PreparedCall, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Run one attempt within the limits. Raises APIError if they refuse it, and the attempt's errors."""
        limits = self._caller.limits
        if limits is None:
            return await attempt()
        # Reserved before the call and settled after it: of calls that run at once none may spend what another spends.
        reservation = await self._reserve(limits, prepared_call)
        try:
            result = await attempt()
        except ImpastoError as error:  # any other exception leaves the reservation: the images may be charged
            billed = billed_of_images(error)
            images = 0 if is_not_charged(error) else max(len(billed), reservation.images) - billed.count("no")
            await self._settle(reservation, images, images * reservation.nano_usd)
            raise
        images, cost = len(result.artifacts), result.possible_cost
        if result.errors:
            billed = billed_of_failures(result.errors)
            images += len(billed) - billed.count("no")
        nano_usd = images * reservation.nano_usd if cost is None else round(cost.usd * _NANO)
        if (images, nano_usd) != (reservation.images, reservation.cost):
            await self._settle(reservation, images, nano_usd)
        return result

    async def _reserve(self, limits: KeyConfig, prepared_call: PreparedCall) -> Reservation:
        price = price_nano_usd(prepared_call, limits)
        is_counted = self.is_counted

        def work(db: sqlite3.Connection) -> Reservation | APIError:
            now = self._data.clock()  # read in the transaction: no other worker's is later by mistake
            reservation = Reservation(
                key=self._caller.digest,
                images=prepared_call.n,
                nano_usd=price,
                day=int(now // 86_400),
                month=_month(now),
            )
            _clamp_future_usage(db, reservation, now)
            try:
                if not is_counted:
                    _check_rate(db, limits, reservation.key, now)
                check_limits(db, limits, reservation.key, images=reservation.images, nano_usd=reservation.cost, now=now)
            except APIError as failure:  # returned, so that what was brought back stays so
                return failure
            if not is_counted:
                db.execute(_ADD_USAGE, (reservation.key, "requests", int(now), 1))
            db.execute(_ADD_USAGE, (reservation.key, "pictures", reservation.day, reservation.images))
            db.execute(_ADD_USAGE, (reservation.key, "nano_usd", reservation.month, reservation.cost))
            return reservation

        try:
            reservation = await self._data.write(work)
        except DATABASE_ERRORS as error:
            _log.error("the limits of a key can't be read: %s", error)
            message = "the gateway can't read this key's limits; nothing was sent, try again"
            raise APIError(503, message, SERVER, "overloaded", retry_after=5, should_retry=True) from None
        if isinstance(reservation, APIError):
            raise reservation
        self.is_counted = True
        return reservation

    async def _settle(self, reservation: Reservation, images: int, nano_usd: int) -> None:
        """Count what was spent in place of what was reserved."""
        more_images, more_usd = images - reservation.images, nano_usd - reservation.cost

        # The difference, not the amount: other workers have added to the same period meanwhile.
        def work(db: sqlite3.Connection) -> None:
            db.execute(_ADD_USAGE, (reservation.key, "pictures", reservation.day, more_images))
            db.execute(_ADD_USAGE, (reservation.key, "nano_usd", reservation.month, more_usd))

        try:
            await self._data.write(work)
        except DATABASE_ERRORS as error:
            _log.error("the cost of a call could not be recorded for key %r: %s", self._caller.name, error)


def price_nano_usd(prepared_call: PreparedCall, limits: KeyConfig | None) -> int:
    """Return the price of an image in billionths of a dollar. Raises APIError if it must be known and is not."""
    cost = prepared_call.cost
    if cost is None and limits is not None and limits.usd_per_month is not None:
        raise _quota_error("the price of this model is unknown for these parameters, and this key has a limit in USD")
    return round(cost.usd * _NANO) if cost is not None else 0


def _month(now: float) -> int:
    """Return the months since the year 0."""
    today = datetime.fromtimestamp(now, UTC)
    return today.year * 12 + today.month - 1


def remove_old_usage(db: sqlite3.Connection, now: float) -> None:
    """Delete usage that no limit needs any more."""
    oldest = {"requests": int(now) - _MINUTE + 1, "pictures": int(now // 86_400), "nano_usd": _month(now)}
    db.executemany("DELETE FROM used WHERE what = ? AND period < ?", oldest.items())


def _clamp_future_usage(db: sqlite3.Connection, claim: Reservation, now: float) -> None:
    """Count usage in the future as usage now: the clock was set back since."""
    for what, current in (("requests", int(now)), ("pictures", claim.day), ("nano_usd", claim.month)):
        where = "key = ? AND what = ? AND period > ?"
        amount: int | None
        (amount,) = db.execute(f"SELECT SUM(amount) FROM used WHERE {where}", (claim.key, what, current)).fetchone()  # noqa: S608 - fixed words
        if amount is not None:
            db.execute(f"DELETE FROM used WHERE {where}", (claim.key, what, current))  # noqa: S608 - fixed words
            db.execute(_ADD_USAGE, (claim.key, what, current, amount))


def _check_rate(db: sqlite3.Connection, limits: KeyConfig, key: bytes, now: float) -> None:
    if limits.rpm is not None and (seconds := _seconds_until_allowed(db, key, limits.rpm, now)) > 0:
        message = f"this key may make {limits.rpm} requests a minute, and the next in {seconds:.0f} s; nothing was sent"
        raise APIError(429, message, "rate_limit_error", "rate_limit_exceeded", retry_after=seconds, should_retry=True)


def check_limits(
    db: sqlite3.Connection, limits: KeyConfig, key: bytes, *, images: int, nano_usd: int, now: float
) -> None:
    """Raise APIError if so many more images, for so much, would pass a limit of the key."""
    day, month = int(now // 86_400), _month(now)
    if limits.images_per_day is not None:
        remaining = limits.images_per_day - _read_usage(db, key, "pictures", day)
        if images > remaining:
            resets_at = datetime.fromtimestamp((day + 1) * 86_400, UTC)
            message = f"this key may make {count_of(limits.images_per_day, 'image')} a day"
            raise _quota_error(
                f"{message}, and {max(remaining, 0)} are left until {resets_at:{_UTC}}", resets_at.timestamp() - now
            )
    if limits.usd_per_month is not None:
        remaining = round(limits.usd_per_month * _NANO) - _read_usage(db, key, "nano_usd", month)
        if nano_usd > remaining:
            resets_at = datetime((month + 1) // 12, (month + 1) % 12 + 1, 1, tzinfo=UTC)
            message = f"this may cost {_usd(nano_usd)} USD; this key may spend {limits.usd_per_month:g} a month, and"
            raise _quota_error(
                f"{message} {_usd(remaining)} are left until {resets_at:{_UTC}}", resets_at.timestamp() - now
            )


def _seconds_until_allowed(db: sqlite3.Connection, key: bytes, rpm: int, now: float) -> float:
    """Return the seconds until a key's next request is allowed; 0 if it is allowed now."""
    query = "SELECT period, amount FROM used WHERE key = ? AND what = 'requests' AND period > ? ORDER BY period"
    rows: list[tuple[int, int]] = db.execute(query, (key, int(now) - _MINUTE)).fetchall()
    excess = sum(amount for _, amount in rows) - rpm
    for second, amount in rows:
        if excess < 0:
            break
        excess -= amount
        if excess < 0:
            return second + _MINUTE - now
    return 0.0


def _quota_error(message: str, seconds: float | None = None) -> APIError:
    kind = "insufficient_quota"
    return APIError(429, f"{message}; nothing was sent", kind, kind, retry_after=seconds, should_retry=False)


def _usd(nano: int) -> str:
    return f"{max(nano, 0) / _NANO:.10g}"


def _read_usage(db: sqlite3.Connection, key: bytes, what: str, period: int) -> int:
    query = "SELECT amount FROM used WHERE key = ? AND what = ? AND period = ?"
    row: tuple[int] | None = db.execute(query, (key, what, period)).fetchone()
    return row[0] if row is not None else 0
