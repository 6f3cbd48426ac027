"""Budgets of named keys: reserved before a call, settled after it by evidence, exact across workers.

The minute slides; days and months are those of UTC. A possible charge counts as spent. A key is identified by its
hash, so that its usage stays if its name or limits change.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import attrs

from impasto import ImpastoError, Result
from impasto.ext import (
    Budgets,
    LimitReached,
    Reservation,
    StateError,
    Use,
    billed_of_failures,
    billed_of_images,
    cost_of_failure,
    finish,
    is_not_charged,
)
from impasto_plugins.cli.terminal.output import count_of
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.config.model import KeyConfig
from impasto_plugins.gateway.errors import APIError, overloaded
from impasto_plugins.gateway.storage.failures import storage_required
from impasto_plugins.gateway.storage.late_writes import LateWrites

from .execution import PreparedCall

_log = logging.getLogger("impasto.gateway")

_NANO = 1_000_000_000
"""Money is counted in whole billionths of a dollar, so that ten times 0.065 is 0.65."""

_UTC = "%Y-%m-%dT%H:%MZ"

REQUESTS, IMAGES, NANO_USD = "requests", "images", "nano_usd"
"""Amounts that are counted: requests of a minute, images of a day, money of a month."""


@attrs.define(eq=False)
class BudgetGuard:
    """Checks one call against its key's limits. Each attempt of a fallback is charged by itself.

    What was spent is counted by ``late_writes``: the store may be away when that is known.
    ``is_counted``: it does not count as a request. ``begin``: lets other workers find the call, and reserves its uses,
    before its first attempt.
    """

    _budgets: Budgets
    _late_writes: LateWrites
    _caller: Caller
    is_counted: bool = attrs.field(default=False, kw_only=True)
    begin: Callable[[bytes, Sequence[Use]], Awaitable[Reservation | LimitReached]] | None = None

    async def charge(self, prepared_call: PreparedCall, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Run one attempt within the limits. Raises APIError if they refuse it, and the attempt's errors."""
        limits = self._caller.limits
        if limits is None:
            if self.begin is not None:
                with storage_required():
                    await self.begin(self._caller.digest, ())
                self.begin = None
            return await attempt()
        price, reserved = price_nano_usd(prepared_call, limits), prepared_call.n
        # Reserved before the call and settled after it: of calls that run at once none may spend what another spends.
        reservation = await self._reserve(limits, reserved, reserved * price)
        try:
            result = await attempt()
        except ImpastoError as error:  # any other exception leaves the reservation: the images may be charged
            billed = billed_of_images(error)
            images = 0 if is_not_charged(error) else max(len(billed), reserved) - billed.count("no")
            cost = cost_of_failure(error, reserved, prepared_call.cost) if images else None
            await self._settle(reservation, images=images, nano_usd=round(cost.usd * _NANO) if cost else 0)
            raise
        images, cost = len(result.artifacts), result.possible_cost
        if result.errors:
            billed = billed_of_failures(result.errors)
            images += len(billed) - billed.count("no")
        nano_usd = images * price if cost is None else round(cost.usd * _NANO)
        if (images, nano_usd) != (reserved, reserved * price):
            await self._settle(reservation, images=images, nano_usd=nano_usd)
        return result

    async def _reserve(self, limits: KeyConfig, images: int, nano_usd: int) -> Reservation:
        uses = _uses(limits, images, nano_usd)
        if not self.is_counted:
            uses.insert(0, Use(what=REQUESTS, period="minute", amount=1, limit=limits.rpm))

        async def give_back(reservation: Reservation | LimitReached) -> None:
            if isinstance(reservation, Reservation):
                await self._settle(reservation, images=0, nano_usd=0, requests=0)

        try:
            reserve = self.begin or self._budgets.reserve
            reservation = await finish(reserve(self._caller.digest, uses), undo=give_back)
        except StateError as error:
            raise _unreadable(error) from None
        if isinstance(reservation, LimitReached):
            raise _limit_error(reservation, limits)
        self.is_counted, self.begin = True, None
        return reservation

    async def _settle(self, reservation: Reservation, *, images: int, nano_usd: int, requests: int = 1) -> None:
        """Count what was spent in place of what was reserved."""
        spent = {REQUESTS: requests, IMAGES: images, NANO_USD: nano_usd}

        async def settle() -> None:
            try:
                await self._budgets.settle(reservation, spent)
            except StateError as error:
                # Made twice it would count the difference twice: rather too much is counted than too little.
                if not error.may_have_changed or any(spent[name] > n for (name, *_), n in reservation.amounts.items()):
                    raise
                _log.error("key %r: what a call did not spend may stay counted: %s", self._caller.name, error)

        await finish(self._late_writes.make(settle))


async def check_limits(budgets: Budgets, caller: Caller, *, images: int, nano_usd: int) -> None:
    """Raise APIError if so many more images, for so much, would pass a limit of the key, or if it can't be read."""
    if (limits := caller.limits) is None:
        return
    try:
        refusal = await budgets.check(caller.digest, _uses(limits, images, nano_usd))
    except StateError as error:
        raise _unreadable(error) from None
    if refusal is not None:
        raise _limit_error(refusal, limits)


def price_nano_usd(prepared_call: PreparedCall, limits: KeyConfig | None) -> int:
    """Return the price of an image in billionths of a dollar. Raises APIError if it must be known and is not."""
    cost = prepared_call.cost
    if cost is None and limits is not None and limits.usd_per_month is not None:
        raise _quota_error("the price of this model is unknown for these parameters, and this key has a limit in USD")
    return round(cost.usd * _NANO) if cost is not None else 0


def _uses(limits: KeyConfig, images: int, nano_usd: int) -> list[Use]:
    usd = limits.usd_per_month
    return [
        Use(what=IMAGES, period="day", amount=images, limit=limits.images_per_day),
        Use(what=NANO_USD, period="month", amount=nano_usd, limit=None if usd is None else round(usd * _NANO)),
    ]


def _limit_error(refusal: LimitReached, limits: KeyConfig) -> APIError:
    use, seconds = refusal.use, refusal.seconds
    if use.what == REQUESTS:
        message = f"this key may make {limits.rpm} requests a minute, and the next in {seconds:.0f} s; nothing was sent"
        return APIError(429, message, "rate_limit_error", "rate_limit_exceeded", retry_after=seconds, should_retry=True)
    until = f"are left until {datetime.fromtimestamp(refusal.ends, UTC):{_UTC}}"
    if use.what == IMAGES:
        message = f"this key may make {count_of(limits.images_per_day or 0, 'image')} a day, and {refusal.left} {until}"
    else:
        message = f"this may cost {_usd(use.amount)} USD; this key may spend {limits.usd_per_month:g} a month, and"
        message = f"{message} {_usd(refusal.left)} {until}"
    return _quota_error(message, seconds)


def _unreadable(error: StateError) -> APIError:
    _log.error("the limits of a key can't be read: %s", error)
    message = "the gateway can't read this key's limits; nothing was sent, try again"
    return overloaded(message)


def _quota_error(message: str, seconds: float | None = None) -> APIError:
    kind = "insufficient_quota"
    return APIError(429, f"{message}; nothing was sent", kind, kind, retry_after=seconds, should_retry=False)


def _usd(nano: int) -> str:
    return f"{nano / _NANO:.10g}"
