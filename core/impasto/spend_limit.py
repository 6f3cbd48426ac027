"""The client's own spend limit: reserved before a call is sent, settled after."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from .charges import cost_of_failure
from .errors import ImpastoError, SpendLimitExceeded, StorageError
from .interrupts import finish
from .records import Result

if TYPE_CHECKING:
    from .call import Call
    from .states import StateStore

_log = logging.getLogger("impasto")

_DIGITS = 10
"""Digits of a dollar that sums are compared by: 0.1 and 0.2 are 0.3, though not in binary."""

_NANO = 1_000_000_000
_KEY, _WHAT = b"spend_limit_usd", "nano_usd"
"""The budget of a state's clients, in billionths of a dollar."""


class _Charge:
    """The most that a call may cost, and what it possibly did cost, in USD. Raises SpendLimitExceeded."""

    def __init__(self, call: Call) -> None:
        if call.price is None:
            raise SpendLimitExceeded(
                "its price is unknown for these parameters, and spend_limit_usd is set; nothing was sent"
            )
        most = call.retry.max_charges if call.retry.on_ambiguous else 1
        self.maximum = round(call.price.usd * call.request.count * most, _DIGITS)
        self.spent = 0.0
        self._call, self._price = call, call.price.usd

    def check(self, left: float, limit: float, where: str = "") -> None:
        """Raise SpendLimitExceeded if the call may cost more than is left."""
        if self.maximum > left:
            raise SpendLimitExceeded(
                f"a call may cost {self.maximum:g} USD, only {left:g} of spend_limit_usd={limit:g} is left{where};"
                " nothing was sent"
            )

    @contextmanager
    def measured(self) -> Iterator[Callable[[Result], None]]:
        """Yield a function that takes the call's result; all that is not proved free counts as spent."""
        call, count = self._call, self._call.request.count

        def settle(result: Result) -> None:
            self.spent = result.possible_cost.usd if result.possible_cost is not None else self.maximum

        try:
            yield settle
        except ImpastoError as error:
            cost = None if error.billed == "no" else cost_of_failure(error, count, call.price)
            self.spent = cost.usd + self._price * call.unknown_attempts * count if cost is not None else 0.0
            raise
        except BaseException:  # cancelled, or a plugin's: the call's own evidence says if anything was sent
            self.spent = self._price * count * call.possible_charges
            raise


class Spend:
    """The money that a client and its siblings spent, and the most that their calls in flight may still cost."""

    def __init__(self) -> None:
        self.usd = 0.0
        """USD that were charged, or possibly charged, so far."""
        self.reserved = 0.0

    @contextmanager
    def reserve(self, call: Call, limit: float) -> Iterator[Callable[[Result], None]]:
        """Reserve the most that a call may cost while it runs; then count all that is not proved free as spent.

        Yields a function that takes the call's result and counts its possible cost. Raises SpendLimitExceeded before
        anything is sent.
        """
        charge = _Charge(call)
        charge.check(max(round(limit - self.usd - self.reserved, _DIGITS), 0), limit)
        self.reserved += charge.maximum
        try:
            with charge.measured() as settle:
                yield settle
        finally:
            self.reserved -= charge.maximum
            self.usd += charge.spent


@asynccontextmanager
async def reserve_in_state(store: StateStore, call: Call, limit: float) -> AsyncIterator[Callable[[Result], None]]:
    """Reserve as ``Spend.reserve`` does, in a budget that all clients of a state share, over restarts too.

    Raises StorageError if the state can't be used, before anything is sent.
    """
    from .state_records import LimitReached, Reservation, StateError, Use  # few clients have a state

    charge = _Charge(call)
    amount = round(charge.maximum * _NANO)
    # What costs nothing passes no limit, not even one that is lower than what was spent before.
    use = Use(what=_WHAT, period="ever", amount=amount, limit=round(limit * _NANO) if amount else None)

    async def give_back(reservation: Reservation | LimitReached) -> None:
        if isinstance(reservation, Reservation):
            with suppress(StateError):  # it stays reserved: too much counts as spent, never too little
                await store.budgets.settle(reservation, {_WHAT: 0})

    try:
        reservation = await finish(store.budgets.reserve(_KEY, [use]), undo=give_back)
    except StateError as error:
        raise StorageError(f"spend_limit_usd can't be checked: {error}; nothing was sent") from None
    if isinstance(reservation, LimitReached):
        charge.check(reservation.left / _NANO, limit, " to the clients of its state")
        raise AssertionError("a store refused a reservation that fits")
    try:
        with charge.measured() as settle:
            yield settle
    finally:
        try:
            await finish(store.budgets.settle(reservation, {_WHAT: round(charge.spent * _NANO)}))
        except StateError as error:  # it stays reserved: too much counts as spent, never too little
            _log.error("the cost of a call can't be recorded for spend_limit_usd: %s", error)
