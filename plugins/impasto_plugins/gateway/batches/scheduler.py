"""Assigns batches to workers: one worker for each, by a lock on the batch's folder that ends with the process.

A batch without a worker is started by the first worker that finds it: after a crash, after a restart. Of replicas that
share a bucket one has the batch's lease.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import attrs

from impasto import ConfigError, File
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.inspection import is_running
from impasto_plugins.batch.ledger.log import UntrustedLedger
from impasto_plugins.batch.ledger.workspace import Workspace, WorkspacePaths
from impasto_plugins.gateway.api.context import Services
from impasto_plugins.gateway.calls.runtime import batches_folder
from impasto_plugins.gateway.config.model import BatchesConfig as Limits
from impasto_plugins.gateway.errors import APIError, overloaded
from impasto_plugins.gateway.storage.bucket import BucketContents
from impasto_plugins.gateway.storage.contents import ContentStore, FolderContents, StoreError

from .job import INPUT, BatchJob
from .replicas.lease import BatchLease, is_leased
from .replicas.shared_run import BucketRecorder, open_shared_batch
from .store import ACTIVE, BatchRow, BatchStore, Change, FileRow, missing_file
from .validation import error_payload

WATCH_SECONDS = 1.0
"""Seconds between a worker's searches for batches without a worker."""

MAX_RUNNING = 16
"""Batches that a worker runs side by side; the others wait."""

MAX_RUNNING_OF_KEY = 4
"""Batches of one key among them."""

RETRY_SECONDS = 10.0
"""Seconds that a batch waits if it can't continue, for example because a disk is full."""

UPLOADS, RUNS = "files", "runs"
"""The folders of uploads and of batches, below that of all."""

_log = logging.getLogger("impasto.gateway")


@attrs.define(eq=False)
class RunningBatch:
    """A batch of this worker. It holds its folder once ``job`` is set."""

    owner: bytes
    job: BatchJob | None = None

    @property
    def is_waiting(self) -> bool:
        """True while it pauses until its providers are back."""
        return self.job is not None and self.job.is_waiting


class BatchScheduler:
    """The batches of one worker."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.store = BatchStore(services.state)
        self._running: dict[str, RunningBatch] = {}

    @property
    def limits(self) -> Limits:
        """The limits of the configuration."""
        return self.services.runtime.config.batches

    @property
    def folder(self) -> Path:
        """The folder of files and batches."""
        return batches_folder(self.services.runtime.config)

    @property
    def contents(self) -> ContentStore:
        """The contents of files and batches, by their paths below the folder."""
        return self.services.runtime.places.batches

    def batch_folder(self, id: str) -> Path:
        """Return a batch's own folder."""
        return self.folder / place_of(id)

    def require_enabled(self) -> Self:
        """Return this scheduler if batches are enabled. Raises APIError."""
        if not self.limits.enabled:
            raise APIError(404, "batches are switched off (batches.enabled)", code="unknown_url", close=True)
        return self

    async def open_upload(self, id: str, owner: bytes, param: str) -> File:
        """Return an uploaded image of a key; the caller closes it. ``param`` names it in errors. Raises APIError."""
        if not self.limits.enabled:
            message = f"{param}: file_id can't be used: files are switched off (batches.enabled)"
            raise APIError(400, message, code="invalid_value", param=param)
        row = await self.store.image(id, owner, param)
        if (file := await self.open_content(row)) is None:
            raise missing_file(param)
        return file

    async def open_content(self, row: FileRow) -> File | None:
        """Return a file's content, which the caller closes; None if it was deleted. Raises APIError."""
        with _storage_errors("read stored files"):
            return await self.contents.open(row.path)

    async def publish(self, row: FileRow) -> None:
        """Store a file whose content was written in the folder. Raises APIError."""
        with _storage_errors("store files"):
            await self.contents.publish(row.path)

    async def create(self, batch: BatchRow, file: FileRow, since: float | None) -> tuple[BatchRow, bool]:
        """Begin a batch, or return the one that the same request began, and True if so. Raises APIError."""
        place = place_of(batch.id)
        try:
            with _storage_errors("store batches"):
                if not await self.contents.copy(file.path, f"{place}/{INPUT}"):
                    message = "the file's content was deleted"
                    raise APIError(404, message, code="not_found", param="input_file_id")
            created_batch, is_repeated = await self.store.insert_or_find(
                batch, since=since, maximum=self.limits.max_files
            )
        except APIError:
            await self._discard(place)
            raise
        if is_repeated:
            await self._discard(place)
        else:
            self.start(created_batch)
        return created_batch, is_repeated

    async def _discard(self, place: str) -> None:
        with suppress(StoreError):  # the sweep deletes it
            await self.contents.delete_folder(place)

    def start(self, batch: BatchRow) -> None:
        """Run a batch here, unless it runs already."""
        if batch.id in self._running or self.services.is_draining or not self.limits.enabled:
            return
        busy = [running.owner for running in self._running.values() if not running.is_waiting]
        if len(busy) < MAX_RUNNING and busy.count(batch.owner) < MAX_RUNNING_OF_KEY:
            self._running[batch.id] = running = RunningBatch(batch.owner)
            self.services.spawn(self._run(batch, running))

    async def watch(self) -> None:
        """Search for batches without a worker, for ever."""
        while True:
            try:
                now = await self.store.now()
                for batch in await self.store.active():
                    if batch.id not in self._running and not await self._is_running_elsewhere(batch, now):
                        self.start(batch)
                await asyncio.sleep(WATCH_SECONDS)
            except APIError:  # the log has it
                await asyncio.sleep(RETRY_SECONDS)

    def drain(self) -> None:
        """Request no further image. Images in flight are waited for; the next start continues."""
        for running in self._running.values():
            if running.job is not None:
                running.job.stop("the gateway is stopping")

    async def remove(self, file: FileRow) -> None:
        """Delete a file's content, and images that no other file shows. Raises nothing."""
        with suppress(APIError, StoreError):
            await self._remove([file.path])

    async def remove_expired(self) -> None:
        """Delete expired files, and leftovers of stopped processes. Raises StoreError."""
        with suppress(APIError):  # the log has it
            await self._remove([file.path for file in await self.store.remove_expired()])
            await self.remove_strays(self.contents)

    async def remove_strays(self, contents: ContentStore) -> None:
        """Delete contents without a row, as old as results may become: if their rows were lost, they were paid for.

        Raises StoreError, APIError.
        """
        ids = await self.store.ids()
        for folder in (UPLOADS, RUNS):
            ages = await contents.ages(folder, skip=ids)
            old = [f"{folder}/{name}" for name, age in ages.items() if age > self.limits.seconds]
            if folder == UPLOADS:
                await contents.delete(old)
                continue
            for name in old:
                await contents.delete_folder(name)

    async def _run(self, batch: BatchRow, running: RunningBatch) -> None:
        contents = self.contents
        try:
            if isinstance(contents, BucketContents):
                await self._run_with_lease(batch, running, contents)
            else:
                await self._run_in(batch, running, self.store.change)
        except UntrustedLedger as error:
            _log.error("batch %s failed: %s", batch.id, error.message)
            await self._fail(batch)
        except (ConfigError, APIError, OSError, StoreError) as error:
            if not isinstance(error, ConfigError) or not await self._is_running_elsewhere(batch, -math.inf):
                await self._wait_before_retry(batch, f"can't continue now: {getattr(error, 'message', None) or error}")
        except Exception:  # noqa: BLE001 - a batch that meets a bug must not meet it a thousand times a minute
            _log.exception("batch %s failed", batch.id)
            await self._wait_before_retry(batch, "failed unexpectedly")
        finally:
            del self._running[batch.id]

    async def _run_with_lease(self, batch: BatchRow, running: RunningBatch, contents: BucketContents) -> None:
        """Run a batch of several replicas, if this one gets its lease. Raises as ``_run_in``."""
        lease = BatchLease(self.store)
        if (current := await lease.take(batch)) is None:
            return

        def stop() -> None:
            _log.warning("batch %s is given up: another replica runs it", batch.id)
            if running.job is not None:
                running.job.give_up("another replica runs this batch")

        renewing = asyncio.create_task(lease.renew(current, stop))
        try:
            if await contents.fetch(f"{place_of(batch.id)}/{INPUT}") or current.status not in ACTIVE:
                await self._run_in(current, running, lease.change, contents)
        finally:
            renewing.cancel()
            await lease.release(current)
        if running.job is not None and running.job.batch.status not in ACTIVE:
            await FolderContents(contents.folder).delete_folder(place_of(batch.id))  # all of it is in the bucket

    async def _run_in(
        self, batch: BatchRow, running: RunningBatch, change: Change, contents: BucketContents | None = None
    ) -> None:
        """Run a batch in its local folder. ``contents``: the bucket that has its images and its ledger.

        Raises UntrustedLedger, ConfigError, APIError, OSError, StoreError.
        """
        is_begun, place = batch.attribute("in_progress_at") is not None, place_of(batch.id)
        is_local = is_begun and contents is None
        async with AsyncExitStack() as stack:
            opening = Workspace.open(self.batch_folder(batch.id), Disk(), is_begun=is_local)
            folder = await stack.enter_async_context(await opening)
            current = await self.store.batch(batch.id, batch.owner)  # another may have been at it just now
            if current is None or current.status not in ACTIVE:
                return
            job = BatchJob(self, current, folder, change)
            if contents is not None:
                opening_shared = open_shared_batch(contents, place, folder, is_begun=is_begun)
                shared = await stack.enter_async_context(opening_shared)
                job.recorder = BucketRecorder.of(shared, contents, place)
            running.job = job
            await job.run()

    async def _fail(self, batch: BatchRow) -> None:
        """End a batch whose ledger can't be trusted: continuing could pay for its images twice. Raises nothing."""
        message = (
            "the record of what was charged for this batch is missing or damaged, so it can't continue; the images that"
            " came are stored; ask the operator of this gateway"
        )
        errors = [error_payload(APIError(500, message, "server_error", "storage_error"))]
        with suppress(APIError):  # the log has it; the next look at the batch does it again
            attributes = {"failed_at": int(await self.store.now()), "errors": {"object": "list", "data": errors}}
            await self.store.change(batch, lambda current: current.with_attributes("failed", 0, **attributes))

    async def _wait_before_retry(self, batch: BatchRow, reason: str) -> None:
        """Try the batch again after a while."""
        _log.error("batch %s %s", batch.id, reason)
        if not self.services.is_draining:
            await asyncio.sleep(RETRY_SECONDS)

    async def _is_running_elsewhere(self, batch: BatchRow, now: float) -> bool:
        if isinstance(self.contents, BucketContents):
            return is_leased(batch, now)
        return await asyncio.to_thread(is_running, WorkspacePaths(self.batch_folder(batch.id)))

    async def _remove(self, paths: list[str]) -> None:
        """Delete contents, and the folders of batches whose files are all gone. Raises APIError, StoreError."""
        await self.contents.delete(paths)
        folders = {path.rpartition("/")[0] for path in paths if path.startswith(f"{RUNS}/")}
        if folders:  # of which several files may be in one
            in_use = {path.rpartition("/")[0] for path in await self.store.paths()}
            for folder in folders - in_use:
                await self.contents.delete_folder(folder)


def place_of(id: str) -> str:
    """Return the folder of a batch, below that of all."""
    return f"{RUNS}/{id}"


@contextmanager
def _storage_errors(action: str) -> Iterator[None]:
    """Convert errors of the disk or the bucket to a refusal."""
    try:
        yield
    except StoreError as error:
        _log.error("the gateway can't %s: %s", action, error)
        message = f"the gateway can't {action} now; nothing was sent, try again"
        raise overloaded(message) from None
