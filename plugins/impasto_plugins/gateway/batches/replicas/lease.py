"""The right to run a batch: a lease in its row, which one replica has and renews. Its end is told by the store's clock.

A replica that has lost its lease changes nothing of the batch any more: each change checks the lease in the same step.
Images can't be paid for twice even so, since each is requested only by the one that has created its intent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import attrs

from impasto_plugins.gateway.batches.store import BatchRow, BatchStore, FileRow
from impasto_plugins.gateway.errors import SERVER, APIError

LEASE_SECONDS = 20.0
"""Seconds after its last renewal until another replica may run the batch."""

_LEASE = "_lease"


def is_leased(batch: BatchRow, now: float) -> bool:
    """Return True if a worker may run the batch."""
    lease = batch.attribute(_LEASE)
    return lease is not None and now < lease["until"]


@attrs.define(eq=False)
class BatchLease:
    """A batch that this worker runs, or wants to. ``worker``: its name."""

    store: BatchStore
    worker: str

    async def take(self, batch: BatchRow) -> BatchRow | None:
        """Take the lease; return the batch as it is now, None if another worker has the lease. Raises APIError."""
        now = await self.store.now()
        with suppress(_LeaseHeldElsewhere, KeyError):
            return await self.store.change(batch, lambda current: self._with_lease(current, now))
        return None

    async def renew(self, batch: BatchRow, on_loss: Callable[[], object]) -> None:
        """Renew the lease until it is lost."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            with suppress(APIError):  # the log has it; the next try may succeed, or the lease ends
                if await self.take(batch) is None:
                    on_loss()
                    return

    async def release(self, batch: BatchRow) -> None:
        """End the lease, if it is still this worker's. Raises nothing: without the store it ends by itself."""
        with suppress(_LeaseHeldElsewhere, KeyError, APIError):
            await self.change(batch, lambda current: current.with_attributes(_lease=None))

    async def change(
        self,
        batch: BatchRow,
        change: Callable[[BatchRow], BatchRow],
        *,
        files: Sequence[FileRow] = (),
        max_bytes: int | None = None,
    ) -> BatchRow:
        """Change a batch as ``BatchStore.change`` does. Raises APIError also if another worker has the lease."""

        def fenced(current: BatchRow) -> BatchRow:
            if (lease := current.attribute(_LEASE)) is None or lease["worker"] != self.worker:
                raise _LeaseHeldElsewhere
            return change(current)

        return await self.store.change(batch, fenced, files=files, max_bytes=max_bytes)

    def _with_lease(self, batch: BatchRow, now: float) -> BatchRow:
        if is_leased(batch, now) and batch.attribute(_LEASE)["worker"] != self.worker:
            raise _LeaseHeldElsewhere
        return batch.with_attributes(_lease={"worker": self.worker, "until": now + LEASE_SECONDS})


class _LeaseHeldElsewhere(APIError):
    """Another worker has the lease."""

    def __init__(self) -> None:
        super().__init__(503, "another replica runs this batch", SERVER, "overloaded")
