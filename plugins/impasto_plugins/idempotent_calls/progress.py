"""The progress of a call with an idempotency key: its requests, and their jobs, which can be fetched later."""

from __future__ import annotations

import json
import logging
from typing import Any

import attrs

from impasto import Call, ImpastoError, Pending, WireRequest
from impasto.ext import StateError, StateStore
from impasto_plugins.fetched_jobs import ProviderJob, ends_job

_log = logging.getLogger("impasto")


@attrs.define(eq=False)
class CallProgress:
    """The requests of a call as they are made: their jobs go into its record as they are accepted."""

    store: StateStore
    record_id: str
    calls: list[Call] = attrs.field(factory=list[Call])
    jobs: list[ProviderJob] = attrs.field(factory=list[ProviderJob])
    images: int = 0
    _is_recorded: bool = True

    async def record_only(self, jobs: list[ProviderJob]) -> None:
        """Write these jobs into the record: the others have ended."""
        self.jobs, self._is_recorded = jobs, False
        await self.record()

    async def add_job(self, job: ProviderJob) -> None:
        """Write a job that was accepted into the record."""
        self.jobs.append(job)
        self._is_recorded = False
        await self.record()

    async def record(self) -> None:
        """Write the jobs into the record, if it lacks one."""
        if not self._is_recorded:
            self._is_recorded = True  # at once: jobs that are added meanwhile make it False again
            try:
                await self.store.calls.update(self.record_id, jobs=json.dumps([attrs.asdict(job) for job in self.jobs]))
            except StateError as error:
                self._is_recorded = False
                _log.error("the job of a call can't be recorded, so only this process can fetch it: %s", error)

    @property
    def is_paid(self) -> bool:
        """True if anything may have been charged."""
        return any(call.possible_charges for call in self.calls)

    def can_resume(self, error: ImpastoError) -> bool:
        """Return True if all that may have been charged are jobs, and one of them runs on after the error."""
        if not self.jobs or all(map(ends_job, (error, *error.errors))):
            return False
        jobs = {job.id for job in self.jobs}
        return all(call.job in jobs for call in self.calls if call.possible_charges)


class KeyedCall(Call):
    """A call of one request, whose job is recorded."""

    is_recorded = True

    def __init__(self, progress: CallProgress, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._progress, self._place = progress, progress.images
        progress.images += self.request.count  # the calls of a fan-out begin in the order of its images
        progress.calls.append(self)

    async def record_job(self, pending: Pending) -> None:
        """Add the job to the call's."""
        await self._progress.add_job(ProviderJob.of(pending, place=self._place, count=self.request.count))

    async def before_send(self, wire: WireRequest) -> None:
        """Record the jobs that could not be recorded before."""
        await self._progress.record()
