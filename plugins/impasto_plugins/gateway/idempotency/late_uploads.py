"""Paid images that the bucket did not take: they are on the disk of this machine, and are uploaded as soon as it does.

Meanwhile an object in the store of state says that this process has such images, and other replicas refuse a repeated
request instead of reporting a loss. It expires if nobody renews it: the replica has died, perhaps with its disk.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Protocol

import attrs

from impasto.ext import StateError, StateStore, StoredObject
from impasto_plugins.gateway.storage.contents import StoreError
from impasto_plugins.gateway.storage.late_writes import Change

ANNOUNCED_SECONDS = 15 * 60.0
"""Seconds for which others wait for the images of a replica that has died, and may start again."""

RETRY_SECONDS = 0.5
_MAX_RETRY_SECONDS = 10.0
_LOOK_SECONDS = 60.0
"""Seconds between looks at the disk: another worker of this machine may have died and left images."""

_LAST_SECONDS = 5.0
"""Seconds for the last uploads of a process that ends."""

KIND = "uploads"
_MAX_COUNT = 100_000

_log = logging.getLogger("impasto.gateway")


class UploadQueue(Protocol):
    """A store whose images wait on this machine if the bucket is away."""

    @property
    def waiting(self) -> AbstractSet[str]:
        """The names of those that only this machine has."""
        ...

    async def publish_all(self) -> None:
        """Upload those that wait, also those of earlier processes on this machine. Raises StoreError."""
        ...


class LateUploads:
    """The images of this process that wait for the bucket, and those of others."""

    def __init__(self, state: StateStore, *queues: UploadQueue) -> None:
        self._state, self._queues = state, queues
        self._id = f"{KIND}-{secrets.token_hex(16)}"
        self._announced_at = -math.inf
        self._changing = asyncio.Lock()
        self._has_more = asyncio.Event()

    @property
    def _waiting(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues)

    def wake(self) -> None:
        """Announce and upload what waits, as soon as possible."""
        self._has_more.set()

    async def announce_before(self, change: Change) -> None:
        """Let others wait for the images that are here alone, and then write the records of their calls.

        Raises StateError.
        """
        if self._waiting:
            await self._announce()
            self.wake()
        await change()

    async def _announce(self) -> None:
        async with self._changing:
            if self._waiting and time.monotonic() - self._announced_at > ANNOUNCED_SECONDS / 3:
                now = await self._state.now()
                item = StoredObject(
                    kind=KIND, id=self._id, owner=b"", status="", size=0, body="{}",
                    created=now, expires=now + ANNOUNCED_SECONDS,
                )  # fmt: skip
                found = await self._state.objects.insert(item, max_count=_MAX_COUNT)
                if isinstance(found, StoredObject):
                    await self._state.objects.replace(found, attrs.evolve(found, expires=item.expires))
                self._announced_at = time.monotonic()

    async def are_awaited(self) -> bool:
        """Return True if images of any process wait for the bucket. Raises StateError."""
        now = await self._state.now()
        return any(each.expires > now for each in await self._state.objects.of_kind(KIND))

    async def run(self) -> None:
        """Upload images as soon as the bucket takes them, for ever; those of an earlier process first."""
        pause = RETRY_SECONDS
        while True:
            try:
                await self._upload()
            except (StoreError, StateError):  # reported when the images were stored, and by the calls that need them
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_RETRY_SECONDS)
            else:
                pause = RETRY_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._has_more.wait()

    async def aclose(self) -> None:
        """Upload for the last time: the disk may end with the process."""
        if not self._waiting:
            return
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._upload()
        except (StoreError, StateError, TimeoutError):
            _log.error("%d paid images stay on this machine until the next start", self._waiting)

    async def _upload(self) -> None:
        self._has_more.clear()
        with suppress(StateError):  # here it is only renewed
            await self._announce()
        for queue in self._queues:
            await queue.publish_all()
        async with self._changing:
            if not self._waiting and self._announced_at > -math.inf:
                await self._state.objects.delete([self._id])
                self._announced_at = -math.inf
