"""One batch from its manifest to its results: looked at, recovered, run, and told."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from pathlib import Path

import attrs

from impasto import Client, ConfigError, ManifestError, Registry

from .disk import Disk
from .folder import Folder, History, Layout
from .keeping import Keeping
from .manifest import Manifest
from .names import Template
from .pace import Pace
from .preflight import Again, Plan, Preflight
from .recovery import recover
from .results import write_results
from .run import Run
from .status import Status, status_of
from .stops import MostFailures, Stops
from .unit import Outcome, Unit

CONCURRENCY = 64
MOST_CONCURRENCY = 1_000

_PIECE = 8
"""How many units are read from the manifest at a time, in a thread."""


@attrs.frozen(kw_only=True)
class Order:
    """What is to be run, and how. ``budget`` in USD, ``deadline`` and ``timeout`` in seconds."""

    manifest: Path
    out: Path
    concurrency: int = CONCURRENCY
    budget: float | None = None
    max_failures: MostFailures | None = None
    timeout: float | None = None
    deadline: float = math.inf
    again: Again = Again()
    skip_invalid: bool = False
    dedupe: bool = False
    drop_params: bool = False
    template: Template = Template()


@attrs.define(eq=False)
class Batch:
    """An order on its way. ``plan`` and ``run`` are there once it got so far."""

    order: Order
    registry: Registry
    disk: Disk = attrs.field(factory=Disk)
    stops: Stops = attrs.field(factory=Stops)
    pace: Pace = attrs.field(default=attrs.Factory(lambda self: Pace(self.order.concurrency), takes_self=True))
    plan: Plan | None = None
    folder: Folder | None = None

    async def dry_run(self, client: Client) -> Plan:
        """Looks at everything and changes nothing. Raises ManifestError or ConfigError."""
        history = await asyncio.to_thread(History.of, Layout(self.order.out))
        return await self._planned(client, history)

    async def run(self, client: Client, tell: Callable[[Outcome], None]) -> Status:
        """Runs it to its end, or to a stop; ``tell`` hears of each picture. Raises ManifestError or ConfigError."""
        order = self.order
        async with await Folder.open(order.out, self.disk) as folder:
            self.folder = folder
            preflight = self._preflight(folder.history)
            plan = await self._planned(client, folder.history, preflight)
            keys = await self._recall(client, plan, folder.history)
            strangers = {state.name: number for state, number in plan.strangers.items() if number > 0}
            await folder.post(folder.begin(plan.pictures, manifest=str(order.manifest), strangers=strangers))
            keeping = Keeping(folder, order.template)
            recovered = await recover(folder, keeping, keys)
            self.stops.budget, self.stops.max_failures = order.budget, order.max_failures
            self.stops.ends = time.monotonic() + order.deadline
            self.stops.usd = folder.pictures.usd
            run = Run(client, self.pace, self.stops, keeping)
            async for outcome in run.outcomes(_all(recovered.jobs, preflight.to_do(plan))):
                tell(outcome)
            await asyncio.to_thread(write_results, folder.layout, folder.pictures, self.disk)
            return self.status(running=False)

    def status(self, *, running: bool = True) -> Status:
        """Where it stands."""
        assert self.folder is not None  # noqa: S101 - whoever asks has begun it
        assert self.plan is not None  # noqa: S101 - as above
        return status_of(self.folder.pictures, self.plan.pictures, self.plan.strangers, running=running)

    def _preflight(self, history: History) -> Preflight:
        order = self.order
        return Preflight(
            manifest=Manifest(order.manifest),
            load=self.registry.operation,
            pictures=history.pictures,
            again=order.again,
            drop_params=order.drop_params,
            dedupe=order.dedupe,
        )

    async def _planned(self, client: Client, history: History, preflight: Preflight | None = None) -> Plan:
        """The plan, where it may be run. Raises ManifestError or ConfigError."""
        plan = self.plan = await asyncio.to_thread((preflight or self._preflight(history)).plan)
        if plan.bad and not self.order.skip_invalid:
            raise ManifestError("\n".join((_counted(plan), *map(str, plan.bad))))
        unpriced = sorted({share.model for share in plan.shares if share.usd is None})
        if unpriced and self.order.budget is not None:
            raise ConfigError(f"the price of {', '.join(unpriced)} is not known: it can't be run with a budget")
        for share in plan.shares:
            await client.account(share.model, base_model=share.base_model)
        return plan

    async def _recall(self, client: Client, plan: Plan, history: History) -> frozenset[str]:
        """Counts what an earlier process sent towards the rates of the keys; returns these, as the ledger has them."""
        from impasto_middleware.limit import gate_of

        accounts = {}
        for share in plan.shares:
            account = await client.account(share.model, base_model=share.base_model)
            accounts[account.fingerprint] = account
        for account in accounts.values():
            ages = [age for key, age in history.sent if account.fingerprint.startswith(key)]
            limit = account.rate_limit
            if ages and limit is not None:
                gate_of(account).recall(ages, limit)
        return frozenset(fingerprint[:16] for fingerprint in accounts)


def _counted(plan: Plan) -> str:
    return f"{len(plan.bad):,} of {plan.rows:,} rows can't be run; nothing was sent"


async def _all(jobs: list[Unit], units: Iterator[Unit]) -> AsyncIterator[Unit]:
    """Jobs that go on first: they are paid for. The manifest is read in a thread, as far as it is needed."""
    for job in jobs:
        yield job
    while piece := await asyncio.to_thread(lambda: list(islice(units, _PIECE))):
        for unit in piece:
            yield unit
