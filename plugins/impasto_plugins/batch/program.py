"""The requests of a program as tasks, and the results of its batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from pathlib import Path

import attrs

from impasto import Client, ConfigError, ImpastoError, InvalidRequest, Problem, StorageError
from impasto.ext import check_seconds, kind_in_words

from .addresses import check_addresses, note_addresses
from .classification import outcome_of_error
from .filenames import wrong_id
from .ledger.evidence import Orphans
from .ledger.group_commit import WriteSteps
from .ledger.recovery import restore_sends
from .ledger.states import TaskState
from .ledger.workspace import Workspace, unusable_folder
from .manifest.planner import RetrySelection
from .manifest.rows import parse_row, tasks_of
from .output.results import ERRORS, RESULTS, write_results
from .output.s3 import BucketTarget, ImageBucket
from .runner.limits import FailureLimit, StopConditions
from .runner.scheduler import Scheduler
from .tasks import ImageTask, Outcome, OutcomeState, join_tasks

Requests = Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]

_STANDING: Mapping[int, OutcomeState] = {
    TaskState.DONE: "done",
    TaskState.REFUSED: "refused",
    TaskState.AMBIGUOUS: "ambiguous",
    TaskState.UNUSABLE: "unusable",
    TaskState.FILTERED: "filtered",
    TaskState.EXPIRED: "expired",
}


@attrs.frozen(kw_only=True)
class RunOptions:
    """Options of a run of requests. ``concurrency``: the most images in flight. Raises ConfigError."""

    concurrency: int = 64
    budget_usd: float | None = None
    max_failures: str | None = None
    retry_failed: bool = False
    retry_ambiguous: bool = False

    def __attrs_post_init__(self) -> None:
        if type(self.concurrency) is not int or self.concurrency < 1:
            raise ConfigError(f"concurrency must be a whole number of at least 1, not {self.concurrency!r}")
        self.stops()

    def stops(self) -> StopConditions:
        """Return the conditions that end a run."""
        budget, most = self.budget_usd, self.max_failures
        return StopConditions(
            budget=check_seconds("budget_usd", budget, unit="USD") if budget is not None else None,
            max_failures=FailureLimit.parse(most) if most is not None else None,
        )

    @property
    def retry(self) -> RetrySelection:
        """The images of earlier runs that are requested again."""
        return RetrySelection(failed=self.retry_failed, ambiguous=self.retry_ambiguous)


def raise_failure(run: Scheduler, stops: StopConditions) -> None:
    """Raise the error that ended a run, if one did."""
    if run.failure is not None:
        raise run.failure
    if (stopped := stops.error()) is not None:
        raise stopped


def write_start(folder: Workspace, target: BucketTarget | None, host: str | None = None) -> WriteSteps[None]:
    """Write the first row of a run: a job for the writer."""
    images = folder.images
    return folder.begin(len(images), target=target, orphan_extra=images.extra, host=host)


async def publish(
    folder: Workspace, bucket: ImageBucket | None, stops: StopConditions, host: str | None = None
) -> None:
    """Write results.jsonl and errors.jsonl, and upload them to the bucket. Raises StorageError.

    ``host``: the name of this process in a batch on several hosts.
    """
    target = bucket.target if bucket is not None else None
    try:
        await folder.submit(write_start(folder, target, host))
        await folder.submit(write_results(folder))
        if bucket is not None:
            await bucket.publish([folder.layout.root / name for name in (RESULTS, ERRORS)])
            if host is None:  # several hosts have a mark of their own
                await bucket.record_size(folder.layout)
    except OSError as error:
        how = "uploaded" if bucket is not None else "written"
        reason = error.strerror or error
        message = f"results could not be {how}: {reason}; the next run does that, and nothing is paid for again"
        failure = StorageError(message)
        failure.billed = stops.billed
        raise failure from (stops.error() or error)


@attrs.define(eq=False)
class RequestTasks:
    """The requests of a program: tasks to run, and outcomes of earlier runs."""

    client: Client
    folder: Workspace | None
    target: BucketTarget | None
    retry: RetrySelection
    orphans: Orphans | None = None
    _ids: set[str] = attrs.field(factory=set[str])
    _recalled: set[str] = attrs.field(factory=set[str])
    _addressed: set[tuple[str, str | None]] = attrs.field(factory=set[tuple[str, str | None]])

    async def work(self, jobs: list[ImageTask], requests: Requests) -> AsyncIterator[ImageTask | Outcome]:
        """Yield jobs, then each request's tasks, and the outcomes of those that are finished."""
        for job in jobs:
            yield job
        async for request in each_of(requests):
            try:
                tasks = await self._tasks_of(request)
            except ImpastoError as error:
                yield invalid_outcome(request, error)
                continue
            await self._note_address(tasks[0])
            left = [unit for unit in tasks if self.folder is None or not self._is_finished(self.folder, unit)]
            for unit in tasks:
                if self.folder is not None and unit not in left:
                    yield await asyncio.to_thread(self._earlier_outcome, self.folder, unit)
            for unit in join_tasks(left):
                yield unit
            if self.folder is not None and not left:
                for index in self.folder.images.extras(tasks[0].id, tasks[0].n):
                    yield await asyncio.to_thread(
                        self._earlier_outcome, self.folder, attrs.evolve(tasks[0], index=index)
                    )

    async def _tasks_of(self, request: Mapping[str, object]) -> list[ImageTask]:
        if not isinstance(request, Mapping):
            raise InvalidRequest([Problem("request", f"must be a mapping, not {kind_in_words(request)}")])
        row = parse_row(dict(request))
        if row.id in self._ids:
            raise InvalidRequest(
                [Problem("id", f"{row.id!r} is used twice in this batch; give each request its own id")]
            )
        operation = await self.client.operation(row.model, base_model=row.base_model)
        if operation.file_arguments.keys().isdisjoint(row.arguments):
            tasks = tasks_of(row, operation, Path(), position=len(self._ids))
        else:
            tasks = await asyncio.to_thread(tasks_of, row, operation, Path(), position=len(self._ids))
        await self._recall(tasks[0])
        await self._check_known(tasks[0])
        self._check_orphans(tasks)
        self._ids.add(row.id)
        return tasks

    async def _recall(self, unit: ImageTask) -> None:
        """Restore the sends of earlier processes with a model's key, at its first request."""
        if self.folder is None or unit.model in self._recalled:
            return
        self._recalled.add(unit.model)
        account = await self.client.account(unit.model, base_model=unit.base_model)
        if account.fingerprint not in self._recalled:
            self._recalled.add(account.fingerprint)
            restore_sends([account], self.folder.history)

    async def _note_address(self, unit: ImageTask) -> None:
        """Write a model's address into the ledger, at its first request. Raises ConfigError."""
        folder, model = self.folder, (unit.model, unit.base_model)
        if folder is None or model in self._addressed:
            return
        operation = await self.client.operation(unit.model, base_model=unit.base_model)
        await check_addresses(self.client, [operation], folder.history)
        try:
            is_new = await note_addresses(self.client, [operation], folder.history)
        except ConfigError:
            return  # without a key the call itself fails, and sends nothing
        if is_new:
            try:
                await folder.submit(write_start(folder, self.target))
            except OSError as error:
                raise unusable_folder(folder.layout, error) from None
        self._addressed.add(model)

    async def _check_known(self, unit: ImageTask) -> None:
        folder = self.folder
        if folder is None or folder.images.states(unit.id, 1) == [0]:
            return
        row = await asyncio.to_thread(folder.history.intent_of, unit.id, 0)
        if row["asks"] != unit.sha256:
            message = "is the id of other content in an earlier run of this folder; give another id"
            raise InvalidRequest([Problem("id", message)], operation=unit.model)

    def _check_orphans(self, tasks: list[ImageTask]) -> None:
        for unit in tasks if self.orphans else ():
            if self.orphans is not None and (name := self.orphans.find(unit)) is not None:
                message = (
                    f"{name!r} exists in the folder, but not in its ledger: it may have been paid for. Put the ledger"
                    " back, or pass start_over=True, which may pay for it again"
                )
                raise InvalidRequest([Problem("id", message)], operation=unit.model)

    def _is_finished(self, folder: Workspace, unit: ImageTask) -> bool:
        """Return True if nothing is left to do for an image."""
        state = folder.images.state(unit.id, unit.index)
        return not self.retry.selects()[state]

    def _earlier_outcome(self, folder: Workspace, unit: ImageTask) -> Outcome:
        """Return the outcome of an image in an earlier run."""
        state = folder.images.state(unit.id, unit.index)
        outcome = Outcome(id=unit.id, index=unit.index, model=unit.model, state=_STANDING.get(state, "pending"))
        if state != TaskState.DONE:
            return outcome
        name = str(folder.history.intent_of(unit.id, unit.index)["path"])
        if self.target is not None:
            return attrs.evolve(outcome, url=self.target.url(name))
        return attrs.evolve(outcome, path=folder.layout.root / name)


def invalid_outcome(request: object, error: ImpastoError) -> Outcome:
    """Return the outcome of a request that can't be sent."""
    row = request if isinstance(request, Mapping) else {}
    id, model = row.get("id", row.get("custom_id")), row.get("model")
    unit = ImageTask(id=str(id) if wrong_id(id) is None else "", index=0, n=1, model=str(model or ""))
    return outcome_of_error(unit, error)


async def each_of(requests: Requests) -> AsyncIterator[Mapping[str, object]]:
    """Yield each request."""
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
