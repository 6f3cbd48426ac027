"""``client.batch(join=True)``: the requests of a program, which several hosts share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence, Set as AbstractSet
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs

from impasto import Client, ImpastoError, InvalidRequest, Operation, RegistryError

from .addresses import check_addresses, note_addresses
from .filenames import Template
from .ledger.filesystem import Disk
from .ledger.recovery import recover
from .ledger.workspace import Workspace, unusable_folder
from .manifest.rows import parse_row
from .output.s3 import check_target
from .program import RequestTasks, RunOptions, invalid_outcome, publish, raise_failure, write_start
from .runner.concurrency import AdaptiveConcurrency
from .runner.health_check import is_reachable
from .runner.scheduler import Scheduler
from .shared.execution import check_limits, execute_within_limits, restore_rate, shared_outcomes
from .shared.recorder import SharedRecorder
from .shared.session import SharedBatch
from .shared.share import JoinOptions
from .tasks import ImageTask, Outcome, join_shared_tasks, key_of


async def run_joined(
    client: Client,
    requests: Sequence[Mapping[str, object]],
    *,
    options: JoinOptions,
    place: Path,
    run_options: RunOptions,
) -> AsyncGenerator[Outcome]:
    """Run requests that several hosts share. ``place``: the local folder."""
    operations, images = await _operations_of(client, requests)
    opening = open_host(client, options, place, operations=operations, images=images, run_options=run_options)
    async with opening as host:
        finished = set[tuple[str, int]]()
        running = shared_outcomes(host.shared, host.run, host.jobs, partial(host.shared_work, requests))
        async with aclosing(running) as outcomes:
            async for outcome in outcomes:
                finished.add((outcome.id, outcome.index))
                yield outcome
        async for outcome in host.earlier_outcomes(requests, finished):
            yield outcome
        await host.publish()
        raise_failure(host.run, host.run.stops)


@asynccontextmanager
async def open_host(
    client: Client,
    options: JoinOptions,
    place: Path,
    *,
    operations: Iterable[Operation],
    images: int,
    run_options: RunOptions,
) -> AsyncIterator[JoinedHost]:
    """Make this process a host of a batch for a block. Raises ConfigError.

    ``operations``: those of all requests; ``images``: their number.
    """
    stops, retry = run_options.stops(), run_options.retry
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(await Workspace.open(place, Disk()))
        check_target(folder.history, place, options.target)
        shared = await stack.enter_async_context(SharedBatch.open(folder, options))
        await check_addresses(client, operations, folder.history)
        await note_addresses(client, operations, folder.history)
        accounts = [await client.account(operation.id) for operation in operations]
        keys = frozenset(map(key_of, accounts))
        check_limits(options, accounts, stops.budget)
        is_selected = retry.selects().__getitem__
        keeping = SharedRecorder(folder, Template(), shared.bucket, shared=shared, is_selected=is_selected)
        try:
            await folder.submit(write_start(folder, options.target, host=shared.host))
            mark = {"manifest": "requests of a program", "--names": Template().text}
            await shared.begin(stack, mark=mark, images=images, keys=keys)
            restore_rate(shared, accounts)
            jobs = (await recover(folder, keeping, keys)).jobs
        except OSError as error:
            raise unusable_folder(folder.layout, error) from None
        stops.usd = folder.images.usd
        execute = await execute_within_limits(client, shared, stops, stack)
        pace = AdaptiveConcurrency(run_options.concurrency)
        run = Scheduler(execute, pace, stops, keeping, partial(is_reachable, client))
        yield JoinedHost(
            client=client, folder=folder, target=options.target, retry=retry, shared=shared, run=run, jobs=jobs
        )


async def _operations_of(client: Client, requests: Iterable[Mapping[str, object]]) -> tuple[list[Operation], int]:
    """Return the operations of all valid requests, and the number of their images. Raises ConfigError."""
    found, images = dict[str, Operation](), 0
    for request in requests:
        with suppress(InvalidRequest, RegistryError, TypeError, ValueError):
            row = parse_row(dict(request))
            operation = await client.operation(row.model, base_model=row.base_model)
            found[operation.id] = operation
            images += row.n if isinstance(row.n, int) else 1
    return list(found.values()), images


@attrs.define(eq=False, kw_only=True)
class JoinedHost(RequestTasks):
    """This process as a host of a batch, and requests of which other hosts may do any."""

    shared: SharedBatch
    run: Scheduler
    jobs: list[ImageTask]
    """Jobs that this host had left open."""

    async def shared_work(
        self, requests: Sequence[Mapping[str, object]], start: float
    ) -> AsyncIterator[ImageTask | Outcome]:
        """Yield what is left to do, with the requests before a part of them last; invalid ones the first time."""
        first, selects = int(start * len(requests)), self.retry.selects()
        async for tasks in self._parse_all((*requests[first:], *requests[:first])):
            if isinstance(tasks, Outcome):
                yield tasks
                continue
            await self._note_address(tasks[0])
            states = self.shared.folder.images.states(tasks[0].id, len(tasks))
            left = [(task, state) for task, state in zip(tasks, states, strict=True) if selects[state]]
            for unit in join_shared_tasks([task for task, _ in left], [state for _, state in left]):
                yield unit

    async def earlier_outcomes(
        self, requests: Iterable[Mapping[str, object]], finished: AbstractSet[tuple[str, int]]
    ) -> AsyncIterator[Outcome]:
        """Yield the outcomes of images that other hosts or other runs have finished, or have in progress."""
        async for tasks in self._parse_all(requests):
            for unit in tasks if isinstance(tasks, list) else ():
                if (unit.id, unit.index) not in finished:
                    yield await asyncio.to_thread(self._earlier_outcome, self.shared.folder, unit)

    async def publish(self) -> None:
        """Write the results that are known here, and upload them. Raises StorageError."""
        await publish(self.shared.folder, self.shared.bucket, self.run.stops, self.shared.host)

    def parse_part(self, requests: Iterable[Mapping[str, object]]) -> AsyncIterator[list[ImageTask] | Outcome]:
        """Yield the tasks of each request of a part of the batch, or its outcome if it can't be sent."""
        self._ids = set()
        return self._parse_all(requests)

    async def _parse_all(self, requests: Iterable[Mapping[str, object]]) -> AsyncIterator[list[ImageTask] | Outcome]:
        """Yield each request's tasks, or its outcome if it is invalid and was not reported before."""
        is_first, self._ids = not self._ids, set()
        for request in requests:
            try:
                tasks = await self._tasks_of(request)
            except ImpastoError as error:
                if is_first:
                    yield invalid_outcome(request, error)
            else:
                yield tasks
