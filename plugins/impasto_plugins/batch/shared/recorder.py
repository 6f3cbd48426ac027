"""Records the images of a batch on several hosts: an intent in the bucket first, then in the folder's ledger."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from impasto import Call, ImpastoError, NotSent, Pending, StorageError
from impasto_plugins.batch.ledger.log import Row
from impasto_plugins.batch.ledger.recorder import LedgerRecorder, Uploader
from impasto_plugins.batch.tasks import ImageTask, Outcome, TakenByAnotherHost, key_of

from .session import SharedBatch


class LeaseEnded(NotSent):
    """A request that is given up because other hosts may have found this one dead."""


@attrs.define(eq=False, kw_only=True)
class SharedRecorder(LedgerRecorder):
    """Records tasks in the folder of one of the hosts, and in the bucket for all of them."""

    shared: SharedBatch
    is_selected: Callable[[int], bool]
    """Returns True if an image in this state, by number, is to be requested."""
    _lapses: dict[tuple[str, int], int] = attrs.field(factory=dict[tuple[str, int], int])
    """The lapses of the lease before each request was claimed."""

    async def record_intent(self, unit: ImageTask, call: Call) -> None:
        """Create the intent, and write it to the ledger. Raises StorageError, NotSent, TakenByAnotherHost."""
        shared, key = self.shared, (unit.id, unit.index)
        try:
            lapses = await shared.ensure_lease()
            if key not in shared.merge.claims:
                if not await shared.claim(unit, key_of(call.account), self.is_selected):
                    raise TakenByAnotherHost("another host of this batch requests it", retryable=False)
                self._lapses[key] = lapses
                await super().record_intent(unit, call)
            if await shared.ensure_lease() != self._lapses[key]:
                raise LeaseEnded("this host was stopped for longer than its lease", retryable=False)
        except OSError as error:
            raise StorageError(f"{error.strerror}; nothing was sent") from None

    async def record_job(self, unit: ImageTask, call: Call, pending: Pending) -> None:
        """Write the id of an accepted job to the ledger and to the bucket, so that any host can fetch its result."""
        await super().record_job(unit, call, pending)
        await self.shared.log.flush()

    async def store_result(self, unit: ImageTask, outcome: Outcome) -> Outcome:
        """Store an image or an error for all hosts. Raises OSError."""
        key = unit.id, unit.index
        self._lapses.pop(key, None)
        if isinstance(outcome.error, LeaseEnded):  # any host may request it now, this one too
            self.shared.merge.is_retriable = True
        elif outcome.state != "done":
            self.shared.tried.add(key)
        is_claimed = key in self.shared.merge.claims or unit.job is not None or unit.extra is not None
        if not is_claimed and (outcome.again or outcome.state != "refused" or not await self._claim_refused(unit)):
            return outcome  # nothing was sent: other hosts need not know
        return await super().store_result(unit, outcome)

    async def _claim_refused(self, unit: ImageTask) -> bool:
        """Claim an image that is refused before its request: no other host has to try it."""
        single = attrs.evolve(unit, others=())
        try:
            return await self.shared.claim(single, unit.key, self.is_selected)
        except ImpastoError:
            return False

    async def upload(self, uploader: Uploader, row: Row) -> str:
        """Announce an image in the bucket, so that it is found if this host dies; then upload it. Raises OSError."""
        await self.shared.log.flush()
        return await super().upload(uploader, row)

    def record_cancelled(self, unit: ImageTask, call: Call) -> None:
        """Write that a cancelled call may have been charged; a job is left open."""
        key = unit.id, unit.index
        if key in self.shared.merge.claims or call.job is not None:
            super().record_cancelled(unit, call)
        else:
            self.folder.submit(self._release_staging(unit))
