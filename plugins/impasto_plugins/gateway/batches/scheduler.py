"""Assigns batches to workers: one worker for each, by a lock on the batch's folder that ends with the process.

A batch without a worker is started by the first worker that finds it: after a crash, after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from contextlib import suppress
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
from impasto_plugins.gateway.errors import APIError

from .job import INPUT, BatchJob
from .store import ACTIVE, BatchRow, BatchStore, FileRow, link_or_copy, missing_file
from .validation import error_payload

WATCH_SECONDS = 1.0
"""Seconds between a worker's searches for batches without a worker."""

MAX_RUNNING = 16
"""Batches that a worker runs side by side; the others wait."""

MAX_RUNNING_OF_KEY = 4
"""Batches of one key among them."""

RETRY_SECONDS = 10.0
"""Seconds that a batch waits if it can't continue, for example because a disk is full."""

RUNS = "runs"

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

    def batch_folder(self, id: str) -> Path:
        """Return a batch's own folder."""
        return self.folder / RUNS / id

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
        try:
            return await asyncio.to_thread(_open_file, self.folder / row.path)
        except OSError:
            raise missing_file(param) from None

    async def create(self, batch: BatchRow, file: FileRow, since: float | None) -> tuple[BatchRow, bool]:
        """Begin a batch, or return the one that the same request began, and True if so. Raises APIError."""
        try:
            await asyncio.to_thread(self._create_folder, batch, file)
            created_batch, is_repeated = await self.store.insert_or_find(
                batch, since=since, maximum=self.limits.max_files
            )
        except APIError:
            await asyncio.to_thread(_remove_path, self.batch_folder(batch.id))
            raise
        if is_repeated:
            await asyncio.to_thread(_remove_path, self.batch_folder(batch.id))
        else:
            self.start(created_batch)
        return created_batch, is_repeated

    def _create_folder(self, batch: BatchRow, file: FileRow) -> None:
        """Create a batch's folder with its input, which may then be deleted. Blocks. Raises APIError."""
        folder, source = self.batch_folder(batch.id), self.folder / file.path
        try:
            folder.mkdir(mode=0o700, parents=True)
            link_or_copy(source, folder / INPUT)
        except FileNotFoundError:
            raise APIError(404, "the file's content was deleted", code="not_found", param="input_file_id") from None
        except OSError:
            message = "the gateway can't store batches now; nothing was sent, try again"
            raise APIError(503, message, "server_error", "overloaded", retry_after=5, should_retry=True) from None

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
                for batch in await self.store.active():
                    if batch.id not in self._running and not await asyncio.to_thread(self._is_running_elsewhere, batch):
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
        with suppress(APIError):
            await self._remove([file.path])

    async def remove_expired(self) -> None:
        """Delete expired files, and leftovers of stopped processes."""
        try:
            await self._remove([file.path for file in await self.store.remove_expired()])
            await asyncio.to_thread(self._remove_strays, await self.store.ids())
        except APIError:  # the log has it
            return

    async def _run(self, batch: BatchRow, running: RunningBatch) -> None:
        try:
            is_begun = batch.attribute("in_progress_at") is not None
            async with await Workspace.open(self.batch_folder(batch.id), Disk(), is_begun=is_begun) as folder:
                current = await self.store.batch(batch.id, batch.owner)  # another may have been at it just now
                if current is not None and current.status in ACTIVE:
                    running.job = BatchJob(self, current, folder)
                    await running.job.run()
        except UntrustedLedger as error:
            _log.error("batch %s failed: %s", batch.id, error.message)
            await self._fail(batch)
        except (ConfigError, APIError, OSError) as error:
            if not isinstance(error, ConfigError) or not await asyncio.to_thread(self._is_running_elsewhere, batch):
                await self._wait_before_retry(batch, f"can't continue now: {getattr(error, 'message', None) or error}")
        except Exception:  # noqa: BLE001 - a batch that meets a bug must not meet it a thousand times a minute
            _log.exception("batch %s failed", batch.id)
            await self._wait_before_retry(batch, "failed unexpectedly")
        finally:
            del self._running[batch.id]

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

    def _is_running_elsewhere(self, batch: BatchRow) -> bool:
        return is_running(WorkspacePaths(self.batch_folder(batch.id)))

    async def _remove(self, paths: list[str]) -> None:
        has_results = any(path.startswith(RUNS) for path in paths)  # of which several may be in one folder
        paths_in_use = await self.store.paths() if has_results else frozenset[str]()
        await asyncio.to_thread(_remove_content, self.folder, paths, paths_in_use)

    def _remove_strays(self, ids: frozenset[str]) -> None:
        """Delete folders without a row. ``ids``: ids of files and batches.

        They must be as old as results may become: if their rows were lost, they hold images that were paid for.
        """
        oldest = time.time() - self.limits.seconds
        for subfolder in ("files", RUNS):
            with suppress(OSError):
                for entry in list(os.scandir(self.folder / subfolder)):
                    if entry.name not in ids and entry.stat(follow_symlinks=False).st_mtime < oldest:
                        _remove_path(Path(entry.path))


def _open_file(path: Path) -> File:
    """Open a file by its descriptor: deleting it meanwhile does not affect the call."""
    with open(path, "rb") as source:
        return File.of((path.name, source))


def _remove_content(folder: Path, paths: list[str], paths_in_use: frozenset[str]) -> None:
    for path in paths:
        (folder / path).unlink(missing_ok=True)
        batch_folder = path.rpartition("/")[0]
        if batch_folder.startswith(RUNS) and not any(each.startswith(f"{batch_folder}/") for each in paths_in_use):
            shutil.rmtree(folder / batch_folder, ignore_errors=True)


def _remove_path(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
