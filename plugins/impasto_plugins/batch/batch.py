"""One batch from its manifest to its results: looked at, recovered, run, and told."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import attrs

from impasto import Client, ConfigError, ManifestError, Operation, Registry
from impasto.ext import close_files

from .addresses import check_addresses, note_addresses
from .filenames import Template
from .ledger.evidence import Strangers, check_links
from .ledger.filesystem import Disk
from .ledger.group_commit import Steps
from .ledger.log import UntrustedLedger
from .ledger.recorder import Keeping
from .ledger.recovery import recall, recover
from .ledger.workspace import Folder, History, Layout, trusted, unusable
from .manifest.planner import Again, Plan, Preflight
from .manifest.reader import Manifest
from .manifest.stdin import chosen, keep
from .output.results import A_PAGE, ERRORS, RESULTS, write_results
from .output.s3 import Bucket, Target, check_target, claimed
from .output.status import GONE, Status, missing_images, status_of
from .runner.concurrency import Pace
from .runner.health_check import is_reached
from .runner.limits import MostFailures, Stops
from .runner.scheduler import Run, of_client
from .tasks import Outcome, Unit

CONCURRENCY = 64

_PIECE = 16
"""How many units are read from the manifest at a time, in a thread."""


@attrs.frozen(kw_only=True)
class Order:
    """What is to be run, and how. ``budget`` in USD, ``deadline`` in seconds.

    ``piped``: the file of what came on standard input, where the manifest is that; paths in it begin where we are.
    ``target``: where pictures and results go up to; ``out`` is then the local folder of the ledger.
    ``api_base``: another address of the provider of all models.
    """

    manifest: Path
    piped: Path | None = None
    out: Path
    concurrency: int = CONCURRENCY
    budget: float | None = None
    max_failures: MostFailures | None = None
    deadline: float = math.inf
    again: Again = Again()
    skip_invalid: bool = False
    dedupe: bool = False
    drop_params: bool = False
    api_base: str | None = None
    report: bool = True
    target: Target | None = None
    template: Template = Template()
    start_over: bool = False


class Listener(Protocol):
    """Hears how a run goes. Called in the loop's thread: it must be quick."""

    def planned(self, plan: Plan) -> None:
        """The manifest was looked at, and may be run."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know, and that stops nothing."""
        ...

    def through(self, outcome: Outcome) -> None:
        """A picture is through."""
        ...


@attrs.define(eq=False)
class Batch:
    """An order on its way."""

    order: Order
    registry: Registry
    listener: Listener
    disk: Disk = attrs.field(factory=Disk)
    stops: Stops = attrs.field(factory=Stops)
    pace: Pace = attrs.field(default=attrs.Factory(lambda self: Pace(self.order.concurrency), takes_self=True))
    plan: Plan | None = None
    folder: Folder | None = None
    are_results_written: bool = True
    """False if results or report could not be written."""
    is_cancelled: bool = False
    """Whether what was in flight was given up."""
    _run: Run | None = None
    _stranger_extra: int = 0
    """How many images that were not asked for belong to rows which the manifest has no more."""

    async def dry_run(self, client: Client) -> Plan:
        """Looks at everything and changes nothing. Raises ManifestError or ConfigError."""
        layout = Layout(self.order.out)
        history = await asyncio.to_thread(_looked_into, layout, self.order)
        plan, _ = await self._planned(client, await asyncio.to_thread(self._preflight, history))
        if self.order.target is not None:
            async with Bucket.open(self.order.target, is_started_over=history.is_started_over) as bucket:
                await bucket.look(layout)
        return plan

    async def run(self, client: Client) -> Status:
        """Runs it to its end, or to a stop. Raises ManifestError or ConfigError."""
        order, stops = self.order, self.stops
        async with AsyncExitStack() as stack:
            opening = Folder.open(order.out, self.disk, levels=order.template.levels, start_over=order.start_over)
            folder = self.folder = await stack.enter_async_context(await opening)
            preflight = await asyncio.to_thread(self._preflight, folder.history)
            plan, client = await self._planned(client, preflight)
            await self._keep_piped(preflight, plan)
            keys = await self._recall(client, plan, folder.history)
            try:
                bucket = await claimed(stack, order.target, folder.history)
                keeping = Keeping(folder, order.template, bucket, A_PAGE)
                self._stranger_extra = folder.pictures.extra - plan.extra
                await folder.post(_begun(folder, order, plan, self._stranger_extra))
                recovered = await recover(folder, keeping, keys)
            except OSError as error:
                raise unusable(folder.layout, error) from None
            self._tell(plan, folder.history)
            for note in recovered.notes():
                self.listener.note(note)
            stops.budget, stops.max_failures = order.budget, order.max_failures
            stops.ends = time.monotonic() + order.deadline
            stops.usd = folder.pictures.usd
            self._run = Run(of_client(client), self.pace, stops, keeping, partial(is_reached, client))
            extra = folder.pictures.extra
            async for outcome in self._run.outcomes(_all(recovered.jobs, preflight.to_do(plan))):
                self.listener.through(outcome)
            if more := folder.pictures.extra - extra:
                self.listener.note(f"{more:,} more images came than were asked for; all of them were kept")
            if (failure := self._run.failure) is not None:
                if not isinstance(failure, ManifestError):
                    raise failure
                stops.stop(failure.message, "configuration", failure)
            await folder.flush()  # images that were given up
            status = self._status(folder, plan, running=False)
            await self._told(folder, status, bucket)
            return status

    async def _told(self, folder: Folder, status: Status, bucket: Bucket | None) -> None:
        """Writes what tells of the run, and puts it up."""
        files = [folder.layout.root / name for name in (RESULTS, ERRORS)]
        async with self._noting("results.jsonl and errors.jsonl could not be written: {}; the next run does it"):
            await folder.post(write_results(folder))
        if self.order.report:
            from .output.report import write_report

            async with self._noting("report.html could not be written: {}"):
                files += await asyncio.to_thread(write_report, folder.layout, folder.pictures, status)
        if bucket is not None:
            async with self._noting("results and report could not be put up: {}; the next run does it"):
                await bucket.publish(files)
                await bucket.remember(folder.layout)

    @asynccontextmanager
    async def _noting(self, said: str) -> AsyncIterator[None]:
        """Around what no image depends on."""
        try:
            yield
        except OSError as error:
            self.are_results_written = False
            self.listener.note(said.format(error.strerror or error))

    def stop(self, reason: str) -> None:
        """Asks for no further picture; what is in flight is waited for."""
        if self._run is not None:
            self._run.stop(reason)
        else:
            self.stops.stop(reason)

    def cancel(self) -> bool:
        """Waits for nothing any more. False where nothing is in flight yet."""
        if self._run is not None:
            self.is_cancelled = True
            self._run.cancel()
        return self._run is not None

    def status(self) -> Status | None:
        """Where it stands; None before the manifest was looked at."""
        if self.folder is None or self.plan is None:
            return None
        return self._status(self.folder, self.plan, running=True)

    def _status(self, folder: Folder, plan: Plan, *, running: bool) -> Status:
        total = plan.pictures + folder.pictures.extra - self._stranger_extra
        missing, passed_over = len(folder.history.gone), len(plan.bad)
        return status_of(
            folder.pictures, total, plan.strangers, running=running, missing=missing, passed_over=passed_over
        )

    def _tell(self, plan: Plan, history: History) -> None:
        self.plan = plan  # no progress is reported before the plan
        self.listener.planned(plan)
        if self.order.start_over and history.is_vouched_for:
            self.listener.note(
                "--start-over changes nothing: the ledger is there and whole, and the run goes on with it"
            )
        if history.read.torn:
            said = "the ledger's end was torn, as a process or the machine stopped amid a write"
            self.listener.note(f"{said}: {history.read.torn:,} bytes were cut off")
        for twin in plan.twins:
            self.listener.note(str(twin))
        for bad in plan.bad:
            self.listener.note(f"passed over: {bad}")
        for missing in missing_images(history):
            self.listener.note(missing)
        if strangers := plan.strangers.total():
            self.listener.note(f"{strangers:,} pictures of earlier runs are not in the manifest any more; they stay")

    def _preflight(self, history: History) -> Preflight:
        order, load = self.order, self.registry.operation
        manifest = Manifest(order.manifest, load)
        if order.piped is not None:
            manifest = Manifest(chosen(order.piped, history.layout), load, Path(), "on standard input")
        return Preflight(
            manifest=manifest,
            history=history,
            again=order.again,
            drop_params=order.drop_params,
            dedupe=order.dedupe,
        )

    async def _keep_piped(self, preflight: Preflight, plan: Plan) -> None:
        """Keeps a manifest that came on standard input. Raises ConfigError."""
        piped, folder, manifest = self.order.piped, self.folder, preflight.manifest
        if folder is None or piped is None or manifest.path != piped:
            return
        try:
            await asyncio.to_thread(keep, piped, folder.layout, self.disk)
        except OSError as error:
            raise unusable(folder.layout, error) from None
        preflight.manifest = attrs.evolve(manifest, path=folder.layout.manifest)
        plan.mark = await asyncio.to_thread(preflight.manifest.mark)

    async def _planned(self, client: Client, preflight: Preflight) -> tuple[Plan, Client]:
        """The plan, if it may be run, and the client to run it by. Raises ManifestError or ConfigError."""
        check_target(preflight.history, self.order.out, self.order.target)
        plan = await asyncio.to_thread(preflight.plan)
        if plan.bad and not self.order.skip_invalid:
            raise ManifestError("\n".join((_counted(plan), *map(str, plan.bad))))
        unpriced = sorted({share.model for share in plan.shares if share.usd is None and share.to_do})
        if unpriced and self.order.budget is not None:
            raise ConfigError(f"the price of {', '.join(unpriced)} is not known: it can't be run with a budget")
        called = await _operations_to_call(client, plan, preflight.history)
        operations = [*preflight.operations, *called]
        if self.order.api_base is not None:
            client = _at(self.order.api_base, client, called or operations)
        await check_addresses(client, operations, preflight.history)
        for share in plan.shares:
            if share.to_do:
                await client.account(share.model, base_model=share.base_model)
        await asyncio.to_thread(_check_strangers, preflight, plan, self.order.template)
        await note_addresses(client, called, preflight.history)
        return plan, client

    async def _recall(self, client: Client, plan: Plan, history: History) -> frozenset[str]:
        """Counts what an earlier process sent towards the rates of the keys; returns these, as the ledger has them."""
        accounts = {}
        for model, base_model in _models_to_call(plan, history):
            account = await client.account(model, base_model=base_model)
            accounts[account.fingerprint] = account
        return recall(accounts.values(), history)


def _models_to_call(plan: Plan, history: History) -> set[tuple[str, str | None]]:
    """Return the models, each with its base_model, of images that are to be made and of jobs that go on."""
    models = {(share.model, share.base_model) for share in plan.shares if share.to_do}
    return models | {(model, None) for model in history.job_models}


async def _operations_to_call(client: Client, plan: Plan, history: History) -> list[Operation]:
    return [await client.operation(model, base_model=base) for model, base in _models_to_call(plan, history)]


def _at(api_base: str, client: Client, operations: list[Operation]) -> Client:
    """Return a client that reaches the provider of these operations there. Raises ConfigError if there are several."""
    providers = sorted({operation.provider.name for operation in operations})
    if len(providers) > 1:
        raise ConfigError(
            f"--api-base is the address of one provider, and the models are of {', '.join(providers)}; "
            "run a manifest for each"
        )
    return client.with_options(providers={name: {"api_base": api_base} for name in providers})


def _check_strangers(preflight: Preflight, plan: Plan, template: Template) -> None:
    """Raise UntrustedLedger if images of this manifest are in the folder and not in its ledger."""
    if strangers := Strangers(preflight.history, template):
        strangers.check(_closed(preflight.to_do(plan)))


def _closed(units: Iterator[Unit]) -> Iterator[Unit]:
    """Units whose files were closed again."""
    for unit in units:
        if unit.request is not None:
            close_files(unit.request.params)
        yield unit


def _begun(folder: Folder, order: Order, plan: Plan, stranger_extra: int) -> Steps[None]:
    """The rows with which a run begins."""
    strangers = {state.name: number for state, number in plan.strangers.items()}
    yield from folder.begin(
        plan.pictures,
        manifest=str(order.manifest),
        strangers=strangers,
        target=order.target,
        stranger_extra=stranger_extra,
    )
    for bad in plan.bad:
        error = {"code": "invalid_request", "message": "; ".join(bad.problems), "billed": "no"}
        folder.write({"row": "invalid", "id": bad.id, "line": bad.line, **error})
    for row in folder.history.gone:
        error = {"code": "file_gone", "message": f"{row['path']} {GONE}", "billed": "yes"}
        folder.write({"row": "gone", "id": row["id"], "index": row["index"], **error})


def _looked_into(layout: Layout, order: Order) -> History:
    """Return a folder's history, without making it. Raises ConfigError if it could not be made."""
    place = layout.root
    while not place.exists() and place.parent != place:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(f"can't make {str(layout.root)!r}: {str(place)!r} is no folder that can be written to")
    try:
        check_links(layout, order.template.levels)
        return trusted(layout)
    except UntrustedLedger:
        if not order.start_over:
            raise
        return History(layout, is_started_over=True)
    except OSError as error:
        raise unusable(layout, error) from None


def _counted(plan: Plan) -> str:
    return f"{len(plan.bad):,} of {plan.rows:,} rows can't be run; nothing was sent"


async def _all(jobs: list[Unit], units: Iterator[Unit]) -> AsyncIterator[Unit | Outcome]:
    """Jobs that go on first: they are paid for. The manifest is read in a thread, as far as it is needed."""
    for job in jobs:
        yield job
    while piece := await asyncio.to_thread(lambda: list(islice(units, _PIECE))):
        for unit in piece:
            yield unit
