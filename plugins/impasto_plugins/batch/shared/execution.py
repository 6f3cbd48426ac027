"""The work of one host: its share of the limits, and passes over the rows until no host has work left."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Set as AbstractSet
from contextlib import AsyncExitStack, ExitStack, aclosing

from impasto import Account, Call, Client, ConfigError, RateLimit, Result
from impasto.ext import shared_state
from impasto_plugins.batch.runner.limits import StopConditions
from impasto_plugins.batch.runner.scheduler import Execute, Scheduler, of_client
from impasto_plugins.batch.tasks import ImageTask, Outcome
from impasto_plugins.middleware.gate import gate_of

from . import session
from .budget import StateBudget
from .merging import Key
from .session import SharedBatch
from .share import STATE, JoinOptions, Share

_GIVE_SHARE = (
    "needs --share K/N, which divides it among N hosts (each gives its own K, from 1 to N), or --state postgresql://...,"
    " a database that all of them reach; nothing was sent"
)


TasksFrom = Callable[[float], AsyncIterator[ImageTask | Outcome]]
"""Makes the tasks that are to be done now. Those of the rows before this part of the batch come last."""


def check_limits(options: JoinOptions, accounts: Iterable[Account], budget: float | None) -> None:
    """Raise ConfigError for a limit that all hosts together would exceed, or that can't be divided."""
    if options.has_state:
        return
    share = options.share
    if budget is not None and share is None:
        raise ConfigError(f"--join with a budget {_GIVE_SHARE}")
    for account in accounts:
        if (limit := account.rate_limit) is None:
            continue
        if share is None:
            rate = f"{limit.requests:,} requests in {limit.seconds:g} s for {account.provider.name}"
            raise ConfigError(f"--join with a rate limit ({rate}) {_GIVE_SHARE}")
        share.of_rate(limit)


def restore_rate(shared: SharedBatch, accounts: Iterable[Account]) -> None:
    """Count the sends of the share's earlier holders, as if each had used all of its rate until its lease ended."""
    share = shared.share
    if share is None or (age := shared.hosts.seconds_since_others(share, shared.host)) is None:
        return
    for account in accounts:
        if account.rate_limit is not None:
            limit = share.of_rate(account.rate_limit)
            gate_of(account).restore_history([age] * limit.requests, limit)


async def execute_within_limits(
    client: Client, shared: SharedBatch, stops: StopConditions, stack: AsyncExitStack
) -> Execute:
    """Return a function that requests tasks within this host's part of the limits. Call it once the ledger is read."""
    whole = stops.budget
    shared.divide_budget(stops)
    if not shared.options.has_state or whole is None or (open_store := shared_state(client)) is None:
        return _execute_within_share(client, shared.share)
    store, images = await stack.enter_async_context(open_store()), shared.folder.images
    budget = StateBudget.of(store, shared.options.target, whole, images.usd - images.usd_of_shares[STATE])
    stack.push_async_callback(budget.aclose)
    return budget.within(of_client(client))


def _execute_within_share(client: Client, share: Share | None) -> Execute:
    """Return a function that requests tasks within a share of their provider's rate limit."""
    if share is None:
        return of_client(client)
    whole, parts = of_client(client), dict[RateLimit, Execute]()

    async def execute(unit: ImageTask, call: Callable[..., Call], resources: ExitStack) -> Result:
        limit = (await client.account(unit.model, base_model=unit.base_model)).rate_limit
        if limit is None:
            return await whole(unit, call, resources)
        if limit not in parts:
            parts[limit] = of_client(client.with_options(rate_limit=share.of_rate(limit)))
        return await parts[limit](unit, call, resources)

    return execute


async def shared_outcomes(
    shared: SharedBatch,
    run: Scheduler,
    jobs: Iterable[ImageTask],
    tasks: TasksFrom,
    images: AbstractSet[Key] | None = None,
) -> AsyncGenerator[Outcome]:
    """Yield the outcomes of this host's images until no host has work left, or this one is stopped.

    ``jobs``: those that this host has left open. While other hosts finish their images this one waits, since they may
    die. ``images``: the only ones that it waits for.
    """
    shared.jobs += jobs
    while True:
        shared.merge.is_retriable = False
        async with aclosing(run.outcomes(_units(shared, tasks(shared.start)))) as outcomes:
            async for outcome in outcomes:
                yield outcome
        while not (shared.jobs or shared.merge.is_retriable):
            if run.failure is not None or run.stops.reason is not None:
                return
            try:
                await shared.update()
            except OSError as error:
                run.stop_storage(str(error.strerror))
                return
            if shared.jobs or shared.merge.is_retriable:
                break
            if not shared.is_waiting(images):
                return
            await run.pace.changed(session.SYNC_SECONDS)
            run.stops.check_time()


async def _units(shared: SharedBatch, tasks: AsyncIterator[ImageTask | Outcome]) -> AsyncIterator[ImageTask | Outcome]:
    """Yield jobs of dead hosts first, since they are paid for, and tasks that this run has not tried."""
    async for unit in tasks:
        while shared.jobs:
            yield shared.jobs.pop()
        if isinstance(unit, Outcome) or (unit.id, unit.index) not in shared.tried:
            yield unit
    while shared.jobs:
        yield shared.jobs.pop()
