"""The budget of a batch whose hosts have a store of state in common: reserved there before each request."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import ExitStack

import attrs

from impasto import Call, ImpastoError, Result, SpendLimitExceeded
from impasto.ext import LimitReached, Reservation, StateError, StateStore, Use, finish
from impasto_plugins.batch.classification import outcome_of_error
from impasto_plugins.batch.output.s3 import BucketTarget
from impasto_plugins.batch.runner.limits import over_budget, price_of
from impasto_plugins.batch.runner.scheduler import Execute
from impasto_plugins.batch.tasks import ImageTask

_NANO = 1_000_000_000
_WHAT = "nano_usd"


@attrs.define(eq=False)
class StateBudget:
    """Reserves prices in a store. ``usd``: the budget; ``spent``: the part that was spent without the store.

    The reservation of a host that died stays: its request may have been charged.
    """

    store: StateStore
    key: bytes
    usd: float
    spent: float
    _unsettled: list[tuple[Reservation, int]] = attrs.field(factory=list[tuple[Reservation, int]])
    """Costs that the store has not taken yet."""
    _settling: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, store: StateStore, target: BucketTarget, usd: float, spent: float) -> StateBudget:
        """Return the budget of the batch in a bucket."""
        place = f"batch {target.endpoint or ''} {target}"
        return cls(store, hashlib.sha256(place.encode()).digest(), usd, spent)

    def within(self, execute: Execute) -> Execute:
        """Return ``execute`` with its requests within the budget."""

        async def execute_within(unit: ImageTask, call: Callable[..., Call], resources: ExitStack) -> Result:
            if unit.job is not None:  # its request was counted
                return await execute(unit, call, resources)
            reservation = await self._reserve(unit)
            cost = price_of(unit)  # also of a request that is cancelled
            try:
                result = await execute(unit, call, resources)
                cost = result.possible_cost.usd if result.possible_cost is not None else cost
                return result
            except ImpastoError as error:
                costs = (outcome_of_error(image, error).cost for image in unit.images)
                cost = sum(each.usd for each in costs if each is not None)
                raise
            finally:
                self._unsettled.append((reservation, round(cost * _NANO)))
                if self._settling is None or self._settling.done():  # beside: the image is stored first
                    self._settling = asyncio.create_task(self._settle())

        return execute_within

    async def aclose(self) -> None:
        """Report the last costs. Those that the store does not take stay reserved: too much counts as spent."""
        if self._settling is not None:
            await self._settling
        await self._settle()

    async def _settle(self) -> None:
        """Report the costs that are known; those that the store does not take are reported later."""
        while self._unsettled:
            reservation, amount = self._unsettled.pop()
            try:
                await self.store.budgets.settle(reservation, {_WHAT: amount})
            except StateError as error:
                # Made twice it would count the difference twice: rather too much is counted than too little.
                if not error.may_have_changed or amount > sum(reservation.amounts.values()):
                    self._unsettled.append((reservation, amount))
                return

    async def _give_back(self, answer: Reservation | LimitReached) -> None:
        if isinstance(answer, Reservation):
            self._unsettled.append((answer, 0))

    async def _reserve(self, unit: ImageTask) -> Reservation:
        limit = max(round((self.usd - self.spent) * _NANO), 0)
        use = Use(what=_WHAT, period="ever", amount=round(price_of(unit) * _NANO), limit=limit)
        try:
            answer = await finish(self.store.budgets.reserve(self.key, [use]), undo=self._give_back)
        except StateError as error:
            raise error.refusal("the budget") from None
        if isinstance(answer, LimitReached):
            raise SpendLimitExceeded(over_budget(self.usd, answer.left / _NANO, unit))
        return answer
