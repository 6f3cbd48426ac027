"""Where things are ordered, whichever provider is played: seeds, prices, making, booking."""

from __future__ import annotations

import asyncio
import random

import attrs

from impasto import Cost
from impasto_plugins.emulator.rendering.pictures import Made, Task
from impasto_plugins.emulator.rendering.render import make
from impasto_plugins.emulator.server.exchange import Exchange
from impasto_plugins.emulator.settings import Settings
from impasto_plugins.emulator.state.charges import Account
from impasto_plugins.emulator.state.jobs import Jobs

from .form_validation import Checked

MOST_SEED = 4_294_967_294
FILTERED = "[content_filtered]"
"""The word that, anywhere in a text field, makes a picture come back blurred."""


@attrs.frozen(eq=False)
class Order:
    """What was ordered, and what will be said of it."""

    checked: Checked
    task: Task
    cost: Cost
    finish_reason: str


@attrs.frozen(eq=False)
class Desk:
    """What all endpoints share."""

    settings: Settings
    account: Account
    jobs: Jobs
    random: random.Random

    def order(self, exchange: Exchange, checked: Checked) -> Order:
        """The order that a checked request is. A seed that is 0 or missing becomes a random one."""
        seed = checked.values.get("seed")
        if not isinstance(seed, int) or not seed:
            seed = self.random.randint(1, MOST_SEED)
        task = Task(operation=checked.operation, values=checked.values, seed=seed, scale=self.settings.picture_scale)
        filtered = checked.operation.makes == "image" and (exchange.filtered or FILTERED in checked.said)
        return Order(checked, task, _cost(checked), "CONTENT_FILTERED" if filtered else "SUCCESS")

    async def make(self, exchange: Exchange, order: Order) -> Made:
        """Makes it, outside the loop's thread. Raises Unreadable."""
        blurred = order.finish_reason == "CONTENT_FILTERED"
        return await asyncio.to_thread(make, order.task, exchange.record.id, blurred=blurred)

    def charge(self, exchange: Exchange, order: Order) -> None:
        """Books it, unless a fault says otherwise."""
        if exchange.book:
            self.account.charge(
                exchange.record,
                order.checked.operation.id,
                order.cost,
                seed=order.task.seed,
                finish_reason=order.finish_reason,
            )


def _cost(checked: Checked) -> Cost:
    """What the operation is said to cost; nothing where that is not known."""
    operation = checked.operation
    quoted = operation.price.quote(operation.params(**checked.values)) if operation.price is not None else None
    return quoted or Cost(usd=0.0, credits=0.0, as_of="")
