"""The hosts of a batch: their leases, and their shares.

A lease is an object that its host writes again three times in its length. S3 says when an object was written, and what
time it is now: no other clock is asked, so a clock that is wrong changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from typing import Any

import attrs

from impasto import ConfigError, File
from impasto_plugins.batch.output.s3 import TRIES
from impasto_plugins.transports.s3 import NotStored, Objects

from .share import STATE, Share, kind_of

LEASE_SECONDS = 30.0
"""Seconds after its last renewal until a host counts as dead."""

_TOLERANCE = 2.0
"""S3 counts in whole seconds: a host stops so much earlier, and others wait so much longer."""

JSON_TYPE = "application/json"
_FOLDER = ".impasto/hosts/"
_SHARES = ".impasto/shares/"


def _folder_of(share: Share) -> str:
    return f"{_SHARES}{share.number}-of-{share.count}/"


def lease_clock() -> float:
    """Return the seconds of a clock that nobody can set and that counts while the machine sleeps, if there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@attrs.frozen(kw_only=True)
class HostRecord:
    """The content of a lease: ``images`` of its manifest, ``segments`` of its log, ``seconds`` of the lease."""

    name: str
    share: str | None = None
    seconds: float = attrs.field(factory=lambda: LEASE_SECONDS)
    images: int = 0
    segments: int = 0
    addresses: Mapping[str, str] = attrs.field(factory=dict[str, str])
    has_ended: bool = False
    """True after a host has written all of its rows: it will never write another."""

    def to_file(self) -> File:
        """Return the object's content."""
        return File.of(json.dumps(attrs.asdict(self)).encode())

    @classmethod
    def parse(cls, data: bytes) -> HostRecord:
        """Parse a lease. Raises ConfigError if a later version has written it."""
        try:
            fields: dict[str, Any] = json.loads(data)
            return cls(**fields)
        except (ValueError, TypeError):
            raise ConfigError("another host of this batch has a later version: upgrade impasto") from None


@attrs.define(eq=False)
class Lease:
    """This host's own lease."""

    objects: Objects
    record: HostRecord
    lapses: int = 0
    """The number of times that it had ended before it was renewed."""
    _until: float = math.inf
    _renewing: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    @property
    def is_valid(self) -> bool:
        """True if no other host can have seen its end."""
        return lease_clock() < self._until

    async def create(self) -> None:
        """Write it for the first time, and prove that the bucket creates an object once.

        Raises ConfigError if it does not, NotStored.
        """
        began, name, content = lease_clock(), f"{_FOLDER}{self.record.name}", self.record.to_file()
        try:
            await self.objects.put(name, content, JSON_TYPE, tries=TRIES, only_new=True)
            is_ignored = await self.objects.put(name, content, JSON_TYPE, tries=TRIES, only_new=True)
        except NotStored as error:
            if error.code != "NotImplemented":
                raise
            is_ignored = True
        if is_ignored:
            raise ConfigError(
                "this service ignores the header If-None-Match of an upload, so hosts can't share a batch there;"
                " nothing was sent. Use a service that honours it, as Amazon S3 does, or one host without --join"
            )
        self._until = began + self.record.seconds - _TOLERANCE

    async def renew(self) -> None:
        """Write it again. Raises NotStored, ConfigError, NotSent."""
        async with self._renewing:
            for left in reversed(range(TRIES)):
                began = lease_clock()
                try:
                    async with asyncio.timeout(self.record.seconds / 3):  # a slow answer must not use up the lease
                        name = f"{_FOLDER}{self.record.name}"
                        await self.objects.put(name, self.record.to_file(), JSON_TYPE)
                except (TimeoutError, NotStored) as error:
                    if not left:
                        raise error if isinstance(error, NotStored) else NotStored(0, "TimeoutError") from None
                else:
                    self.lapses += began > self._until
                    self._until = began + self.record.seconds - _TOLERANCE
                    return

    async def end(self) -> None:
        """Say that all rows of this host are written. Raises NotStored, ConfigError, NotSent."""
        self.record = attrs.evolve(self.record, has_ended=True)
        await self.objects.put(f"{_FOLDER}{self.record.name}", self.record.to_file(), JSON_TYPE, tries=TRIES)


@attrs.define(eq=False)
class Hosts:
    """All hosts that a batch has had. ``now``: the time of S3 at the last look."""

    objects: Objects
    dead: set[str] = attrs.field(factory=set[str])
    """Names of which it is certain: processes that had this host's folder before."""
    now: float = 0.0
    records: dict[str, HostRecord] = attrs.field(factory=dict[str, HostRecord])
    modified: dict[str, float] = attrs.field(factory=dict[str, float])
    _etags: dict[str, str] = attrs.field(factory=dict[str, str])

    async def refresh(self) -> None:
        """Look at all leases; read those that have changed. Raises NotStored, ConfigError, NotSent."""
        listing = await self.objects.list_objects(_FOLDER)
        for entry in listing.entries:
            name = entry.name.removeprefix(_FOLDER)
            if self._etags.get(name) != entry.etag and (data := await self.objects.get(entry.name)) is not None:
                self.records[name] = HostRecord.parse(data)
                self._etags[name] = entry.etag
            self.modified[name] = entry.modified
        self.now = listing.now

    def is_live(self, name: str) -> bool:
        """Return True if a host may still send."""
        record = self.records.get(name)
        if record is None or record.has_ended or name in self.dead:
            return False
        return self.now - self.modified[name] <= record.seconds + _TOLERANCE

    def live(self, other_than: str = "") -> list[HostRecord]:
        """Return the hosts that may still send."""
        return [record for name, record in self.records.items() if name != other_than and self.is_live(name)]

    async def claim_share(self, share: Share, own_name: str) -> None:
        """Take a share that no live host has. Raises ConfigError, NotStored, NotSent.

        After a holder that may be dead it waits until the holder's lease has ended, or is renewed.
        """
        while True:
            number, holder = await self._holder_of(share)
            if holder is not None:
                await self._wait_for_end(holder, share)
            if await self._take(share, number, own_name):
                return

    async def claim_free_share(self, count: int, own_name: str) -> Share:
        """Take one of ``count`` shares that no live host has; wait for one. Raises ConfigError, NotStored, NotSent."""
        while True:
            for share in (Share(number, count) for number in range(1, count + 1)):
                number, holder = await self._holder_of(share)
                await self.refresh()  # after the holder's name: its lease is older than its claim
                if (holder is None or not self.is_live(holder)) and await self._take(share, number, own_name):
                    return share
            await asyncio.sleep(1.0)

    async def _take(self, share: Share, number: int, own_name: str) -> bool:
        """Become a share's holder after so many others; return False if another host was faster."""
        name, content = f"{_folder_of(share)}{number:06}", File.of(own_name.encode())
        return await self.objects.put(name, content, "text/plain", tries=TRIES, only_new=True)

    async def check_holder(self, share: Share, own_name: str) -> None:
        """Raise ConfigError if another host has taken this host's share, which it may after the end of the lease.

        Raises NotStored, NotSent.
        """
        _, holder = await self._holder_of(share)
        if holder != own_name:
            raise ConfigError(
                f"this host was stopped for longer than its lease, and another one has taken share {share}; nothing"
                " more was sent"
            )

    async def _holder_of(self, share: Share) -> tuple[int, str | None]:
        """Return the number of holders that a share has had, and the last one's name."""
        holders = (await self.objects.list_objects(_folder_of(share))).entries
        name = await self.objects.get(holders[-1].name) if holders else None
        return len(holders), name.decode() if name is not None else None

    async def _wait_for_end(self, name: str, share: Share) -> None:
        await self.refresh()
        written = self.modified.get(name)
        while self.is_live(name):
            if self.modified.get(name) != written:
                raise ConfigError(
                    f"share {share} belongs to another host, which is running; give each host its own K of --share K/N"
                )
            await asyncio.sleep(1.0)
            await self.refresh()

    def check_shares(self, share: str | None, own_name: str) -> None:
        """Raise ConfigError if a live host divides the batch in another way."""
        for other in self.live(own_name):
            if kind_of(other.share) != kind_of(share):
                its = {None: "no --share", STATE: "--state"}.get(other.share, f"--share {other.share}")
                raise ConfigError(
                    f"a running host of this batch has {its}; give all hosts the same --state, or the same N of"
                    " --share K/N, or start this one after they have ended"
                )

    def seconds_since_others(self, share: Share, own_name: str) -> float | None:
        """Return the seconds since earlier holders of this share's rate may have sent; None without such holders."""
        others = [
            self.now - self.modified[name]
            for name, record in self.records.items()
            if name != own_name
            and record.share is not None
            and (record.share == str(share) or kind_of(record.share) != kind_of(str(share)))
        ]
        return min(others, default=None)
