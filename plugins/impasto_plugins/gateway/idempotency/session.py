"""The idempotency of one request: it runs its call, joins another, or gets a stored outcome."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import attrs

from impasto.ext import StoredCall
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.calls.queue_timeout import read_max_queue_wait
from impasto_plugins.gateway.errors import APIError, JobInProgress
from impasto_plugins.gateway.http.connection import client_disconnected
from impasto_plugins.gateway.http.memory_budget import MemoryReservation
from impasto_plugins.gateway.storage.failures import storage_required

from .fingerprint import Fingerprint
from .in_flight import InFlightCall
from .store import KEY_SECONDS

if TYPE_CHECKING:
    from .coordinator import IdempotencyCoordinator

_NEAR_TIMEOUT_FRACTION = 0.9
"""Fraction of a caller's time-out after which a response may come too late for it."""

MakeCall = Callable[[StoredCall | None], Awaitable[CallOutcome]]
"""Makes a call, with its row if it is stored. Raises APIError."""

JobStarted = asyncio.Future[tuple[StoredCall, bool]]
"""A job's row, and True if it existed before."""


@attrs.frozen
class CallLabel:
    """Further facts in a call's row: the model under its public name."""

    model: str
    response_format: str


def new_row(id: str, fingerprint: Fingerprint, label: CallLabel, worker: str = "") -> StoredCall:
    """Return the row of a call that begins. ``worker``: the name of the one that makes it."""
    return StoredCall(
        id=id,
        owner=fingerprint.owner,
        identity=fingerprint.key or (fingerprint.content if fingerprint.count is not None else b""),
        content=fingerprint.content,
        model=label.model,
        response_format=label.response_format,
        worker=worker,
        attempt=fingerprint.count or 0,
        expires=KEY_SECONDS,
    )


@attrs.define(eq=False)
class IdempotencySession:
    """The idempotency of one request, for a block that lasts until the request is answered."""

    _coordinator: IdempotencyCoordinator
    _fingerprint: Fingerprint
    _reservation: MemoryReservation
    stack: ExitStack = attrs.field(factory=ExitStack)
    """Resources of the outcome, for as long as it may have to be stored."""
    running: InFlightCall | None = None
    """The call that this request makes."""
    _call: InFlightCall | None = None
    """The same, if it has no row."""
    _row: StoredCall | None = None
    _outcome: CallOutcome | APIError | None = None
    _call_seconds: float = 0.0
    """Seconds that the call took."""
    _label: CallLabel | None = None
    _jobs: Callable[[], str] = str
    """Returns the JSON of all jobs of the call."""
    _recording: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.stack:
            await self.end(broken=error is not None and not isinstance(error, APIError))

    async def get_outcome(self, make: MakeCall, label: CallLabel) -> tuple[CallOutcome, StoredCall | None]:
        """Return the outcome of the call: run it here if needed, or load that of a row. Raises APIError."""
        fingerprint, coordinator, self._label = self._fingerprint, self._coordinator, label
        call: InFlightCall | None = None
        if fingerprint.key is not None or fingerprint.count:
            with storage_required():
                if fingerprint.key is not None:
                    self._row, call = await coordinator.claim_or_join(fingerprint, label, wait=True)
                elif fingerprint.count:
                    self._row = await coordinator.find_previous_attempt(fingerprint, fingerprint.count)
        if self._row is not None:
            # The row is durable before the provider is asked: a kill from here on is reported, and never repeated.
            if call is not None:
                self.running = call
                running = coordinator.run_and_record(self._row, call, partial(make, self._row))
                return await running, None
            return await coordinator.store.load(self._row), self._row
        self._call = self.running = coordinator.in_flight.begin(fingerprint.content, fingerprint.request, has_key=False)
        started_at = time.monotonic()
        try:
            self._outcome = await make(None)
        except APIError as failure:
            self._outcome = failure
            if isinstance(failure, JobInProgress):
                await coordinator.continue_as_job(self._call, failure)
            raise
        self._call_seconds = time.monotonic() - started_at
        return self._outcome, None

    @property
    def may_repeat(self) -> bool:
        """True if the caller is an SDK, which repeats a request by itself."""
        return self._fingerprint.count is not None

    async def record_jobs(self, row: StoredCall | None, jobs: Callable[[], str]) -> None:
        """Write down the provider's jobs of the call, so that any worker can fetch them. ``row``: that of the call.

        ``jobs`` returns the JSON of all of them.
        """
        self._jobs = jobs
        async with self._recording:  # an earlier write must not end after a later one
            if row is not None:
                await self._coordinator.store.record_jobs(row, self._all_jobs)
            elif self._call is not None and self._label is not None:
                call, label = self._call, self._label
                await self._coordinator.record_jobs(self._fingerprint, label, call, self._all_jobs)

    def _all_jobs(self) -> str:
        return self._jobs()  # those of the moment at which they are written

    async def run_job(
        self, make: Callable[[StoredCall], Awaitable[CallOutcome]], label: CallLabel, job_started: JobStarted
    ) -> None:
        """Run the call as a job, or call ``job_started`` with the existing one.

        ``make`` calls ``job_started`` when all is well. Raises APIError if it failed before that.
        """
        fingerprint, coordinator = self._fingerprint, self._coordinator
        row: StoredCall | None = None
        call: InFlightCall | None = None
        with storage_required():
            if fingerprint.key is None and fingerprint.count:
                row = await coordinator.store.calls.claim(fingerprint.content, fingerprint.count, as_job=True)
            if row is None:
                row, call = await coordinator.claim_or_join(fingerprint, label, wait=False)
        if call is None:
            job_started.set_result((row, True))
            return
        self.running = call
        try:
            await coordinator.run_and_record(row, call, partial(make, row), has_id=job_started.done)
        except APIError:  # it is stored
            if not job_started.done():
                raise

    async def end(self, *, broken: bool) -> None:
        """End the session: the request is answered, or its caller left. ``broken``: the response is incomplete."""
        fingerprint, coordinator, call, outcome = self._fingerprint, self._coordinator, self._call, self._outcome
        closed = broken or client_disconnected(fingerprint.request)
        if call is None:  # replayed, or stored by run_and_record
            # A replay that may not have arrived is released: the next retry claims it.
            if closed and self._row is not None and fingerprint.key is None and fingerprint.count:
                await coordinator.store.release(self._row, fingerprint.count)
        elif outcome is None:
            coordinator.in_flight.mark_lost(call)  # the process ends, or has a bug
        elif isinstance(outcome, APIError):
            if outcome.not_charged:
                coordinator.finish(call)
            else:
                await coordinator.store_outcome(fingerprint, call, outcome)
        elif broken:
            await coordinator.store_outcome(fingerprint, call, outcome)
        elif closed or fingerprint.count is not None:
            # An SDK repeats a request by itself if it has not read the response: wait until that is known.
            timeout = read_max_queue_wait(fingerprint.request.headers, math.inf)
            gave_up = self._call_seconds > timeout * _NEAR_TIMEOUT_FRACTION
            # The answer is in memory for longer than the request.
            self.stack.enter_context(self._reservation.transfer())
            coordinator.await_delivery(fingerprint, call, outcome, self.stack.pop_all(), gave_up=gave_up)
        else:
            coordinator.finish(call)  # no SDK: nothing will ask again by itself
