"""One batch at work: its input looked at, its pictures made, its results written. Each step may be the first again."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from impasto_plugins.batch.filenames import Template
from impasto_plugins.batch.ledger.recorder import Keeping
from impasto_plugins.batch.ledger.recovery import recall, recover
from impasto_plugins.batch.ledger.workspace import Folder
from impasto_plugins.batch.manifest.planner import Again
from impasto_plugins.batch.runner.concurrency import Pace
from impasto_plugins.batch.runner.limits import DOUBTS, Stops
from impasto_plugins.batch.runner.scheduler import Run
from impasto_plugins.batch.tasks import Unit
from impasto_plugins.gateway.auth import Caller
from impasto_plugins.gateway.calls import budgets
from impasto_plugins.gateway.errors import INVALID, Failure
from impasto_plugins.gateway.http.memory_budget import PICTURE_BYTES

from .execution import asking, is_back
from .finalization import write
from .input_lines import Line, LineFiles, line_of, read, units
from .output import CANCELLED, EXPIRED, Left, told
from .progress import Progress
from .store import ACTIVE, Batch, check_room
from .validation import Look, look_over, told_of

if TYPE_CHECKING:
    from .scheduler import Batches

TICK_SECONDS = 1.0
"""How often it is looked whether a batch is cancelled, and its progress written down."""

AGAIN_SECONDS = 60.0
"""How long a batch waits that all providers send away, before it goes on."""

INPUT = "input.jsonl"
"""The input file, in the batch's folder."""

_FILES = "inputs"
"""The folder of uploaded files that its lines name, in the batch's folder."""

_AT_ONCE = 8
_TAKES = Again().takes()

_log = logging.getLogger("impasto.gateway")


_MORE_BYTES = 64 * PICTURE_BYTES
"""What is set aside at a time for pictures that are larger than was thought."""


class Work:
    """A batch in its open folder."""

    def __init__(self, service: Batches, batch: Batch, folder: Folder) -> None:
        self.service, self.batch, self.folder = service, batch, folder
        about = batch.told()
        self.endpoint, self.ends_at = str(about["endpoint"]), int(about["expires_at"])
        self.input = folder.layout.root / INPUT
        self.unfit: dict[str, Failure] = {}
        """Lines that fitted once and do not any more, as the configuration is another."""
        self._progress = Progress(folder.pictures)
        self._stops = Stops()
        self._run: Run | None = None
        self._ends: str | None = None
        self._full: Failure | None = None
        self._bytes = 0
        """What its pictures take of the disk."""
        self.waits = False
        """Whether it does nothing, until its providers are back."""
        self._is_woken = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Asks for no further picture; what is in flight is waited for."""
        self._stops.stop(reason)
        if self._run is not None:
            self._run.stop(reason)
        self._is_woken.set()

    async def go(self) -> None:
        """Does what is left of it. Raises Failure where the data directory can't be written, ConfigError, OSError."""
        if self.batch.status == "validating":
            await self._look_over()
        if self.batch.status == "cancelling" and self.batch.word("in_progress_at") is None:
            await self._change("cancelled", cancelled_at=self._now)
        if self.batch.status in ("in_progress", "cancelling"):
            await self._make()
        if self.batch.status == "finalizing":
            self.batch = await write(self.service, self.batch, self.folder, self.unfit, self._left())
        if self.batch.status not in ACTIVE:
            await asyncio.to_thread(self._remove_input)

    async def _look_over(self) -> None:
        """Refuses what can't be run, before anything is spent."""
        try:
            caller = self._caller()
            setup, files = self.service.services.setup, LineFiles(self._files, self._upload)
            look = await asyncio.to_thread(look_over, self.input, self.endpoint, setup, caller, files)
            errors = look.bad
            if not errors:
                await self._begin(look, caller)
        except Failure as failure:
            if failure.code == "overloaded":  # the data directory can't be written
                raise
            errors = [told_of(failure)]
        if errors:
            await self._change("failed", failed_at=self._now, errors={"object": "list", "data": errors})

    async def _begin(self, look: Look, caller: Caller) -> None:
        """Sets the disk's room aside, and looks whether the key's limits let so much pass. Raises Failure."""
        service, room = self.service, look.pictures * PICTURE_BYTES

        def check(db: sqlite3.Connection) -> None:
            check_room(db, room, service.limits)
            if (limits := caller.limits) is not None:
                now, spends = service.records.now, {"pictures": look.pictures, "nano_usd": look.nano_usd}
                budgets.check(db, limits, caller.digest, **spends, now=now)

        def begun(batch: Batch) -> Batch:
            status = "in_progress" if batch.status == "validating" else batch.status
            counts = {"total": look.lines, "completed": 0, "failed": 0}
            model = next(iter(look.models)) if len(look.models) == 1 else None
            return batch.changed(status, room=room, in_progress_at=self._now, request_counts=counts, model=model)

        self.batch = await service.records.change(self.batch.id, begun, check=check)

    async def _make(self) -> None:
        """Makes the pictures that are left, until all are through or something ends it."""
        services, folder = self.service.services, self.folder
        keeping = Keeping(folder, Template(), more=told)
        accounts = [each.account for model in services.setup.models.values() for each in model.deployments]
        keys = await asyncio.to_thread(recall, accounts, folder.history)
        total = self.batch.told()["request_counts"]["total"]
        await folder.post(folder.begin(total, manifest=INPUT, strangers={}))
        jobs = (await recover(folder, keeping, keys)).jobs
        self._bytes = await asyncio.to_thread(_size_of, folder.layout.root)
        await self._look_around()
        ticking = asyncio.create_task(self._tick())
        try:
            while not await self._round(jobs, keeping):
                if services.draining:
                    return
                _log.warning("batch %s waits: %s", self.batch.id, self._stops.reason)
                jobs = []
                await self._pause()
        finally:
            ticking.cancel()
        await self._change("finalizing", finalizing_at=self._now, _ends=self._ends or "completed")

    async def _round(self, jobs: list[Unit], keeping: Keeping) -> bool:
        """Asks for what is left. Whether that was all, or all that will be asked for."""
        services, progress = self.service.services, self._progress
        stops = self._stops = Stops(reason=self._ends or ("the gateway is stopping" if services.draining else None))
        progress.begin(jobs)
        self.unfit.clear()
        ask = asking(lambda: services.setup, services.data, services.flow)
        self._run = Run(ask, Pace(self.service.limits.concurrency), stops, keeping, is_back)
        async with aclosing(self._run.outcomes(self._units(jobs))) as outcomes:
            async for outcome in outcomes:
                progress.came(outcome.id)
                self._bytes += len(outcome.artifact.data) if outcome.artifact is not None else 0
        if self._run.failure is not None:
            raise self._run.failure
        is_over = self._ends is not None or self._full is not None
        return is_over or stops.reason is None or stops.doubts >= DOUBTS

    async def _units(self, jobs: list[Unit]) -> AsyncIterator[Unit]:
        """Jobs that go on first: they are paid for. The input is read in a thread, as far as it is needed."""
        for job in jobs:
            yield job
        left = self._to_do()
        while piece := await asyncio.to_thread(lambda: list(islice(left, _AT_ONCE))):
            for unit in piece:
                yield unit

    def _to_do(self) -> Iterator[Unit]:
        for line in self.lines():
            if not any(_TAKES[state] for state in self.folder.pictures.states(line.id, line.n)):
                self._progress.through(line)
                continue
            try:
                setup, files = self.service.services.setup, LineFiles(self._files)
                made = units(line, self.endpoint, setup, self._caller(), files)
            except Failure as failure:
                self.unfit[line.id] = failure
                continue
            self._progress.expects(line)
            states = self.folder.pictures.states(line.id, len(made))
            yield from (unit for unit, state in zip(made, states, strict=True) if _TAKES[state])

    @property
    def _files(self) -> Path:
        return self.folder.layout.root / _FILES

    def _upload(self, id: str, param: str) -> Path:
        stored = self.service.records.image_sync(id, self.batch.owner, param)
        return self.service.folder / stored.path

    def _remove_input(self) -> None:
        self.input.unlink(missing_ok=True)
        shutil.rmtree(self._files, ignore_errors=True)

    def lines(self) -> Iterator[Line]:
        """Those of the input. Raises Failure."""
        for number, given in read(self.input):
            yield line_of(number, given, self.endpoint)

    async def _tick(self) -> None:
        """Writes the progress down, and looks whether the batch is to end."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            with suppress(Failure):  # the log has it; the next time may do better
                await self._look_around()

    async def _look_around(self) -> None:
        records, counts = self.service.records, self._progress.counts
        found = await records.batch(self.batch.id, self.batch.owner)
        if found is None:
            return
        self.batch = found
        if (told := found.told()["request_counts"]) | counts != told:
            self.batch = await records.change(found.id, lambda batch: batch.changed(request_counts=told | counts))
        if found.status == "cancelling":
            self._ends = "cancelled"
        elif records.now >= self.ends_at:
            self._ends = "expired"
        if self._ends is not None:
            self.stop(self._ends)
        elif self._bytes > self.batch.room:
            await self._take_room()

    async def _take_room(self) -> None:
        """Its pictures are larger than was thought: takes more of the disk, or ends where it may not."""
        room, limits = self._bytes + _MORE_BYTES, self.service.limits
        more = room - self.batch.room
        try:
            self.batch = await self.service.records.change(
                self.batch.id, lambda batch: batch.changed(room=room), check=lambda db: check_room(db, more, limits)
            )
        except Failure as failure:
            if failure.code == "overloaded":
                raise
            self._full = failure
            self.stop(failure.message)

    async def _pause(self) -> None:
        self.waits = True
        self._is_woken.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_woken.wait(), AGAIN_SECONDS)
        self.waits = False

    def _left(self) -> Left:
        """What is said of pictures that were not asked for."""
        match self.batch.word("_ends"):
            case "cancelled":
                return CANCELLED
            case "expired":
                return EXPIRED
            case _ if self._full is not None:
                return Left(code="insufficient_quota", message=self._full.message)
            case _:
                return Left(code="not_sent", message=self._stops.reason or "it was not asked for")

    def _caller(self) -> Caller:
        caller = self.service.services.setup.keys.known(self.batch.owner)
        if caller is None:
            raise Failure(401, "the key that began this batch is gone", INVALID, "invalid_api_key")
        return caller

    async def _change(self, status: str, **more: object) -> None:
        room = self.batch.room if status in ACTIVE else 0
        self.batch = await self.service.records.change(self.batch.id, lambda batch: batch.changed(status, room, **more))

    @property
    def _now(self) -> int:
        return int(self.service.records.now)


def _size_of(folder: Path) -> int:
    """The bytes of the pictures that are there."""
    with os.scandir(folder) as entries:
        return sum(each.stat().st_size for each in entries if each.is_file() and each.name != INPUT)
