"""The rate windows of keys in a store that replicas share."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import cast

from impasto import ConfigError, RateLimit
from impasto.ext import ReplicaStore, StateError, StateStore

from .window import Permit, slack

_RETRY_SECONDS = 0.5
"""Seconds until changes are sent again that the store did not take."""

OpenStore = Callable[[], AbstractAsyncContextManager[StateStore]]
"""Returns the client's store, which stays open while it is used."""

_log = logging.getLogger("impasto")


class StoreWindow:
    """The windows of all keys, for one loop. Permits are asked for one at a time; what became of them is sent together.

    The process knows when a request was written, and reports its arrival when it is certain: a call has two round
    trips. If the process dies, the end of its lease reports it.
    """

    def __init__(self, open_store: OpenStore) -> None:
        self._open_store = open_store
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._store: ReplicaStore | None = None
        self._arrived: set[int] = set()
        self._released: defaultdict[str, set[int]] = defaultdict(set)
        self._pauses: dict[str, float] = {}
        """The end of each pause."""
        self._has_changes = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def acquire(self, key: str, limit: RateLimit) -> Permit | float:
        """Return a permit if a request may go now, otherwise the seconds to wait before the next try.

        Raises NotSent or StorageError if the store can't be used.
        """
        permit = Permit(slack(limit), number=secrets.randbits(63), key=key)
        if self._task is None:
            self._task = asyncio.create_task(self._send_changes())
        asking = asyncio.ensure_future(self._begin(permit, limit))
        try:
            wait = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(partial(self._forget, permit))
            raise
        except StateError as error:
            self.release(permit)  # the answer may have been lost
            raise error.refusal("the shared rate window") from None
        if wait > 0:
            return wait
        if self._store is None or not self._store.lease.is_valid:  # the answer took too long
            self.release(permit)
            return 0.0
        return permit

    def mark_written(self, permit: Permit) -> None:
        """Note that all of the request was written."""
        asyncio.get_running_loop().call_later(permit.slack, self.mark_arrived, permit)

    def mark_arrived(self, permit: Permit) -> None:
        """Note that the request has arrived. Counting it twice changes nothing."""
        if not permit.is_counted:
            permit.is_counted = True
            self._arrived.add(permit.number)
            self._has_changes.set()

    def release(self, permit: Permit) -> None:
        """Take back the permit of a request that never left."""
        if not permit.is_counted:
            permit.is_counted = True
            self._released[permit.key].add(permit.number)
            self._has_changes.set()

    def pause(self, key: str, seconds: float) -> None:
        """Stop all requests of a key for so many seconds."""
        self._pauses[key] = max(self._pauses.get(key, 0.0), time.monotonic() + seconds)
        self._has_changes.set()

    async def aclose(self) -> None:
        """Send the last changes."""
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                await self._send()
        except StateError as error:
            _log.warning("what was sent last could not be reported: %s", error)
        finally:
            await self._stack.aclose()

    async def _begin(self, permit: Permit, limit: RateLimit) -> float:
        store = self._store or await self._use_store()
        return await store.lease.use(
            lambda worker: store.rates.begin(permit.key, permit.number, worker, limit, permit.slack)
        )

    async def _use_store(self) -> ReplicaStore:
        async with self._opening:
            if self._store is None:
                store = await self._stack.enter_async_context(self._open_store())
                if not hasattr(store, "rates"):
                    raise ConfigError(
                        f"state: {type(store).__name__} shares no rate limits; give a postgresql:// URL,"
                        ' "machine" or a folder'
                    )
                self._store = cast("ReplicaStore", store)
            return self._store

    def _forget(self, permit: Permit, answer: asyncio.Future[float]) -> None:
        """Release the permit of a call that was cancelled before its answer came."""
        if not answer.cancelled() and (answer.exception() is not None or not answer.result()):
            self.release(permit)

    async def _send_changes(self) -> None:
        while True:
            await self._has_changes.wait()
            try:
                await self._send()
            except StateError:  # a place stays taken until the store is there again
                await asyncio.sleep(_RETRY_SECONDS)

    async def _send(self) -> None:
        """Send all changes. Those that fail stay. Raises StateError."""
        self._has_changes.clear()
        if self._store is None:  # nothing has changed there
            return
        rates = self._store.rates
        try:
            if arrived := frozenset(self._arrived):
                await rates.count(arrived)
                self._arrived -= arrived
            for key, numbers in list(self._released.items()):
                released = frozenset(numbers)
                await rates.release(key, released)
                numbers -= released
                if not numbers:
                    del self._released[key]
            for key, end in list(self._pauses.items()):
                if (seconds := end - time.monotonic()) > 0:
                    await rates.pause(key, seconds)
                if self._pauses[key] == end:
                    del self._pauses[key]
        except BaseException:
            self._has_changes.set()
            raise
