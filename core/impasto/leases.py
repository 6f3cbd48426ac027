"""The lease of this process in a store that replicas share."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from .state_records import StateError

if TYPE_CHECKING:
    from .replicas import Workers

T = TypeVar("T")

LEASE_SECONDS = 20.0

RENEW_SECONDS = 5.0

_MARGIN = 5.0
"""Seconds before its end from which this process no longer trusts its lease: no request of it arrives later."""


class WorkerEnded(StateError):
    """The lease of a worker has ended, and others may have taken over its calls: it must register again."""


class WorkerLease:
    """A worker of a store, whose lease a task renews from its first use until it is closed."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._valid_until = self._lapsed_at = -math.inf
        self._renewing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.worker = ""
        """The id of the worker, which may have ended; another one once others have taken over its calls."""

    @property
    def is_valid(self) -> bool:
        """True if nobody can have taken this worker for dead."""
        return time.monotonic() < self._valid_until

    @property
    def has_just_lapsed(self) -> bool:
        """True if this lease had ended some seconds ago: the store was away, and others could not renew theirs."""
        return time.monotonic() < self._lapsed_at + 2 * RENEW_SECONDS

    async def hold(self) -> str:
        """Return the id of a worker whose lease is valid; register one if there is none. Raises StateError."""
        if not self.is_valid:
            async with self._renewing:
                if not self.is_valid:
                    await self._renew()
        return self.worker

    async def use(self, operation: Callable[[str], Awaitable[T]]) -> T:
        """Await an operation of the worker with this id; if the store has ended its lease, once more as another one.

        Raises StateError.
        """
        for _ in range(2):
            worker = await self.hold()
            try:
                return await operation(worker)
            except WorkerEnded:
                self.end()
        raise StateError("the lease of this process ends at once")

    def end(self) -> None:
        """Note that the store has ended the lease."""
        self._valid_until = -math.inf

    async def aclose(self) -> None:
        """End the lease. Raises StateError; it then ends by itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.worker:
            await self._workers.end(self.worker)

    async def _renew(self) -> None:
        # Before the store reads its clock: seen from here, the lease can only end later than this says.
        end = time.monotonic() + LEASE_SECONDS - _MARGIN
        has_lapsed = bool(self.worker) and not self.is_valid
        if not self.worker or not await self._workers.renew(self.worker, LEASE_SECONDS):
            self.end()
            worker = secrets.token_hex(16)
            await self._workers.register(worker, LEASE_SECONDS)
            self.worker = worker
        self._valid_until = end
        if has_lapsed:
            self._lapsed_at = time.monotonic()
        if self._task is None:
            self._task = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            async with self._renewing:
                try:
                    await self._renew()
                except StateError:  # whoever sends next reports it
                    continue
