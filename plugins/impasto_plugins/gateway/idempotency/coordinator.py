"""Repeated requests: joined to the running call, or answered with its outcome, never paid for twice.

With an ``Idempotency-Key`` a request is bound to that key for 24 hours. An SDK's retry searches for an earlier attempt
whose caller left; each attempt's result is given to one retry. An attempt that is proved to have cost nothing runs
again.

A retry must find an earlier attempt at any moment, in any worker and after a crash. While a call runs it has a slot in
the in-flight table, which all workers read: RUNNING while its caller waits, ABANDONED after the caller left, LOST if
the call is over and its outcome is unknown. A slot is freed only when nobody can ask for the call again: its response
was read, its outcome is in the store, or it is proved that it cost nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import attrs
from aiohttp import web

from impasto.ext import CALLER_WAITS, StateError, StateStore, StoredCall, finish
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.errors import APIError, JobInProgress, charge_unknown_error
from impasto_plugins.gateway.http.connection import client_disconnected, track_delivery
from impasto_plugins.gateway.http.delivery import LINGER_SECONDS, Delivery
from impasto_plugins.gateway.storage.contents import ContentStore

from .calls_in_flight import FoundCall, calls_in_flight
from .fingerprint import KEY_HEADER, Fingerprint
from .in_flight import SLOTS, InFlightCall, SlotState
from .late_uploads import UploadQueue
from .queue_mark import UNSENT, unsent_error
from .serialization import dump_outcome
from .session import CallLabel, new_row
from .store import OutcomeStore, new_row_id

WATCH_SECONDS = 0.05
"""Seconds between checks for callers who may have left."""

MAX_TRACKED_DELIVERIES = SLOTS // 4
"""Responses whose delivery is tracked; one more, and the oldest counts as not read."""

_RECHECK_SECONDS = 1.0
"""The most seconds between checks if the worker of a joined call is alive."""

_log = logging.getLogger("impasto.gateway")


class IdempotencyCoordinator:
    """One worker's view of running calls and stored outcomes. ``resume`` fetches jobs of dead workers.

    ``folder``: the data directory, with the tables of calls in flight. ``contents``: the images of stored calls.
    ``queues``: further stores whose files wait for the bucket.
    """

    def __init__(
        self,
        state: StateStore,
        folder: Path,
        contents: ContentStore,
        resume: Callable[[StoredCall, InFlightCall], object],
        *queues: UploadQueue,
    ) -> None:
        self._resume = resume
        self.store = OutcomeStore(state, contents, *queues)
        self.in_flight = calls_in_flight(state, folder / "workers")
        self._reclaiming = asyncio.Lock()
        self._deliveries: dict[Delivery, None] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin, and take over the calls of dead workers."""
        try:
            await self.in_flight.start()
            await self.reclaim_dead_workers()
        except (StateError, OSError) as error:
            _log.error("running calls can't be recorded for other workers and the next start: %s", error)

    async def aclose(self) -> None:
        """Leave running calls for other workers to take over."""
        await self.end_deliveries()
        await self.store.aclose()
        try:
            await self.in_flight.aclose()
        except StateError as error:
            _log.error("what became of the last calls could not be recorded: %s", error)

    async def watch(self) -> None:
        """Watch for callers who may have left, for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._check_callers()

    async def watch_workers(self) -> None:
        """Take over the calls of workers that die, for ever."""
        while True:
            await asyncio.sleep(self.in_flight.take_over_seconds)
            with suppress(StateError, OSError, APIError):  # reported by the calls that need it
                await self.reclaim_dead_workers()

    async def end_deliveries(self) -> None:
        """Do the same for the last time."""
        self.store.hurry()
        await self.flush_deliveries()

    async def flush_deliveries(self) -> None:
        """Wait until every response is known to be read, or is stored."""
        end = time.monotonic() + LINGER_SECONDS + WATCH_SECONDS
        while self._deliveries and time.monotonic() < end:
            await asyncio.sleep(WATCH_SECONDS / 2)
            self._check_callers()
        # Without proof by now an answer counts as unread: a copy that nobody asks for costs less than a second payment.
        for delivery in tuple(self._deliveries):
            delivery.give_up()
        while self._writing:
            await asyncio.wait(self._writing)

    def _check_callers(self) -> None:
        now = time.monotonic()
        for delivery in tuple(self._deliveries):
            delivery.update(now)
        self.in_flight.mark_disconnected()

    def track_delivery(
        self, request: web.BaseRequest, on_decided: Callable[[bool], object], *, gave_up: bool = False
    ) -> Delivery | None:
        """Call ``on_decided`` when the delivery of the response just written is known. Return None if it is lost.

        See Delivery.
        """

        def finish(is_read: bool) -> None:
            if delivery is not None:
                self._deliveries.pop(delivery, None)
            on_decided(is_read)

        delivery = track_delivery(request, finish, gave_up=gave_up)
        if delivery is None:
            on_decided(False)
            return None
        self._deliveries[delivery] = None
        if len(self._deliveries) > MAX_TRACKED_DELIVERIES:
            next(iter(self._deliveries)).give_up()
        return delivery

    def await_delivery(
        self, fingerprint: Fingerprint, call: InFlightCall, outcome: CallOutcome, stack: ExitStack, *, gave_up: bool
    ) -> None:
        """Hold the outcome of a call until its response was read, or else store it for the retry."""

        async def store_for_retry() -> None:
            with stack:
                await self.store_outcome(fingerprint, call, outcome)

        def finish(is_read: bool) -> None:
            if is_read:
                self.finish(call)
                stack.close()
            else:
                self.in_flight.mark_abandoned(call)
                self._write(store_for_retry())

        call.delivery = self.track_delivery(fingerprint.request, finish, gave_up=gave_up)

    async def store_outcome(
        self, fingerprint: Fingerprint, call: InFlightCall, outcome: CallOutcome | APIError
    ) -> None:
        """Store the outcome of a finished call for its retry."""
        if not await self.store.save(fingerprint.content, outcome, on_stored=partial(self.finish, call)):
            self.in_flight.mark_lost(call)

    def finish(self, call: InFlightCall) -> None:
        """Remove a call without a key, whose outcome is delivered or stored, and what was stored of its jobs."""
        self.in_flight.finish(call)
        if call.jobs_row is not None:
            self._write(self.store.delete(call.jobs_row.id))

    def _write(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def find_previous_attempt(self, fingerprint: Fingerprint, count: int) -> StoredCall | None:
        """Return the outcome of an earlier attempt of an SDK's call, once it is over; None if nothing was charged.

        Raises APIError and StateError.
        """
        is_second_look, delay = False, self.in_flight.look_seconds
        while True:
            await self.reclaim_dead_workers()
            self.in_flight.mark_disconnected()
            entries = await self.in_flight.look(fingerprint.content)
            # After that look: no call is between the table and the store.
            if (row := await self.store.calls.claim(fingerprint.content, count, as_job=False)) is not None:
                return row
            # An abandoned call is waited for: its result is this retry's. A lost one may have been charged. A running
            # one belongs to a caller who is still there and may want a second image, so it is looked at twice only.
            states = {each.state for each in entries}
            if SlotState.ABANDONED in states:
                entry = next(each for each in entries if each.state == SlotState.ABANDONED)
                delay = await self.wait_for(entry, fingerprint, delay)
            elif SlotState.LOST in states:
                raise charge_unknown_error()
            elif SlotState.RUNNING in states and not is_second_look:
                is_second_look = True
                await asyncio.sleep(self.in_flight.notice_seconds)
            elif (job := await self.store.calls.claim(fingerprint.content, count, as_job=True)) is None:
                return await self.store.calls.find_failed(fingerprint.content)
            elif (row := await self._wait_until_over(job, fingerprint, count)) is not None:
                return row

    async def _wait_until_over(self, row: StoredCall, fingerprint: Fingerprint, count: int) -> StoredCall | None:
        """Return a claimed row once its call is over, None if it was deleted meanwhile. Raises APIError and StateError.

        Raises ConnectionError if the waiting caller leaves.
        """
        found: StoredCall | None = row
        delay = self.in_flight.look_seconds
        try:
            while found is not None and found.state == "running":
                if (entry := await self.in_flight.find_running(found)) is not None:
                    delay = await self.wait_for(entry, fingerprint, delay)
                found = await self.find_row(row.id, row.owner)
        except BaseException:
            await finish(self.store.release(row, count))
            raise
        return attrs.evolve(found, attempt=row.attempt) if found is not None else None  # for whoever releases it

    async def find_row(self, id: str, owner: bytes) -> StoredCall | None:
        """Return the row of a call, a failed one if its worker is gone. Raises StateError."""
        for wait in (0.0, 2 * WATCH_SECONDS):  # its outcome may be written just now
            await asyncio.sleep(wait)
            row = await self.store.calls.find(id, owner)
            if row is None or row.state != "running" or await self.find_running(row) is not None:
                return row
        assert row is not None  # noqa: S101 - it runs, as it seems
        return attrs.evolve(row, state="failed", outcome=dump_outcome(charge_unknown_error()))

    async def wait_for(self, entry: FoundCall, fingerprint: Fingerprint, delay: float = _RECHECK_SECONDS) -> float:
        """Wait until a call may be over, for ``delay`` at most; return the next delay.

        Raises ConnectionError if the waiting caller leaves.
        """
        deadline = time.monotonic() + min(delay, _RECHECK_SECONDS)
        while not entry.is_over() and (left := deadline - time.monotonic()) > 0:
            if client_disconnected(fingerprint.request):
                raise ConnectionResetError("the caller left")
            await asyncio.sleep(min(left, WATCH_SECONDS / 2))
        return 2 * delay

    async def claim_or_join(
        self, fingerprint: Fingerprint, label: CallLabel, *, wait: bool
    ) -> tuple[StoredCall, InFlightCall | None]:
        """Insert a call's row, bound to its idempotency key if it has one; return the row and its running call.

        If the key has a call already, return that row alone; with ``wait``, after that call is over. Raises APIError,
        StateError and StoreError.
        """
        missing_id, delay = "", self.in_flight.look_seconds
        while True:
            id = new_row_id()
            # The call comes first: a row without one counts as lost.
            call = self.in_flight.begin(bytes.fromhex(id), None, has_key=True)
            is_new = False
            try:
                row = new_row(id, fingerprint, label, await self.in_flight.share(call))
                row = await self.store.insert_or_join(row, join=fingerprint.key is not None)
                is_new = row.id == id
            finally:
                if not is_new:
                    self.in_flight.finish(call)
            if is_new:
                return row, call
            if row.content != fingerprint.content:
                message = f"{KEY_HEADER}: this key belongs to another request; use a new one for each"
                raise APIError(422, message, code="idempotency_key_reused", param=KEY_HEADER, should_retry=False)
            if row.state != "running" or not wait:
                return row, None
            if missing_id == row.id:
                raise charge_unknown_error()
            # A row that says "running" without a call in any table was left by a worker that died.
            if (entry := await self.find_running(row)) is None:
                missing_id = row.id
                await asyncio.sleep(2 * WATCH_SECONDS)  # its row may be written just now
            else:
                delay = await self.wait_for(entry, fingerprint, delay)

    async def find_running(self, row: StoredCall) -> FoundCall | None:
        """Return the running call of a row, or None."""
        await self.reclaim_dead_workers()
        return await self.in_flight.find_running(row)

    async def run_and_record(
        self,
        row: StoredCall,
        call: InFlightCall,
        make: Callable[[], Awaitable[CallOutcome]],
        *,
        has_id: Callable[[], bool] | None = None,
    ) -> CallOutcome:
        """Run a call that was begun and store its outcome. Raises APIError.

        ``has_id()`` returns True if a client may hold the call's id. Otherwise a failure without a charge is deleted.
        """
        outcome: CallOutcome | APIError
        try:
            outcome = await make()
        except APIError as failure:
            if isinstance(failure, JobInProgress) and self.in_flight.has_room:
                self._continue(attrs.evolve(row, jobs=failure.jobs), call, failure)
                raise
            outcome = failure
        except BaseException:  # the process ends, or has a bug
            self.in_flight.mark_lost(call)
            raise
        # The slot is freed after the outcome is on the disk: a retry must find one of the two at any moment.
        forget, on_stored = has_id is None or not has_id(), partial(self.in_flight.finish, call)
        is_patient = has_id is not None and has_id()  # no response waits for it
        try:
            await self.store.finish(row, outcome, forget=forget, is_patient=is_patient, on_stored=on_stored)
        except BaseException:  # as above
            self.in_flight.mark_lost(call)
            raise
        if isinstance(outcome, APIError):
            raise outcome
        return outcome

    async def record_jobs(
        self, fingerprint: Fingerprint, label: CallLabel, call: InFlightCall, jobs: Callable[[], str]
    ) -> None:
        """Store the jobs of a call without a row, until its outcome is delivered or stored: this worker may die.

        As long as its caller waits here, no retry gets the row.
        """
        if call.jobs_row is None:
            call.jobs_row = attrs.evolve(new_row(new_row_id(), fingerprint, label), attempt=CALLER_WAITS)
        await self.store.insert_jobs(call.jobs_row, jobs, self.in_flight.worker)

    async def continue_as_job(self, call: InFlightCall, failure: JobInProgress) -> None:
        """Fetch the jobs of a call without a row that take too long. Its caller learns the id of their row."""
        row = call.jobs_row
        if row is None or not self.in_flight.has_room:
            return
        continued = self.in_flight.begin(bytes.fromhex(row.id), None, has_key=True)
        with suppress(StateError):  # the row is written when the state is there again
            await self.in_flight.share(continued)
        call.jobs_row = None  # it stays
        await self.store.forget_content(row)
        self._continue(attrs.evolve(row, jobs=failure.jobs), continued, failure)

    def _continue(self, row: StoredCall, call: InFlightCall, failure: JobInProgress) -> None:
        """Fetch the jobs of a call whose time is over."""
        failure.add_id(row.id)
        self._resume(row, call)

    async def reclaim_dead_workers(self) -> None:
        """Take over the calls of dead workers. Raises StateError and OSError."""
        await asyncio.shield(asyncio.create_task(self._reclaim_dead_workers()))  # whoever waits for it may leave

    async def _reclaim_dead_workers(self) -> None:
        # One at a time: the next caller must find the calls that this one has taken over.
        async with self._reclaiming:
            async with self.in_flight.dead_workers() as dead:
                if not dead:
                    return
                jobs = await self.store.take_over(dead, await self.in_flight.worker())
            for row in jobs:
                if row.jobs == UNSENT:
                    await self.store.finish(row, unsent_error(), forget=False)
                else:
                    _log.warning("a call was cut off, and its image is fetched: GET /v1/images/jobs/%s", row.id)
                    self._resume(row, self.in_flight.adopt(row))
