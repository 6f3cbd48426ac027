"""The right to run a batch: a lease in its row, which one replica has and renews. Its end is told by the store's clock.

A replica that has lost its lease changes nothing of the batch any more: each change checks the lease in the same step.
Images can't be paid for twice even so, since each is requested only by the one that has created its intent.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import attrs

from impasto_plugins.gateway.batches.store import BatchRow, BatchStore, FileRow
from impasto_plugins.gateway.errors import SERVER, APIError

LEASE_SECONDS = 20.0
"""Seconds after its last renewal until another replica may run the batch."""

_LEASE = "_lease"


def is_leased(batch: BatchRow, now: float) -> bool:
    """Return True if a run of the batch may go on."""
    lease = batch.attribute(_LEASE)
    return lease is not None and now < lease["until"]


@attrs.define(eq=False)
class BatchLease:
    """The lease of one run of a batch. ``run``: a name that no other run has."""

    store: BatchStore
    run: str = attrs.field(factory=lambda: secrets.token_hex(8))

    async def take(self, batch: BatchRow) -> BatchRow | None:
        """Take the lease; return the batch as it is now, None if another run has the lease. Raises APIError."""
        now = await self.store.now()

        def take(current: BatchRow) -> BatchRow:
            if is_leased(current, now):
                raise _LeaseHeldElsewhere
            return self._with_lease(current, now)

        with suppress(_LeaseHeldElsewhere, KeyError):
            return await self.store.change(batch, take)
        return None

    async def renew(self, batch: BatchRow, on_loss: Callable[[], object]) -> None:
        """Renew the lease until it is lost: an ended lease that nobody has taken is renewed too."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            try:
                now = await self.store.now()
                await self.change(batch, partial(self._with_lease, now=now))
            except (_LeaseHeldElsewhere, KeyError):
                on_loss()
                return
            except APIError:  # the log has it; the next try may succeed, or the lease ends
                continue

    async def release(self, batch: BatchRow) -> None:
        """End the lease, if it is still this run's. Raises nothing: without the store it ends by itself."""
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
        """Change a batch as ``BatchStore.change`` does. Raises APIError also if it has lost the lease."""

        def fenced(current: BatchRow) -> BatchRow:
            if (lease := current.attribute(_LEASE)) is None or lease["run"] != self.run:
                raise _LeaseHeldElsewhere
            return change(current)

        return await self.store.change(batch, fenced, files=files, max_bytes=max_bytes)

    def _with_lease(self, batch: BatchRow, now: float) -> BatchRow:
        return batch.with_attributes(_lease={"run": self.run, "until": now + LEASE_SECONDS})


class _LeaseHeldElsewhere(APIError):
    """Another run has the lease, or has had it."""

    def __init__(self) -> None:
        super().__init__(503, "another replica runs this batch", SERVER, "overloaded")
