"""This host's part in a batch on several hosts: it joins, claims images, settles those of dead hosts, and leaves."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs

from impasto import ImpastoError, InvalidRequest, NotSent, Problem
from impasto.ext import finish
from impasto_plugins.batch.classification import outcome_of_error
from impasto_plugins.batch.ledger.group_commit import WriteSteps
from impasto_plugins.batch.ledger.log import ON_RESUME, ReadPosition, Row, rows
from impasto_plugins.batch.ledger.recorder import error_row, intent_row
from impasto_plugins.batch.ledger.recovery import task_of_row
from impasto_plugins.batch.ledger.states import TaskState
from impasto_plugins.batch.ledger.workspace import Workspace
from impasto_plugins.batch.output.s3 import TRIES, ImageBucket
from impasto_plugins.batch.tasks import ImageTask, join_jobs
from impasto_plugins.transports.s3 import NotStored

from .hosts import JSON_TYPE, HostRecord, Hosts, Lease
from .merging import Key, Merge, key_of_row
from .segments import OwnLog, count_segments, read_segments, storage_errors
from .share import JoinOptions, Share

if TYPE_CHECKING:
    from impasto_plugins.batch.runner.limits import StopConditions

SYNC_SECONDS = 5.0
"""Seconds between looks at other hosts' logs."""

_GOLDEN_RATIO = 0.618
"""Multiples of it are far from each other: hosts without a share begin at different rows."""

_INTENTS = ".impasto/intents/"
_DEAD_HOST = "the host that requested it stopped before the image was stored; it may have been charged"
_OTHER_CONTENT = "is the id of other content on another host of this batch; give all hosts the same manifest and files"

_log = logging.getLogger("impasto")


@attrs.define(eq=False)
class SharedBatch:
    """One host's view of a batch that several hosts run."""

    folder: Workspace
    bucket: ImageBucket
    options: JoinOptions
    host: str
    hosts: Hosts
    merge: Merge
    log: OwnLog
    lease: Lease
    keys: frozenset[str] = frozenset()
    """The accounts in use, as in the ledger: jobs of others can't be polled."""
    jobs: list[ImageTask] = attrs.field(factory=list[ImageTask])
    """Jobs of dead hosts, to be polled by this one."""
    start: float = 0.0
    """The part of the batch's rows before those that this host begins with."""
    tried: set[Key] = attrs.field(factory=set[Key])
    """Images that did not come in this run: only another run, or another host, requests them again."""
    _adopted: set[Key] = attrs.field(factory=set[Key])
    _settled: set[str] = attrs.field(factory=set[str])
    """Dead hosts whose logs and intents were read to the end."""
    _uncertain: dict[str, tuple[ImageTask, Mapping[str, object], bytes]] = attrs.field(factory=dict)
    """Intents without an answer of the bucket, by their names."""
    _lapses_checked: int = 0
    """The lapses of the lease after which the share was still this host's."""
    _syncing: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Workspace, options: JoinOptions) -> AsyncIterator[SharedBatch]:
        """Read all hosts' logs into the folder's ledger, without changing the bucket. Raises ConfigError, OSError."""
        async with ImageBucket.open(options.target) as bucket, cls.on(folder, bucket, options) as batch:
            yield batch

    @classmethod
    @asynccontextmanager
    async def on(cls, folder: Workspace, bucket: ImageBucket, options: JoinOptions) -> AsyncIterator[SharedBatch]:
        """Do the same with an open bucket."""
        objects, host = bucket.objects, secrets.token_hex(8)
        folder.merge = merge = await asyncio.to_thread(Merge, folder)
        batch = cls(
            folder=folder,
            bucket=bucket,
            options=options,
            host=host,
            hosts=Hosts(objects, dead=set(folder.history.hosts)),
            merge=merge,
            log=OwnLog(folder, objects, host),
            lease=Lease(objects, HostRecord(name=host, share=options.share_name)),
        )
        try:
            with bucket.configuration_errors():
                await batch._read_logs()
            yield batch
        finally:
            merge.close()

    @property
    def share(self) -> Share | None:
        """This host's share."""
        return self.options.share

    async def begin(
        self, stack: AsyncExitStack, *, mark: Mapping[str, object], images: int, keys: frozenset[str]
    ) -> None:
        """Take this host's place in the batch. When ``stack`` closes, it leaves. Raises ConfigError, OSError.

        ``mark``: what all hosts must have in common. ``keys``: the accounts in use, as in the ledger.
        """
        self.keys = keys
        with self.bucket.configuration_errors():
            await self.bucket.check_shared(mark)
            addresses = dict(self.folder.history.addresses)
            self.lease.record = attrs.evolve(self.lease.record, images=images, addresses=addresses)
            self.hosts.check_shares(self.options.share_name, self.host)  # a host that does not fit leaves no lease
            await self.lease.create()  # before anything else is written: the bucket must honour conditions
            stack.push_async_callback(self._leave)
            await self.bucket.claim_shared(mark)
            stack.push_async_callback(_cancel, asyncio.create_task(self._renew()))
            await self.hosts.refresh()
            self.start = (len(self.hosts.records) - 1) * _GOLDEN_RATIO % 1
            self.hosts.check_shares(self.options.share_name, self.host)
            if self.share is not None:
                await self._claim_share(self.share)
                self.start = (self.share.number - 1) / self.share.count
            await self.sync()
        stack.push_async_callback(_cancel, asyncio.create_task(self._keep_in_sync()))

    async def _claim_share(self, share: Share) -> None:
        if share.number:
            await self.hosts.claim_share(share, self.host)
            return
        share = await self.hosts.claim_free_share(share.count, self.host)
        self.options = attrs.evolve(self.options, share=share)
        self.lease.record = attrs.evolve(self.lease.record, share=str(share))
        await self.lease.renew()

    async def _leave(self) -> None:
        """Write the last rows, and end the lease. Without the bucket the lease ends by itself."""
        with suppress(OSError, NotStored, ImpastoError):
            await self._give_up_uncertain()
            await self.log.flush()
            self.lease.record = attrs.evolve(self.lease.record, segments=self.log.count)
            if all(self.folder.images.state(*key) == TaskState.ACCEPTED for key in self.merge.claims):
                await self.lease.end()  # any host may fetch the jobs now

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.lease.record.seconds / 3)
            self.lease.record = attrs.evolve(self.lease.record, segments=self.log.count)
            with suppress(NotStored, ImpastoError):  # the next try may succeed; meanwhile the lease may end
                await self.lease.renew()

    async def _keep_in_sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            try:
                await self.update()
            except OSError as error:
                _log.warning("%s: %s", self.bucket.target, error.strerror)

    async def update(self) -> None:
        """Write what is new here, and read what is new elsewhere. Raises OSError."""
        await self.log.flush()
        with storage_errors():
            await self.sync()

    async def sync(self) -> None:
        """Read what other hosts have written, and settle what dead ones left open.

        Raises NotStored, ConfigError, NotSent, OSError.
        """
        async with self._syncing:
            await self._read_logs()
            dead = [name for name in self.hosts.records if name != self.host and not self.hosts.is_live(name)]
            died = [name for name in dead if name not in self._settled and not self.hosts.records[name].has_ended]
            if died:
                await asyncio.gather(*map(self._read_log, died))  # its last rows, before anything is judged
                await self._read_intents()
            left = [row for name in dead for row in list(self.merge.left_open.get(name, {}).values())]
            self.jobs += join_jobs(self._adopt(row) for row in left if self._is_to_adopt(row))
            for row in left:
                if row["row"] != "accepted":
                    await self.folder.submit(self.folder.write_row(await self._judge(row), on_disk=True))
            if died:
                await self.log.flush()
            for name in died:  # for hosts that start later; if it comes back it writes its lease again
                segments = await count_segments(self.bucket.objects, name)  # it may have died before it said so
                await Lease(self.bucket.objects, attrs.evolve(self.hosts.records[name], segments=segments)).end()
            self._settled |= {*dead}

    async def _read_logs(self) -> None:
        await self.hosts.refresh()
        self._settled -= {name for name in self._settled if self.hosts.is_live(name)}  # it was stopped, and is back
        for record in self.hosts.records.values():
            self.folder.history.addresses |= record.addresses
        others = self.hosts.records.keys() - self._settled - {self.host}
        await asyncio.gather(*map(self._read_log, others))

    async def _read_log(self, name: str) -> None:
        """Read the rows that a host has written since the last look. Those of this folder are in its ledger."""
        imported, record = self.folder.history.imported, self.hosts.records[name]
        position = imported.get(name, 0)
        if name in self.hosts.dead or (record.has_ended and position >= record.segments):
            return
        async for news, end in read_segments(self.bucket.objects, name, position, record.segments):
            await self.folder.submit(self._import(name, news, {"row": "shared", "imported": {name: end}}))
            imported[name] = end

    def _import(self, name: str, news: Iterable[Row], position: Row | None = None) -> WriteSteps[None]:
        yield from ()
        for row in news:
            self.folder.write({"row": row["row"], "from": name, **row})
            if row["row"] == "done":
                self.folder.names.add(row["path"], is_local=False)
            elif row["row"] == "accepted":
                self.folder.history.job_models.add(row["model"])
        if position is not None:
            self.folder.write(position)

    async def _read_intents(self) -> None:
        """Read the intents that are in no log: their hosts died before they could write them there."""
        logged = await self.folder.submit(self._logged_intents())
        listing = await self.bucket.objects.list_objects(_INTENTS)
        await asyncio.gather(*(self._read_intent(each.name) for each in listing.entries if each.name not in logged))

    def _logged_intents(self) -> WriteSteps[set[str]]:
        yield from ()
        ledger = rows(self.folder.layout.ledger, ReadPosition(), heads=ON_RESUME)
        intents = (row for _, row in ledger if row["row"] == "intent")
        return {intent_name(row["id"], row["index"], row.get("attempt", 0)) for row in intents}

    async def _read_intent(self, name: str) -> None:
        if (data := await self.bucket.objects.get(name, tries=TRIES)) is not None:
            await self._import_intent(data)

    async def _import_intent(self, data: bytes) -> None:
        intent = json.loads(data)
        if intent["host"] != self.host:
            await self.folder.submit(self._import(intent["host"], intent["rows"]))

    def _is_to_adopt(self, row: Row) -> bool:
        return row["row"] == "accepted" and row["key"] in self.keys and key_of_row(row) not in self._adopted

    def _adopt(self, row: Row) -> ImageTask:
        """Return the task of a dead host's job. Its result counts as that host's attempt."""
        self._adopted.add(key_of_row(row))
        self.merge.claims[key_of_row(row)] = _claim_of(row)
        return task_of_row(row, self.folder.clock())

    async def _judge(self, row: Row) -> Row:
        """Return the row that closes an image of a dead host: done if it was uploaded, otherwise ambiguous."""
        if row["row"] == "staged" and (name := await self.bucket.find(row)) is not None:
            own = {each: value for each, value in row.items() if each not in ("from", "replaces")}
            return {**own, "row": "done", "path": name, "modified": None}
        return {
            "row": "ambiguous",
            "settles": int(TaskState.STAGED if row["row"] == "staged" else TaskState.INTENT),
            **_claim_of(row),
            **{name: row[name] for name in ("id", "index", "usd", "n", "model", "asks")},
            "at": time.time(),
            "code": "charge_unknown",
            "message": _DEAD_HOST,
            "billed": "unknown",
            "again": False,
        }

    async def ensure_lease(self) -> int:
        """Renew the lease if it has ended. Return how often it had, to recognize what was claimed before that.

        Raises OSError, and ConfigError if another host has taken the share meanwhile.
        """
        if not self.lease.is_valid:
            with storage_errors():
                await self.lease.renew()
        lapses = self.lease.lapses
        if self.share is not None and lapses != self._lapses_checked:
            try:
                await self.hosts.check_holder(self.share, self.host)
            except NotStored as error:
                raise OSError(errno.EIO, f"the bucket can't be used: {error}") from None
            self._lapses_checked = lapses
        return lapses

    async def claim(self, unit: ImageTask, key: str, is_selected: Callable[[int], bool]) -> bool:
        """Create the intent of a request. Return False if it is another host's, or not to be sent any more.

        Raises OSError if the bucket gives no proof, InvalidRequest if another host has other content for this id.
        """
        images = self.folder.images
        states = [images.state(each.id, each.index) for each in unit.images]
        if not all(map(is_selected, states)):
            return False
        attempt = images.attempt(unit.id, unit.index) + 1 if states[0] else 0
        share = self.options.share_name
        claim = {"attempt": attempt, **({"share": share} if share is not None else {})}
        intents = [{**claim, **intent_row(each, key)} for each in unit.images]
        name = intent_name(unit.id, unit.index, attempt)
        content = json.dumps({"host": self.host, "rows": intents}).encode()
        taken = await finish(self._create(unit, claim, name, content))  # a claim is known before it is given up
        if taken is None:
            return True
        await self._import_intent(taken)
        if any(row["asks"] != unit.sha256 for row in json.loads(taken)["rows"]):
            raise InvalidRequest([Problem("id", _OTHER_CONTENT)], operation=unit.model)
        return False

    async def _create(self, unit: ImageTask, claim: Mapping[str, object], name: str, content: bytes) -> bytes | None:
        """Create an intent, or return the one that exists."""
        self._uncertain[name] = unit, claim, content
        with storage_errors():
            taken = await self.bucket.objects.create(name, content, JSON_TYPE, tries=TRIES)
        del self._uncertain[name]
        if taken is None:
            self.merge.claims |= {(each.id, each.index): claim for each in unit.images}
        return taken

    async def _give_up_uncertain(self) -> None:
        """Free the images whose intents this host may have created without an answer: it has not sent them."""
        for name, (unit, claim, content) in list(self._uncertain.items()):
            if await self.bucket.objects.get(name, tries=TRIES) == content:
                self.merge.claims |= {(each.id, each.index): claim for each in unit.images}
                error = NotSent("the bucket did not answer in time; nothing was sent")
                for each in unit.images:
                    row = error_row(each, outcome_of_error(each, error), error)
                    await self.folder.submit(self.folder.write_row(row, on_disk=False))
            del self._uncertain[name]

    def is_waiting(self, images: AbstractSet[Key] | None = None) -> bool:
        """Return True while other hosts have images in progress, of these or all, that this one may have to settle."""
        return any(
            rows and (images is None or not images.isdisjoint(rows)) and self.hosts.is_live(name)
            for name, rows in self.merge.left_open.items()
        )

    def divide_budget(self, stops: StopConditions) -> None:
        """Give this host its share of the budget, and of the money that was spent."""
        if self.share is None or stops.budget is None:
            return
        images, share = self.folder.images, self.share
        stops.budget = share.of_usd(stops.budget)
        own = images.usd_of_shares[str(share)]
        same = sum(usd for name, usd in images.usd_of_shares.items() if name.endswith(f"/{share.count}"))
        stops.usd = own + max(images.usd - same, 0.0) / share.count


def _claim_of(row: Row) -> Mapping[str, object]:
    return {name: row[name] for name in ("attempt", "share") if name in row}


def intent_name(id: str, index: int, attempt: int) -> str:
    """Return the name of a request's intent."""
    name = f"{_INTENTS}{hashlib.sha256(id.encode()).hexdigest()}-{index}"
    return f"{name}.{attempt}" if attempt else name


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
