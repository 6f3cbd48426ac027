"""A folder whose process dies, or whose machine loses its power, at any call, again and again: a state machine."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zlib import crc32

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from impasto import Artifact, ChargeUnknown, Cost, NotSent, Pending, Result, StorageError, WireRequest
from impasto.call import Call
from impasto_plugins.batch.classification import outcome_of_error, outcome_of_result
from impasto_plugins.batch.filenames import Template
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.log import ReadPosition, rows
from impasto_plugins.batch.ledger.recorder import LedgerRecorder
from impasto_plugins.batch.ledger.recovery import recover
from impasto_plugins.batch.ledger.workspace import Workspace, WorkspacePaths
from impasto_plugins.batch.tasks import ImageTask, Outcome
from tests.images import png

from .volatile import PAGE, Platter, Volatile

KEY = "k" * 64
CALL = cast(Call, SimpleNamespace(account=SimpleNamespace(fingerprint=KEY), job=None))
JOB = Pending(id="job", poll=WireRequest(target="/results/job", method="GET"), result_ttl=3600.0)


def picture_of(id: str) -> bytes:
    return picture(int(id.partition("-")[2]))


LOST = b"half a picture"


class Mortal(Volatile):
    """Does so many calls more, and from then on none: to the disk, that is a process that died."""

    def __init__(self, platter: Platter) -> None:
        super().__init__(platter)
        self.left = 10**9
        for name in [name for name in vars(Disk) if not name.startswith("_") and name != "close"]:
            setattr(self, name, self._mortal(getattr(Volatile, name), is_write=name == "write"))

    def _mortal(self, call: Any, *, is_write: bool) -> Any:
        def mortal(*args: Any) -> Any:
            self.left -= 1
            if self.left == 0 and is_write:
                call(self, args[0], bytes(args[1])[: len(args[1]) // 2])
            if self.left <= 0:
                raise OSError(errno.EIO, "the process is dead")
            return call(self, *args)

        return mortal


def picture(number: int) -> bytes:
    """One of several pages."""
    end = png(8, 8).index(b"IEND") - 4
    noise = b"noIs" + random.Random(number).randbytes(3 * PAGE)
    chunk = (len(noise) - 4).to_bytes(4) + noise + crc32(noise).to_bytes(4)
    return png(8, 8)[:end] + chunk + png(8, 8)[end:]


POWER = st.one_of(st.none(), st.integers(0, 1_000))
"""None: it stays. 0: what was not synced is lost. Else of that some is lost, by this seed."""


class Crashes(RuleBasedStateMachine):
    """What the model remembers: which pictures were asked for, which were said to be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="impasto-states-"))
        self.runner = asyncio.Runner()
        self.number = 0
        self.tasks: dict[str, ImageTask] = {}
        self.saved: dict[str, bytes] = {}
        self.jobs: set[str] = set()
        self.sent: set[str] = set()
        self.platter = Platter()
        self._start()

    def _start(self) -> None:
        self.disk = Mortal(self.platter)
        self.folder = self.runner.run(Workspace.open(self.root / "out", self.disk))
        self.keeping = LedgerRecorder(self.folder, Template())
        self.runner.run(self._begin_run())

    def _close(self) -> None:
        self.runner.run(self.folder.__aexit__(None, None, None))
        while self.keeping._staged:  # each once, also if a restart fails and the teardown comes here again
            self.disk.close(self.keeping._staged.popitem()[1].file)

    async def _begin_run(self) -> None:
        await self.folder.submit(self.folder.begin(0, orphans={}))
        self.recovered = await recover(self.folder, self.keeping, frozenset({KEY[:16]}))

    @rule()
    def ask(self) -> None:
        self.number += 1
        id = f"picture-{self.number}"
        unit = ImageTask(id=id, index=0, n=1, model="a/model", cost=Cost(usd=1.0, as_of=""), sha256="0" * 64)
        try:
            self.runner.run(self.keeping.record_intent(unit, CALL))
        except StorageError:  # nothing was sent
            return
        self.tasks[id] = unit
        self.sent.add(id)

    @rule(data=st.data())
    def take_on_a_job(self, data: st.DataObject) -> None:
        if unit := self._drawn(data):

            async def accept() -> None:
                await self.keeping.record_job(unit, CALL, JOB)

            try:
                self.runner.run(accept())
            except OSError:
                return
            self.jobs.add(unit.id)

    @rule(data=st.data())
    def come(self, data: st.DataObject) -> None:
        if unit := self._drawn(data):
            self._come(unit)

    def _come(self, unit: ImageTask) -> None:
        data = picture_of(unit.id)
        result = Result(artifacts=(Artifact(data=data, media_type="image/png"),))
        self._settle(unit, outcome_of_result(unit, result), data)

    @rule(data=st.data(), charged=st.booleans())
    def fail(self, data: st.DataObject, charged: bool) -> None:
        if unit := self._drawn(data):
            self._settle(
                unit, outcome_of_error(unit, ChargeUnknown("lost", raw=LOST) if charged else NotSent("no")), None
            )

    @rule(left=st.integers(1, 14), power=POWER)
    def die_as_one_comes(self, left: int, power: int | None) -> None:
        """At one of the calls that keep a picture, or soon after them."""
        self.ask()
        if (unit := self.tasks.get(f"picture-{self.number}")) is not None:
            self.disk.left = min(self.disk.left, left)
            self._come(unit)
        self.restart(power)

    def _settle(self, unit: ImageTask, outcome: Outcome, data: bytes | None) -> None:
        try:
            self.runner.run(self.keeping.store_result(unit, outcome))
        except OSError:
            return
        del self.tasks[unit.id]
        self.jobs.discard(unit.id)
        if data is not None:
            self.saved[unit.id] = data

    def _drawn(self, data: st.DataObject) -> ImageTask | None:
        return data.draw(st.sampled_from(list(self.tasks.values()))) if self.tasks and self.disk.left > 0 else None

    @rule(left=st.integers(1, 40))
    def will_die(self, left: int) -> None:
        if self.disk.left > 1_000:
            self.disk.left = left

    @rule(power=POWER)
    def restart(self, power: int | None) -> None:
        """The process is gone, whatever it was at, or the machine; the next one takes up what there is."""
        self.disk.left = 0
        self._close()
        if power is not None:
            self.platter.lose_power(self.root / "out", random.Random(power) if power else None)
        self._start()
        last = self._last()
        assert all(kind not in ("intent", "staged") for kind, _ in last.values()), "nothing is left open but jobs"
        for id in list(self.tasks):
            kind, _ = last[id]
            assert kind in ("done", "ambiguous", "accepted", "refused"), kind
            if id in self.jobs and kind == "accepted":
                assert [job.job for job in self.recovered.jobs if job.id == id] == ["job"]
            elif id in self.jobs:
                assert kind == "done" or (id not in self.saved)
            del self.tasks[id]
            self.jobs.discard(id)

    def _last(self) -> dict[str, tuple[str, dict[str, Any]]]:
        found = rows(WorkspacePaths(self.root / "out").ledger, ReadPosition())
        return {row["id"]: (row["row"], dict(row)) for _, row in found if "id" in row}

    @invariant()
    def what_was_kept_is_there(self) -> None:
        last = self._last()
        for id, data in self.saved.items():
            kind, row = last[id]
            assert kind == "done", f"{id} is {kind}"
            assert (self.root / "out" / row["path"]).read_bytes() == data
        for id, (kind, row) in last.items():
            if kind == "done":
                data = (self.root / "out" / row["path"]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == row["sha256"], id
                assert data == picture_of(id), "none was taken for whole that was not"
            for path in row.get("kept", ()):
                data = (self.root / "out" / path).read_bytes()
                assert data == LOST or row["code"] == "charge_unknown"
                assert data.strip(b"\0"), "nothing is kept of nothing"
        assert self.sent <= last.keys(), "what was asked for is known"

    def teardown(self) -> None:
        self.disk.left = 10**9
        self._close()
        self.runner.close()
        shutil.rmtree(self.root)


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
