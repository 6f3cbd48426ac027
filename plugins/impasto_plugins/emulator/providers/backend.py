"""The part that all emulated providers share: seeds, prices, rendering, charges."""

from __future__ import annotations

import asyncio
import random

import attrs

from impasto import Cost, Request
from impasto_plugins.emulator.rendering.pictures import Generated, RenderTask
from impasto_plugins.emulator.rendering.render import render
from impasto_plugins.emulator.server.exchange import EmulatorExchange
from impasto_plugins.emulator.settings import EmulatorSettings
from impasto_plugins.emulator.state.charges import ChargeLedger
from impasto_plugins.emulator.state.jobs import JobStore

from .form_validation import ValidatedForm

MAX_SEED = 4_294_967_294
FILTER_WORD = "[content_filtered]"
"""A text field that has this word makes the image come back blurred."""


@attrs.frozen(eq=False)
class GenerationOrder:
    """A checked request with its seed and price."""

    form: ValidatedForm
    task: RenderTask
    cost: Cost
    finish_reason: str


@attrs.frozen(eq=False)
class Backend:
    """The backend that all endpoints share."""

    settings: EmulatorSettings
    charges: ChargeLedger
    jobs: JobStore
    random: random.Random

    def create_order(self, exchange: EmulatorExchange, form: ValidatedForm) -> GenerationOrder:
        """Return the order of a checked request. A seed that is 0 or missing becomes a random one."""
        seed = form.values.get("seed")
        if not isinstance(seed, int) or not seed:
            seed = self.random.randint(1, MAX_SEED)
        task = RenderTask(operation=form.operation, values=form.values, seed=seed, scale=self.settings.image_scale)
        is_filtered = form.operation.output == "image" and (exchange.is_filtered or FILTER_WORD in form.text)
        return GenerationOrder(form, task, _quote_cost(form), "CONTENT_FILTERED" if is_filtered else "SUCCESS")

    async def make(self, exchange: EmulatorExchange, order: GenerationOrder) -> Generated:
        """Render it, outside the loop's thread. Raises UnreadableImage."""
        blurred = order.finish_reason == "CONTENT_FILTERED"
        return await asyncio.to_thread(render, order.task, exchange.record.id, blurred=blurred)

    def charge(self, exchange: EmulatorExchange, order: GenerationOrder) -> None:
        """Book the charge, unless a fault prevents it."""
        if exchange.is_booked:
            self.charges.charge(
                exchange.record,
                order.form.operation.id,
                order.cost,
                seed=order.task.seed,
                finish_reason=order.finish_reason,
            )


def _quote_cost(form: ValidatedForm) -> Cost:
    """Return the operation's price; 0 if it is unknown."""
    operation = form.operation
    request = Request(operation=operation.id, params=operation.params(**form.values), target=operation.target)
    return operation.cost(request) or Cost(usd=0.0, credits=0.0, as_of="")
