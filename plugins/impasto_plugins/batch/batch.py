"""One batch from its manifest to its results: plan, recover, run, report."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import attrs

from impasto import Account, Client, ManifestError, Operation, Registry
from impasto.ext import close_files
from impasto_plugins.cli.terminal.output import count_of

from .addresses import check_addresses, note_addresses, with_api_base
from .filenames import Template
from .ledger.evidence import Orphans
from .ledger.filesystem import Disk
from .ledger.group_commit import WriteSteps
from .ledger.inspection import inspect_history
from .ledger.recorder import LedgerRecorder
from .ledger.recovery import recover, restore_sends
from .ledger.workspace import LedgerHistory, Workspace, WorkspacePaths, unusable_folder
from .manifest.planner import Plan, Planner, RetrySelection
from .manifest.reader import Manifest
from .manifest.stdin import choose_manifest, keep
from .output.results import A_PAGE, ERRORS, RESULTS, write_results
from .output.s3 import BucketTarget, ImageBucket, check_target, claim_bucket
from .output.status import GONE, BatchStatus, missing_images, open_rows, status_of
from .runner.concurrency import AdaptiveConcurrency
from .runner.health_check import is_reachable
from .runner.limits import FailureLimit, StopConditions
from .runner.scheduler import Scheduler, of_client
from .shared.execution import check_limits, execute_within_limits, restore_rate, shared_outcomes
from .shared.recorder import SharedRecorder
from .shared.session import SharedBatch
from .shared.share import JoinOptions
from .tasks import ImageTask, Outcome, key_of

CONCURRENCY = 64

_PIECE = 16
"""Tasks that are read from the manifest at a time, in a thread."""


@attrs.frozen(kw_only=True)
class BatchSpec:
    """The specification of a batch. ``budget`` in USD, ``deadline`` in seconds.

    ``stdin_copy``: a file with the manifest from standard input; relative paths in it start at the current folder.
    ``target``: the bucket for images and results; ``out`` is then the local folder of the ledger. ``api_base``: another
    address for the provider of all models. ``join``: set if several hosts run the batch.
    """

    manifest: Path
    stdin_copy: Path | None = None
    out: Path
    concurrency: int = CONCURRENCY
    budget: float | None = None
    max_failures: FailureLimit | None = None
    deadline: float = math.inf
    retry: RetrySelection = RetrySelection()
    skip_invalid: bool = False
    dedupe: bool = False
    drop_params: bool = False
    api_base: str | None = None
    report: bool = True
    target: BucketTarget | None = None
    template: Template = Template()
    start_over: bool = False
    join: JoinOptions | None = None


class ProgressListener(Protocol):
    """Receives the progress of a run. Called in the loop's thread, so it must be quick."""

    def planned(self, plan: Plan) -> None:
        """Receive the plan: the manifest is valid and the run begins."""
        ...

    def note(self, text: str) -> None:
        """Receive a note for the user that stops nothing."""
        ...

    def task_finished(self, outcome: Outcome) -> None:
        """Receive a finished image."""
        ...


@attrs.define(eq=False)
class Batch:
    """A batch in progress."""

    order: BatchSpec
    registry: Registry
    listener: ProgressListener
    disk: Disk = attrs.field(factory=Disk)
    stops: StopConditions = attrs.field(factory=StopConditions)
    pace: AdaptiveConcurrency = attrs.field(
        default=attrs.Factory(lambda self: AdaptiveConcurrency(self.order.concurrency), takes_self=True)
    )
    plan: Plan | None = None
    folder: Workspace | None = None
    are_results_written: bool = True
    """False if results or report could not be written."""
    is_cancelled: bool = False
    """True if images in flight were abandoned."""
    _run: Scheduler | None = None
    _orphan_extra: int = 0
    """Extra images of rows that are no longer in the manifest."""

    async def dry_run(self, client: Client) -> Plan:
        """Check everything and change nothing. Raises ManifestError or ConfigError."""
        layout = WorkspacePaths(self.order.out)
        history = await asyncio.to_thread(
            inspect_history, layout, self.order.template.levels, start_over=self.order.start_over
        )
        plan, _ = await self._planned(client, await asyncio.to_thread(self._preflight, history))
        if self.order.target is not None and self.order.join is None:
            async with ImageBucket.open(self.order.target, is_started_over=history.is_started_over) as bucket:
                await bucket.inspect(layout)
        return plan

    async def run(self, client: Client) -> BatchStatus:
        """Run to the end, or to a stop. Raises ManifestError or ConfigError."""
        order, stops = self.order, self.stops
        async with AsyncExitStack() as stack:
            opening = Workspace.open(order.out, self.disk, levels=order.template.levels, start_over=order.start_over)
            folder = self.folder = await stack.enter_async_context(await opening)
            shared = None
            if order.join is not None:
                shared = await stack.enter_async_context(SharedBatch.open(folder, order.join))
            preflight = await asyncio.to_thread(self._preflight, folder.history)
            plan, client = await self._planned(client, preflight)
            await self._keep_piped(preflight, plan)
            others = preflight.operations if shared is not None else ()  # this host may have to fetch jobs of any
            accounts = await _accounts(client, _models_to_call(plan, folder.history, others))
            keys = restore_sends(accounts, folder.history)
            self._orphan_extra = folder.images.extra - plan.extra_images
            try:
                if shared is None:
                    bucket = await claim_bucket(stack, order.target, folder.history)
                    keeping = LedgerRecorder(folder, order.template, bucket, A_PAGE)
                    await folder.submit(_write_start(folder, order, plan, self._orphan_extra))
                else:
                    bucket = shared.bucket
                    keeping = await self._join(stack, shared, preflight, plan, accounts)
                recovered = await recover(folder, keeping, keys)
            except OSError as error:
                raise unusable_folder(folder.layout, error) from None
            self._note_history(plan, folder.history)
            for note in recovered.notes():
                self.listener.note(note)
            stops.budget, stops.max_failures = order.budget, order.max_failures
            stops.ends_at = time.monotonic() + order.deadline
            stops.usd = folder.images.usd
            execute = of_client(client)
            if shared is not None:
                execute = await execute_within_limits(client, shared, stops, stack)
            run = self._run = Scheduler(
                execute, self.pace, stops, keeping, partial(is_reachable, client), self._note_outage
            )
            extra, jobs, to_do = folder.images.extra, recovered.jobs, partial(preflight.to_do, plan)
            if shared is None:
                outcomes = run.outcomes(_jobs_then_tasks(jobs, to_do()))
            else:
                outcomes = shared_outcomes(shared, run, jobs, lambda start: _jobs_then_tasks([], to_do(start=start)))
            async for outcome in outcomes:
                self.listener.task_finished(outcome)
            self._note_manifest_failure(run.failure)
            if more := folder.images.extra - extra:
                self.listener.note(f"{more:,} more images came than were requested; all of them are saved")
            await folder.flush()  # images that were given up
            status = await asyncio.to_thread(self._status, folder, plan, running=False)
            await self._write_outputs(folder, status, bucket)
            return status

    async def _join(
        self, stack: AsyncExitStack, shared: SharedBatch, preflight: Planner, plan: Plan, accounts: list[Account]
    ) -> SharedRecorder:
        """Take this host's place in a batch on several hosts. Raises ConfigError, OSError."""
        order, folder = self.order, shared.folder
        check_limits(shared.options, accounts, order.budget)
        sha256 = await asyncio.to_thread(preflight.manifest.sha256)
        await folder.submit(_write_start(folder, order, plan, self._orphan_extra, host=shared.host))
        mark = {"manifest": sha256, "--names": order.template.text}
        await shared.begin(stack, mark=mark, images=plan.images, keys=frozenset(map(key_of, accounts)))
        restore_rate(shared, accounts)
        is_selected = order.retry.selects().__getitem__
        return SharedRecorder(folder, order.template, shared.bucket, shared=shared, is_selected=is_selected)

    async def _write_outputs(self, folder: Workspace, status: BatchStatus, bucket: ImageBucket | None) -> None:
        """Write results and report, and upload them."""
        files = [folder.layout.root / name for name in (RESULTS, ERRORS)]
        async with self._note_failure(
            "results.jsonl and errors.jsonl could not be written: {}; the next run does that"
        ):
            await folder.submit(write_results(folder))
        if self.order.report and self.order.join is None:  # each host has few of the images
            from .output.report import write_report

            async with self._note_failure("report.html could not be written: {}"):
                files += await asyncio.to_thread(write_report, folder.layout, folder.images, status)
        if bucket is not None:
            async with self._note_failure("results and report could not be uploaded: {}; the next run does that"):
                await bucket.publish(files)
                if self.order.join is None:
                    await bucket.record_size(folder.layout)

    @asynccontextmanager
    async def _note_failure(self, message: str) -> AsyncIterator[None]:
        """Turn an error of optional output into a note."""
        try:
            yield
        except OSError as error:
            self.are_results_written = False
            self.listener.note(message.format(error.strerror or error))

    def _note_manifest_failure(self, failure: Exception | None) -> None:
        """Stop for a manifest that can't be read to its end. Raises any other failure."""
        if isinstance(failure, ManifestError):
            self.stops.stop(failure.message, "configuration", failure)
        elif failure is not None:
            raise failure

    def stop(self, reason: str) -> None:
        """Start no further image; images in flight are waited for."""
        if self._run is not None:
            self._run.stop(reason)
        else:
            self.stops.stop(reason)

    def cancel(self) -> bool:
        """Abandon images in flight. Return False if there are none yet."""
        if self._run is not None:
            self.is_cancelled = True
            self._run.cancel()
        return self._run is not None

    def status(self) -> BatchStatus | None:
        """Return the status, or None before the manifest was read."""
        if self.folder is None or self.plan is None:
            return None
        return self._status(self.folder, self.plan, running=True)

    def _status(self, folder: Workspace, plan: Plan, *, running: bool) -> BatchStatus:
        total = plan.images + folder.images.extra - self._orphan_extra
        return status_of(
            folder.images,
            total,
            plan.orphans,
            running=running,
            missing=len(folder.history.missing),
            passed_over=len(plan.invalid),
            left_open=() if running else open_rows(folder.layout, folder.images),
            is_of_host=True,
        )

    def _note_outage(self, text: str, is_over: bool) -> None:
        self.listener.note(text if is_over else f"{text}, Ctrl-C stops")

    def _note_history(self, plan: Plan, history: LedgerHistory) -> None:
        self.plan = plan  # no progress is reported before the plan
        self.listener.planned(plan)
        if self.order.start_over and history.is_vouched_for:
            self.listener.note("--start-over has no effect: the ledger is intact, and the run continues with it")
        if history.read.torn:
            message = (
                "the ledger's last row was incomplete, because the process or the machine stopped while writing it"
            )
            self.listener.note(f"{message}: {history.read.torn:,} bytes were removed")
        for twin in plan.duplicates:
            self.listener.note(str(twin))
        for bad in plan.invalid:
            self.listener.note(f"skipped: {bad}")
        for missing in missing_images(history):
            self.listener.note(missing)
        if orphans := plan.orphans.total():
            self.listener.note(
                f"the manifest no longer has {count_of(orphans, 'image')} of earlier runs; the files stay"
            )

    def _preflight(self, history: LedgerHistory) -> Planner:
        order, load = self.order, self.registry.operation
        manifest = Manifest(order.manifest, load)
        if order.stdin_copy is not None:
            manifest = Manifest(choose_manifest(order.stdin_copy, history.layout), load, Path(), "on standard input")
        return Planner(
            manifest=manifest,
            history=history,
            retry=order.retry,
            drop_params=order.drop_params,
            dedupe=order.dedupe,
            is_shared=order.join is not None,
        )

    async def _keep_piped(self, preflight: Planner, plan: Plan) -> None:
        """Store a manifest that came on standard input. Raises ConfigError."""
        stdin_copy, folder, manifest = self.order.stdin_copy, self.folder, preflight.manifest
        if folder is None or stdin_copy is None or manifest.path != stdin_copy:
            return
        try:
            await asyncio.to_thread(keep, stdin_copy, folder.layout, self.disk)
        except OSError as error:
            raise unusable_folder(folder.layout, error) from None
        preflight.manifest = attrs.evolve(manifest, path=folder.layout.manifest)
        plan.mark = await asyncio.to_thread(preflight.manifest.mark)

    async def _planned(self, client: Client, preflight: Planner) -> tuple[Plan, Client]:
        """Return the plan, if it may be run, and the client for it. Raises ManifestError or ConfigError."""
        check_target(preflight.history, self.order.out, self.order.target)
        plan = await asyncio.to_thread(preflight.plan)
        if plan.invalid and not self.order.skip_invalid:
            raise ManifestError("\n".join((_count_tasks(plan), *map(str, plan.invalid))))
        if self.order.budget is not None:
            plan.check_prices()
        called = await _operations_to_call(client, plan, preflight.history)
        operations = [*preflight.operations, *called]
        if self.order.api_base is not None:
            client = with_api_base(self.order.api_base, client, called or operations)
        await check_addresses(client, operations, preflight.history)
        for share in plan.totals:
            if share.to_do:
                await client.account(share.model, base_model=share.base_model)
        await asyncio.to_thread(_check_orphans, preflight, plan, self.order.template)
        await note_addresses(client, called, preflight.history)
        return plan, client


async def _accounts(client: Client, models: set[tuple[str, str | None]]) -> list[Account]:
    """Return the accounts of models, each once."""
    accounts = [await client.account(model, base_model=base_model) for model, base_model in models]
    return list({account.fingerprint: account for account in accounts}.values())


def _models_to_call(
    plan: Plan, history: LedgerHistory, others: Iterable[Operation] = ()
) -> set[tuple[str, str | None]]:
    """Return the models, each with its base_model, of tasks to run and of jobs to poll, and ``others``."""
    models: set[tuple[str, str | None]] = {(operation.id, None) for operation in others}
    models |= {(share.model, share.base_model) for share in plan.totals if share.to_do}
    return models | {(model, None) for model in history.job_models}


async def _operations_to_call(client: Client, plan: Plan, history: LedgerHistory) -> list[Operation]:
    return [await client.operation(model, base_model=base) for model, base in _models_to_call(plan, history)]


def _check_orphans(preflight: Planner, plan: Plan, template: Template) -> None:
    """Raise UntrustedLedger if images of this manifest are in the folder and not in its ledger."""
    if orphans := Orphans(preflight.history, template):
        orphans.check(_closing_files(preflight.to_do(plan)))


def _closing_files(units: Iterator[ImageTask]) -> Iterator[ImageTask]:
    """Yield tasks, with their files closed again."""
    for unit in units:
        if unit.request is not None:
            close_files(unit.request.params)
        yield unit


def _write_start(
    folder: Workspace, order: BatchSpec, plan: Plan, orphan_extra: int, *, host: str | None = None
) -> WriteSteps[None]:
    """Write the first rows of a run."""
    orphans = {state.name: number for state, number in plan.orphans.items()}
    yield from folder.begin(
        plan.images,
        manifest=str(order.manifest),
        orphans=orphans,
        target=order.target,
        orphan_extra=orphan_extra,
        host=host,
    )
    for bad in plan.invalid:
        error = {"code": "invalid_request", "message": "; ".join(bad.problems), "billed": "no"}
        folder.write({"row": "invalid", "id": bad.id, "line": bad.line, **error})
    for row in folder.history.missing:
        error = {"code": "file_gone", "message": f"{row['path']} {GONE}", "billed": "yes"}
        folder.write({"row": "gone", "id": row["id"], "index": row["index"], **error})


def _count_tasks(plan: Plan) -> str:
    return f"{len(plan.invalid):,} of {count_of(plan.rows, 'row')} can't be run; nothing was sent"


async def _jobs_then_tasks(jobs: list[ImageTask], units: Iterator[ImageTask]) -> AsyncIterator[ImageTask | Outcome]:
    """Yield jobs in progress first, since they are paid for. The manifest is read in a thread, as far as needed."""
    for job in jobs:
        yield job
    while piece := await asyncio.to_thread(lambda: list(islice(units, _PIECE))):
        for unit in piece:
            yield unit
