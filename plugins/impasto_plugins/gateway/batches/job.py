"""Run one batch: validate the input, generate the images, write the results.

Every step can be resumed after a crash.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from impasto_plugins.batch.filenames import Template
from impasto_plugins.batch.ledger.log import ReadPosition, rows, rows_at
from impasto_plugins.batch.ledger.recorder import LedgerRecorder
from impasto_plugins.batch.ledger.recovery import recover, restore_sends, task_of_row
from impasto_plugins.batch.ledger.workspace import Workspace
from impasto_plugins.batch.manifest.planner import RetrySelection
from impasto_plugins.batch.runner.concurrency import AdaptiveConcurrency
from impasto_plugins.batch.runner.limits import MAX_CONSECUTIVE_UNKNOWN, StopConditions
from impasto_plugins.batch.runner.scheduler import Scheduler
from impasto_plugins.batch.tasks import ImageTask, join_jobs, join_shared_tasks, join_tasks
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls.budgets import check_limits
from impasto_plugins.gateway.errors import INVALID, APIError
from impasto_plugins.gateway.http.memory_budget import IMAGE_BYTES
from impasto_plugins.gateway.storage.contents import StoreError

from .execution import create_execute, is_reachable_again
from .finalization import finish_batch
from .input_lines import InputLine, LineFiles, create_tasks, parse_line, read_lines
from .output import BATCH_CANCELLED, BATCH_EXPIRED, UnprocessedReason, to_openai_error
from .progress import Progress
from .replicas.shared_run import BucketRecorder
from .store import ACTIVE, BatchRow, Change
from .validation import ValidationSummary, error_payload, validate_input

if TYPE_CHECKING:
    from .scheduler import BatchScheduler

TICK_SECONDS = 1.0
"""Seconds between checks for a cancellation, and between progress updates."""

RETRY_SECONDS = 60.0
"""Seconds to pause a batch after every provider refused it."""

INPUT = "input.jsonl"
"""The input file, in the batch's folder."""

_FILES = "inputs"
"""The folder of uploaded files that its lines name, in the batch's folder."""

_TASKS_PER_STEP = 8
_RETRYABLE_STATES = RetrySelection().selects()

T = TypeVar("T")

_log = logging.getLogger("impasto.gateway")


_ROOM_STEP_BYTES = 64 * IMAGE_BYTES
"""Bytes reserved at a time if images are larger than expected."""


class BatchJob:
    """A batch in its open folder."""

    def __init__(self, scheduler: BatchScheduler, batch: BatchRow, folder: Workspace, change: Change) -> None:
        self.scheduler, self.batch, self.folder, self._store_change = scheduler, batch, folder, change
        self.recorder: LedgerRecorder = LedgerRecorder(folder, Template(), error_details=to_openai_error)
        """Records its images; a BucketRecorder if several replicas may run it."""
        description = batch.to_openai()
        self.endpoint, self.ends_at = str(description["endpoint"]), int(description["expires_at"])
        self.input = folder.layout.root / INPUT
        self.errors_by_line: dict[str, APIError] = {}
        """Lines that were valid once and are not under the current configuration."""
        self._progress = Progress(folder.images, description["request_counts"]["completed"])
        self._stops = StopConditions()
        self._run: Scheduler | None = None
        self._end_status: str | None = None
        self._quota_error: APIError | None = None
        self._image_bytes = 0
        """Bytes of its images on disk."""
        self.is_waiting = False
        """True while it pauses until its providers are back."""
        self._is_given_up = False
        self._wake_event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="impasto-lines")
        """Reads the input. It waits for the loop, so that the loop must not wait for the same threads."""

    def stop(self, reason: str) -> None:
        """Request no further image; images in flight are waited for."""
        self._stops.stop(reason)
        if self._run is not None:
            self._run.stop(reason)
        self._wake_event.set()

    def give_up(self, reason: str) -> None:
        """Stop, and change nothing any more."""
        self._is_given_up = True
        self.stop(reason)

    async def run(self) -> None:
        """Do the rest of it. Raises APIError if nothing can be stored, ConfigError, OSError, StoreError."""
        try:
            await self._run_steps()
        finally:
            self._thread.shutdown(wait=False)

    async def _run_steps(self) -> None:
        if self.batch.status == "validating":
            await self._validate()
        if self.batch.status == "cancelling" and self.batch.attribute("in_progress_at") is None:
            await self._change("cancelled", cancelled_at=await self._now())
        if self.batch.status in ("in_progress", "cancelling"):
            await self._execute()
        if self.batch.status == "finalizing":
            reason, change = self._unprocessed_reason(), self._store_change
            self.batch = await finish_batch(
                self.scheduler, self.batch, self.folder, self.errors_by_line, reason, change=change
            )
        if self.batch.status not in ACTIVE:
            with suppress(StoreError):  # the batch's folder is deleted in time
                await self.scheduler.contents.delete([f"{self._place}/{INPUT}"])
                await self.scheduler.contents.delete_folder(f"{self._place}/{_FILES}")

    async def _validate(self) -> None:
        """Refuse an invalid input before anything is spent."""
        try:
            caller = self._caller()
            runtime, files = self.scheduler.services.runtime, self._line_files(copies=True)
            summary = await self._in_thread(partial(validate_input, self.input, self.endpoint, runtime, caller, files))
            errors = summary.errors
            if not errors:
                await self._start(summary, caller)
        except APIError as failure:
            if failure.code == "overloaded":  # the data directory can't be written
                raise
            errors = [error_payload(failure)]
        if errors:
            await self._change("failed", failed_at=await self._now(), errors={"object": "list", "data": errors})

    async def _start(self, summary: ValidationSummary, caller: Caller) -> None:
        """Reserve disk space, and check the key's limits for all of it. Raises APIError."""
        scheduler, size, now = self.scheduler, summary.images * IMAGE_BYTES, await self._now()
        budgets = scheduler.services.state.budgets
        await check_limits(budgets, caller, images=summary.images, nano_usd=summary.nano_usd)

        def set_started(batch: BatchRow) -> BatchRow:
            status = "in_progress" if batch.status == "validating" else batch.status
            counts = {"total": summary.lines, "completed": 0, "failed": 0}
            model = next(iter(summary.models)) if len(summary.models) == 1 else None
            return batch.with_attributes(status, room=size, in_progress_at=now, request_counts=counts, model=model)

        self.batch = await self._store_change(self.batch, set_started, max_bytes=scheduler.limits.max_bytes)

    async def _execute(self) -> None:
        """Generate the remaining images, until all are finished or something ends it."""
        services, folder, recorder = self.scheduler.services, self.folder, self.recorder
        accounts = [each.account for model in services.runtime.models.values() for each in model.deployments]
        keys = await asyncio.to_thread(restore_sends, accounts, folder.history)
        total = self.batch.to_openai()["request_counts"]["total"]
        async with AsyncExitStack() as stack:
            if isinstance(recorder, BucketRecorder):
                await recorder.begin(stack, images=total, keys=keys)
            else:
                await folder.submit(folder.begin(total, manifest=INPUT))
            jobs = (await recover(folder, recorder, keys)).jobs
            self._image_bytes = await asyncio.to_thread(_images_size, folder.layout.ledger)
            await self._sync()
            tick_task = asyncio.create_task(self._tick())
            try:
                while not await self._run_once(jobs) or await self._has_unfetched():
                    if services.is_draining or self._is_given_up:
                        return
                    reason = self._stops.reason or "charged images could not be fetched yet"
                    _log.warning("batch %s waits: %s", self.batch.id, reason)
                    await self._pause()
                    jobs = await asyncio.to_thread(self._unfetched_jobs)
            finally:
                tick_task.cancel()
        await self._change("finalizing", finalizing_at=await self._now(), _ends=self._end_status or "completed")

    async def _has_unfetched(self) -> bool:
        """Return True if charged images are still to be fetched, and the batch has time for it."""
        is_ended = self._end_status is not None or self._quota_error is not None
        return not is_ended and bool(await asyncio.to_thread(self._unfetched_jobs))

    def _unfetched_jobs(self) -> list[ImageTask]:
        """Return the jobs of images that were charged, and that their host did not give yet."""
        rows = rows_at(self.folder.layout.ledger, self.folder.images.open())
        now = self.folder.clock()
        return [*join_jobs(task_of_row(row, now) for row in rows if "unfetched" in row and "from" not in row)]

    async def _run_once(self, jobs: list[ImageTask]) -> bool:
        """Request the remaining images. Return True if nothing is left to request. Raises OSError."""
        services, progress, recorder = self.scheduler.services, self._progress, self.recorder
        stops = self._stops = StopConditions(
            reason=self._end_status or ("the gateway is stopping" if services.is_draining else None)
        )
        progress.begin(jobs)
        self.errors_by_line.clear()
        budgets, late_writes = services.state.budgets, services.late_writes
        execute = create_execute(lambda: services.runtime, budgets, late_writes, services.memory)
        self._run = Scheduler(
            execute, AdaptiveConcurrency(self.scheduler.limits.concurrency), stops, recorder, is_reachable_again
        )
        if isinstance(recorder, BucketRecorder):
            running = recorder.outcomes(self._run, jobs, lambda: self._iter_tasks([]))
        else:
            running = self._run.outcomes(self._iter_tasks(jobs))
        async with aclosing(running) as outcomes:
            async for outcome in outcomes:
                progress.image_finished(outcome.id)
                self._image_bytes += outcome.artifact.content.size if outcome.artifact is not None else 0
        if self._run.failure is not None:
            raise self._run.failure
        if isinstance(recorder, BucketRecorder) and stops.kind == "storage":  # what came is uploaded at the next begin
            raise OSError(errno.EIO, stops.reason)
        is_over = self._end_status is not None or self._quota_error is not None
        return is_over or stops.reason is None or stops.consecutive_unknown >= MAX_CONSECUTIVE_UNKNOWN

    async def _iter_tasks(self, jobs: list[ImageTask]) -> AsyncIterator[ImageTask]:
        """Yield jobs in progress first, since they are paid for. The input is read in a thread, as far as needed."""
        for job in jobs:
            yield job
        tasks = self._remaining_tasks()
        while tasks_chunk := await self._in_thread(lambda: list(islice(tasks, _TASKS_PER_STEP))):
            for task in tasks_chunk:
                yield task

    def _remaining_tasks(self) -> Iterator[ImageTask]:
        for line in self.lines():
            if not any(_RETRYABLE_STATES[state] for state in self.folder.images.states(line.id, line.n)):
                self._progress.line_finished(line)
                continue
            try:
                runtime, files = self.scheduler.services.runtime, self._line_files(copies=False)
                tasks = create_tasks(line, self.endpoint, runtime, self._caller(), files)
            except APIError as failure:
                self.errors_by_line[line.id] = failure
                continue
            self._progress.line_started(line)
            states = self.folder.images.states(line.id, len(tasks))
            left = [(task, state) for task, state in zip(tasks, states, strict=True) if _RETRYABLE_STATES[state]]
            if isinstance(self.recorder, BucketRecorder):
                yield from join_shared_tasks([task for task, _ in left], [state for _, state in left])
            else:
                yield from join_tasks(task for task, _ in left)

    @property
    def _place(self) -> str:
        return str(self.folder.layout.root.relative_to(self.scheduler.folder))

    def _line_files(self, *, copies: bool) -> LineFiles:
        """Return the files that its lines name. ``copies``: copy uploads that are not among them yet."""

        async def fetch(id: str, param: str) -> bool:
            contents, name = self.scheduler.contents, f"{self._place}/{_FILES}/{id}"
            if copies:
                row = await self.scheduler.store.image(id, self.batch.owner, param)
                await contents.copy(row.path, name)
            return await contents.fetch(name)

        def fetch_from_thread(id: str, param: str) -> bool:
            return asyncio.run_coroutine_threadsafe(fetch(id, param), self._loop).result()

        return LineFiles(self.folder.layout.root / _FILES, fetch_from_thread)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._thread, work)

    def lines(self) -> Iterator[InputLine]:
        """Yield the lines of the input. Raises APIError."""
        for number, body in read_lines(self.input):
            yield parse_line(number, body, self.endpoint)

    async def _tick(self) -> None:
        """Store the progress, and check if the batch is to end."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            with suppress(APIError):  # the log has it; the next time may do better
                await self._sync()

    async def _sync(self) -> None:
        store, counts = self.scheduler.store, self._progress.counts
        current = await store.batch(self.batch.id, self.batch.owner)
        if current is None:
            return
        self.batch = current
        if (counts_so_far := current.to_openai()["request_counts"]) | counts != counts_so_far:
            self.batch = await self._store_change(
                current, lambda batch: batch.with_attributes(request_counts=counts_so_far | counts)
            )
        if current.status == "cancelling":
            self._end_status = "cancelled"
        elif await store.now() >= self.ends_at:
            self._end_status = "expired"
        if self._end_status is not None:
            self.stop(self._end_status)
        elif self._image_bytes > self.batch.room:
            await self._reserve_more()

    async def _reserve_more(self) -> None:
        """Reserve more disk space if images are larger than expected, or end the batch if there is none."""
        room, max_bytes = self._image_bytes + _ROOM_STEP_BYTES, self.scheduler.limits.max_bytes
        try:
            self.batch = await self._store_change(
                self.batch, lambda batch: batch.with_attributes(room=room), max_bytes=max_bytes
            )
        except APIError as failure:
            if failure.code == "overloaded":
                raise
            self._quota_error = failure
            self.stop(failure.message)

    async def _pause(self) -> None:
        self.is_waiting = True
        self._wake_event.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake_event.wait(), RETRY_SECONDS)
        self.is_waiting = False

    def _unprocessed_reason(self) -> UnprocessedReason:
        """Return the reason for images that were not requested."""
        match self.batch.attribute("_ends"):
            case "cancelled":
                return BATCH_CANCELLED
            case "expired":
                return BATCH_EXPIRED
            case _ if self._quota_error is not None:
                return UnprocessedReason(code="insufficient_quota", message=self._quota_error.message)
            case _:
                return UnprocessedReason(code="not_sent", message=self._stops.reason or "it was not requested")

    def _caller(self) -> Caller:
        caller = self.scheduler.services.runtime.auth.find(self.batch.owner)
        if caller is None:
            raise APIError(401, "the key of this batch is no longer configured", INVALID, "invalid_api_key")
        return caller

    async def _change(self, status: str, **more: object) -> None:
        room = self.batch.room if status in ACTIVE else 0
        self.batch = await self._store_change(self.batch, lambda batch: batch.with_attributes(status, room, **more))

    async def _now(self) -> int:
        return int(await self.scheduler.store.now())


def _images_size(ledger: Path) -> int:
    """Return the bytes of the images that came."""
    return sum(row["bytes"] for _, row in rows(ledger, ReadPosition()) if row["row"] == "done")
