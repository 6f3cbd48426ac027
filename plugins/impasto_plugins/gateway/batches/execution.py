"""How a batch's picture is asked for: within its key's limits, of the deployment whose turn it is, or the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import attrs

from impasto import Call, ChargeUnknown, NotSent, Result
from impasto_plugins.batch.runner.health_check import is_reached
from impasto_plugins.batch.runner.scheduler import Ask
from impasto_plugins.batch.tasks import Unit
from impasto_plugins.gateway.calls.budgets import Purse
from impasto_plugins.gateway.calls.execution import Checked, made, on_each
from impasto_plugins.gateway.calls.queue_timeout import in_time
from impasto_plugins.gateway.calls.runtime import Setup
from impasto_plugins.gateway.config.model import DAY
from impasto_plugins.gateway.errors import Failure
from impasto_plugins.gateway.http.memory_budget import PICTURE_BYTES, Flow, Share
from impasto_plugins.gateway.storage.database import Data

from .input_lines import LineUnit
from .output import Refused

_ROOM_SECONDS = 0.5
"""How often it is looked whether the memory has room for one more picture."""


def asking(setup: Callable[[], Setup], data: Data, flow: Flow) -> Ask:
    """What asks for the pictures of lines, and fetches jobs by the configuration of then."""

    async def ask(unit: Unit, call: Callable[..., Call]) -> Result:
        with flow.share() as share:
            await _room(share)
            if unit.job is not None:
                return await _fetched(unit, unit.job, setup())
            assert isinstance(unit, LineUnit)  # noqa: S101 - a batch's other units are jobs
            return await _made(unit, Purse(data, unit.caller, counted=True), call)

    return ask


async def is_back(unit: Unit) -> bool:
    """Whether one of a picture's providers answers again, asked by what costs nothing; a job's is asked for the job."""
    if not isinstance(unit, LineUnit):
        return True
    for deployment in unit.ways:
        entry = deployment.entry
        asked = attrs.evolve(unit, model=entry.model, base_model=entry.base_model)
        if await is_reached(deployment.client, asked):
            return True
    return False


async def _room(share: Share) -> None:
    """Waits until there is room: callers who wait for an answer go first."""
    while not share.grow(PICTURE_BYTES):  # noqa: ASYNC110 - whoever gives room back is in no hurry to tell
        await asyncio.sleep(_ROOM_SECONDS)


async def _made(unit: LineUnit, purse: Purse, call: Callable[..., Call]) -> Result:
    async def attempt(checked: Checked, *, waits: bool) -> Result:
        making = partial(in_time, checked.deployment.account, partial(made, checked, call), waits=waits)
        try:
            return await purse.pay(checked, making)
        except Failure as failure:  # the key's limits
            if failure.status >= 500:  # they can't be looked up
                raise NotSent(failure.message, retryable=True) from None
            raise Refused(failure) from None

    ways = _Ways(unit)
    first = await ways.next()
    assert first is not None  # noqa: S101 - a line that no deployment takes is no unit
    return await on_each(first, ways, attempt)


class _Ways:
    """The deployments that take a line, in their turn."""

    def __init__(self, unit: LineUnit) -> None:
        self._left = [unit.ways[each] for each in unit.served.in_turn() if each in unit.ways]

    @property
    def are_left(self) -> bool:
        return bool(self._left)

    async def next(self) -> Checked | None:
        return self._left.pop(0) if self._left else None


async def _fetched(unit: Unit, job: str, setup: Setup) -> Result:
    """The result of a job, with the key that began it."""
    every = (deployment for model in setup.models.values() for deployment in model.deployments)
    for deployment in every:
        if deployment.account.fingerprint.startswith(unit.key):
            with deployment.observer.attempt(deployment.label) as observed:
                result = await deployment.client.resume(deployment.entry.model, job, timeout=DAY)
                observed.came(result)
                return result
    lost = ChargeUnknown(f"job {job} was begun with a key that is gone; it may have been charged")
    lost.id = job
    raise lost
