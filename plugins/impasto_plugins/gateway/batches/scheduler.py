"""Which worker runs which batch: exactly one, as a batch's folder has a lock, which ends with its process.

A batch that nobody runs is taken up by whichever worker sees it first: after a crash, after a restart.
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
from impasto_plugins.batch.ledger.log import UntrustedLedger
from impasto_plugins.batch.ledger.workspace import Folder, Layout, is_running
from impasto_plugins.gateway.api.context import Services
from impasto_plugins.gateway.calls.runtime import data_folder
from impasto_plugins.gateway.config.model import Batches as Limits
from impasto_plugins.gateway.errors import Failure

from .job import INPUT, Work
from .store import ACTIVE, Batch, Records, Stored, link_or_copy, missing_file
from .validation import told_of

WATCH_SECONDS = 1.0
"""How often a worker looks for batches that nobody runs."""

AT_ONCE = 16
"""How many batches a worker runs side by side; the others wait for their turn."""

OF_A_KEY = 4
"""How many of them may be one key's."""

LATER_SECONDS = 10.0
"""How long a batch waits that can't go on, as a disk is full."""

_RUNS = "runs"
_STRAY_SECONDS = 3600.0

_log = logging.getLogger("impasto.gateway")


@attrs.define(eq=False)
class Running:
    """A batch of this worker's, which has its folder when ``work`` is there."""

    owner: bytes
    work: Work | None = None

    @property
    def waits(self) -> bool:
        """Whether it does nothing, until its providers are back."""
        return self.work is not None and self.work.waits


class Batches:
    """One worker's batches."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.records = Records(services.data)
        self._running: dict[str, Running] = {}

    @property
    def limits(self) -> Limits:
        """What the configuration allows."""
        return self.services.setup.config.batches

    @property
    def folder(self) -> Path:
        """Where files and batches are."""
        named = self.limits.folder
        return Path(named) if named is not None else data_folder(self.services.setup.config) / "batches"

    def place(self, id: str) -> Path:
        """A batch's own folder."""
        return self.folder / _RUNS / id

    def served(self) -> Self:
        """This, where there are batches here. Raises Failure."""
        if not self.limits.enabled:
            raise Failure(404, "batches are switched off here (batches.enabled)", code="unknown_url", close=True)
        return self

    async def open_upload(self, id: str, owner: bytes, param: str) -> File:
        """Return the image that a key has uploaded, for its caller to close; ``param`` names it. Raises Failure."""
        if not self.limits.enabled:
            said = f"{param}: file_id is not taken here, as files are switched off (batches.enabled)"
            raise Failure(400, said, code="invalid_value", param=param)
        stored = await self.records.image(id, owner, param)
        try:
            return await asyncio.to_thread(_opened, self.folder / stored.path)
        except OSError:
            raise missing_file(param) from None

    async def create(self, batch: Batch, file: Stored, since: float | None) -> tuple[Batch, bool]:
        """Begins a batch, or gives the one that was begun by the same request, and whether so. Raises Failure."""
        try:
            await asyncio.to_thread(self._lay, batch, file)
            begun, repeated = await self.records.begin(batch, since=since, most=self.limits.max_files)
        except Failure:
            await asyncio.to_thread(_gone, self.place(batch.id))
            raise
        if repeated:
            await asyncio.to_thread(_gone, self.place(batch.id))
        else:
            self.begin(begun)
        return begun, repeated

    def _lay(self, batch: Batch, file: Stored) -> None:
        """Makes a batch's folder, with its input, which may then be deleted. It blocks. Raises Failure."""
        place, source = self.place(batch.id), self.folder / file.path
        try:
            place.mkdir(mode=0o700, parents=True)
            link_or_copy(source, place / INPUT)
        except FileNotFoundError:
            raise Failure(404, "the file's content is gone", code="not_found", param="input_file_id") from None
        except OSError:
            said = "the gateway can't keep batches now; nothing was sent, try again"
            raise Failure(503, said, "server_error", "overloaded", retry_after=5, should_retry=True) from None

    def begin(self, batch: Batch) -> None:
        """Runs a batch here, unless it runs already."""
        if batch.id in self._running or self.services.draining or not self.limits.enabled:
            return
        busy = [running.owner for running in self._running.values() if not running.waits]
        if len(busy) < AT_ONCE and busy.count(batch.owner) < OF_A_KEY:
            self._running[batch.id] = running = Running(batch.owner)
            self.services.spawn(self._run(batch, running))

    async def watch(self) -> None:
        """Looks for batches that nobody runs, for ever."""
        while True:
            try:
                for batch in await self.records.active():
                    if batch.id not in self._running and not await asyncio.to_thread(self._runs_elsewhere, batch):
                        self.begin(batch)
                await asyncio.sleep(WATCH_SECONDS)
            except Failure:  # the log has it
                await asyncio.sleep(LATER_SECONDS)

    def drain(self) -> None:
        """Asks for no further picture. What is in flight is waited for; the next start goes on."""
        for running in self._running.values():
            if running.work is not None:
                running.work.stop("the gateway is stopping")

    async def remove(self, file: Stored) -> None:
        """Removes a file's content, and the pictures that no other file shows. Raises nothing."""
        with suppress(Failure):
            await self._remove([file.path])

    async def remove_expired(self) -> None:
        """Removes what has expired, and what a process that stopped left behind."""
        try:
            files, _ = await self.records.expired()
            await self._remove([file.path for file in files])
            await asyncio.to_thread(self._remove_strays, await self.records.known())
        except Failure:  # the log has it
            return

    async def _run(self, batch: Batch, running: Running) -> None:
        try:
            is_begun = batch.word("in_progress_at") is not None
            async with await Folder.open(self.place(batch.id), Disk(), is_begun=is_begun) as folder:
                found = await self.records.batch(batch.id, batch.owner)  # another may have been at it just now
                if found is not None and found.status in ACTIVE:
                    running.work = Work(self, found, folder)
                    await running.work.go()
        except UntrustedLedger as error:
            _log.error("batch %s failed: %s", batch.id, error.message)
            await self._fail(batch)
        except (ConfigError, Failure, OSError) as error:
            if not isinstance(error, ConfigError) or not await asyncio.to_thread(self._runs_elsewhere, batch):
                await self._later(batch, f"can't go on now: {getattr(error, 'message', None) or error}")
        except Exception:  # noqa: BLE001 - a batch that meets a bug must not meet it a thousand times a minute
            _log.exception("batch %s failed", batch.id)
            await self._later(batch, "failed as it should not")
        finally:
            del self._running[batch.id]

    async def _fail(self, batch: Batch) -> None:
        """End a batch whose ledger can't be trusted: to go on could pay for its images twice. Raises nothing."""
        said = (
            "the record of what was charged for this batch is missing or damaged, so it can't go on; the images that"
            " came are kept: ask whoever runs this gateway"
        )
        errors = [told_of(Failure(500, said, "server_error", "storage_error"))]
        words = {"failed_at": int(self.records.now), "errors": {"object": "list", "data": errors}}
        with suppress(Failure):  # the log has it; the next look at the batch does it again
            await self.records.change(batch.id, lambda found: found.changed("failed", 0, **words))

    async def _later(self, batch: Batch, said: str) -> None:
        """It is taken up again after a while."""
        _log.error("batch %s %s", batch.id, said)
        if not self.services.draining:
            await asyncio.sleep(LATER_SECONDS)

    def _runs_elsewhere(self, batch: Batch) -> bool:
        return is_running(Layout(self.place(batch.id)))

    async def _remove(self, paths: list[str]) -> None:
        kept = await self.records.paths()
        await asyncio.to_thread(_removed, self.folder, paths, kept)

    def _remove_strays(self, known: frozenset[str]) -> None:
        """``known``: ids of files and batches."""
        old = time.time() - _STRAY_SECONDS
        for below in ("files", _RUNS):
            with suppress(OSError):
                for entry in list(os.scandir(self.folder / below)):
                    if entry.name not in known and entry.stat(follow_symlinks=False).st_mtime < old:
                        _gone(Path(entry.path))


def _opened(path: Path) -> File:
    """Open a file by its descriptor: whoever deletes it meanwhile takes nothing from the call."""
    with open(path, "rb") as source:
        return File.of((path.name, source))


def _removed(folder: Path, paths: list[str], kept: frozenset[str]) -> None:
    for path in paths:
        (folder / path).unlink(missing_ok=True)
        place = path.rpartition("/")[0]
        if place.startswith(_RUNS) and not any(each.startswith(f"{place}/") for each in kept):
            shutil.rmtree(folder / place, ignore_errors=True)


def _gone(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
