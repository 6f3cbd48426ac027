"""The run: images in flight side by side, each stored as it comes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar, Protocol

import attrs

from impasto import (
    Call,
    Client,
    File,
    ImpastoError,
    NotSent,
    Pending,
    RateLimited,
    ResponseError,
    Result,
    Spool,
    StorageError,
    WireRequest,
    WireResponse,
)
from impasto.ext import StopReason
from impasto_plugins.batch.classification import extras, outcome_of_error, outcomes_of_result, surplus
from impasto_plugins.batch.ledger.recorder import TaskRecorder
from impasto_plugins.batch.tasks import ImageTask, Outcome, TakenByAnotherHost

from .concurrency import OUTAGE_SECONDS, AdaptiveConcurrency
from .limits import StopConditions

_log = logging.getLogger("impasto")

FinishedQueue = asyncio.Queue[list[Outcome] | None]
"""Outcomes of finished tasks with all their images; None after the last."""

Execute = Callable[[ImageTask, Callable[..., Call], ExitStack], Awaitable[Result]]
"""Requests a task's image. Raises ImpastoError.

Its second argument makes the calls, see ``Client.invoke``; it takes the ``spools`` of answers too. The third holds what
the result needs until it is stored.
"""


class Spools(Protocol):
    """The spools of one task's answers, within a limit of memory."""

    def new_spool(self) -> Spool:
        """Return the spool of an answer."""
        ...

    async def load(self, file: File) -> bytes:
        """Return a spooled answer that must be parsed, once there is memory for it."""
        ...

    async def hold(self, size: int) -> None:
        """Wait until so many more bytes of a stream may be in memory."""
        ...


def of_client(client: Client) -> Execute:
    """Return a function that requests tasks with this client."""

    async def ask(unit: ImageTask, call: Callable[..., Call], _: ExitStack) -> Result:
        if (job := unit.provider_job) is not None:
            return job.completed(await client.resume(unit.model, job.id, n=job.count, timeout=unit.timeout))
        assert unit.request is not None  # noqa: S101 - a task without a job has a request
        n = len(unit.images)
        return await client.invoke(
            unit.model, unit.request, n=n, timeout=unit.timeout, base_model=unit.base_model, call=call
        )

    return ask


class _RecordedCall(Call):
    """A task's call, which reports to the recorder and the concurrency."""

    is_recorded: ClassVar[bool] = True

    def __init__(self, work: _TaskRun, *args: Any, spools: Spools | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.work = work
        self._spools = spools
        self.has_spools = spools is not None
        work.call = self
        self.began = self.last_request = 0.0

    def spool(self, response: WireResponse) -> Spool | None:
        return self._spools.new_spool() if self._spools is not None else None

    def text_spool(self, response: WireResponse) -> Spool | None:
        return self._spools.new_spool() if self._spools is not None else None

    async def load(self, file: File) -> bytes:
        return await (super().load(file) if self._spools is None else self._spools.load(file))

    async def hold(self, size: int) -> None:
        if self._spools is not None:
            await self._spools.hold(size)

    async def before_send(self, wire: WireRequest) -> None:
        is_retry = wire.method == "POST" and self.attempts_started > 0
        if is_retry and self.work.run.is_stopped_in_outage:  # nothing was sent: there is nothing to wait for
            raise NotSent("the run was stopped while the provider could not be reached", retryable=False)
        self.last_request = time.monotonic()
        await self.work.before_send(wire, self)

    def begin_attempt(self) -> None:
        super().begin_attempt()
        self.began = time.monotonic()

    def mark_not_sent(self, error: NotSent) -> None:
        super().mark_not_sent(error)
        if error.retryable:
            self.work.run.note_outage(self.account.base_url, error)

    def mark_not_charged(self, error: ImpastoError) -> None:
        super().mark_not_charged(error)
        if isinstance(error, RateLimited):
            self.work.run.pace.on_rate_limited()

    async def record_job(self, pending: Pending) -> None:
        await self.work.record_job(pending, self)


@attrs.define(eq=False)
class _TaskRun:
    """One running task."""

    run: Scheduler
    unit: ImageTask
    call: _RecordedCall | None = None

    async def before_send(self, wire: WireRequest, call: Call) -> None:
        keeper = self.run.keeper
        if wire.method == "POST" and keeper is not None:
            await keeper.record_intent(self.unit, call)

    async def record_job(self, pending: Pending, call: Call) -> None:
        """Record an accepted job. If its row can't be written, the job is polled all the same."""
        if self.run.keeper is not None:
            try:
                await self.run.keeper.record_job(self.unit, call, pending)
            except OSError as error:
                self.run.stop_storage(f"the ledger can't be written: {error.strerror}")


def log_outage(text: str, is_over: bool) -> None:
    """Log the begin or the end of an outage."""
    _log.warning("%s", text)


@attrs.define(eq=False)
class Scheduler:
    """Runs tasks. ``keeper`` is None if nothing is stored."""

    execute: Execute
    pace: AdaptiveConcurrency
    stops: StopConditions
    keeper: TaskRecorder | None = None
    is_reachable: Callable[[ImageTask], Awaitable[bool]] | None = None
    """Checks in an outage if a task's provider is back, for free."""
    on_outage: Callable[[str, bool], None] = log_outage
    """Receives a text at the begin of an outage and at its end, and True for the end."""
    failure: Exception | None = None
    """The error of the source of tasks; images in flight were waited for."""
    _retries: deque[ImageTask] = attrs.field(factory=deque[ImageTask])
    """Tasks that could not be sent, while an outage is waited out."""
    _extras: dict[str, int] = attrs.field(factory=dict[str, int])
    """The first free index for extra images, by id."""
    _dispatching: asyncio.Task[None] | None = None
    _is_cancelled: bool = False
    _outage_since: float | None = None
    """The monotonic time of the first request that could not be sent; None if the provider answers."""
    _outage_reason: str = ""
    _outage_of: str = "the provider"

    async def outcomes(self, units: AsyncIterator[ImageTask | Outcome]) -> AsyncGenerator[Outcome]:
        """Yield each outcome as it comes. Leaving early cancels and records images in flight.

        A slot is released when its outcome is consumed, so a slow consumer applies backpressure.
        """
        through: FinishedQueue = asyncio.Queue()
        dispatching = self._dispatching = asyncio.create_task(self._dispatch(units, through))
        # None also after an error: otherwise the loop below would wait for ever
        dispatching.add_done_callback(lambda _: through.put_nowait(None))
        try:
            while (group := await through.get()) is not None:
                try:
                    for outcome in group:
                        yield outcome
                finally:
                    self.pace.release()
        finally:
            dispatching.cancel()
            await asyncio.gather(dispatching, return_exceptions=True)
        if not self._is_cancelled:
            dispatching.result()

    def stop(self, reason: str, kind: StopReason = "interrupted", cause: ImpastoError | None = None) -> None:
        """Request no further image."""
        if kind == "interrupted" and self._outage_since is not None:
            reason = f"{reason} while {self._outage_of} could not be reached: {self._outage_reason}"
        self.stops.stop(reason, kind, cause)
        self.pace.wake()

    def stop_storage(self, reason: str) -> None:
        """Request no further image, since nothing can be stored."""
        self.stop(reason, "storage", StorageError(reason))

    def note_outage(self, address: str | None, error: NotSent) -> None:
        """Report an outage once: that of the provider at an address, or of the client's state."""
        if self._outage_since is None and self.stops.reason is None:
            self._outage_since = time.monotonic()
            reason = self._outage_reason = error.message.removesuffix("; nothing was sent").removesuffix(", try again")
            self._outage_of = "the provider" if address is not None else "the state"
            text = f"can't reach {address}: {reason}" if address is not None else reason
            self.on_outage(f"{text}; trying again for up to {OUTAGE_SECONDS / 60:g} minutes", False)

    @property
    def is_stopped_in_outage(self) -> bool:
        """True if the run was stopped while the provider could not be reached."""
        return self._outage_since is not None and self.stops.reason is not None

    def _note_answer(self, call: _RecordedCall) -> None:
        """Report the end of an outage. An answer to an earlier request does not end it."""
        if self._outage_since is not None and call.last_request > self._outage_since:
            self._outage_since = None
            what = call.account.base_url if self._outage_of == "the provider" else self._outage_of
            self.on_outage(f"{what} can be reached again", True)

    def cancel(self) -> None:
        """Abandon images in flight and record that; ``outcomes`` ends."""
        self._is_cancelled = True
        if self._dispatching is not None:
            self._dispatching.cancel()

    async def _dispatch(self, units: AsyncIterator[ImageTask | Outcome], through: FinishedQueue) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                unit = self._retries.popleft() if self._retries else await self._next(units)
                if isinstance(unit, Outcome):  # known already: it only takes its turn
                    await self.pace.acquire(self.stops)
                    through.put_nowait([unit])
                elif unit is not None:
                    await self.pace.acquire(self.stops)
                    if self.pace.is_outage and not await self._is_provider_back(unit):
                        self._retries.appendleft(unit)
                        self.pace.release()
                        continue
                    if not self.stops.try_reserve(unit):  # after the slot: the price of a waiting task is not reserved
                        self.pace.release()
                        return
                    group.create_task(self._run_task(unit, through))
                elif self.pace.in_flight:  # one of them may come back as a retry
                    await self.pace.changed()
                else:
                    return

    async def _next(self, units: AsyncIterator[ImageTask | Outcome]) -> ImageTask | Outcome | None:
        """Return the next task, or None after the last one."""
        if self.failure is not None:
            return None
        try:
            return await anext(units, None)
        except Exception as error:  # noqa: BLE001 - the caller's own iterator may raise anything; it must not cancel paid calls
            self.failure = error
            return None

    async def _run_task(self, unit: ImageTask, through: FinishedQueue) -> None:
        work = _TaskRun(self, unit)
        try:
            with ExitStack() as resources:
                await self._attempt(work, resources, through)
        finally:
            work.call = None  # each holds the other, and the call its answer: hundreds would wait for the collector

    async def _attempt(self, work: _TaskRun, resources: ExitStack, through: FinishedQueue) -> None:
        unit, is_answered = work.unit, True
        try:
            result = await self.execute(unit, partial(_RecordedCall, work), resources)
            ends = [*outcomes_of_result(unit, result)]
            ends += extras(unit, result, partial(self._free_index, unit, len(surplus(unit, result))))
        except TakenByAnotherHost:
            self.stops.release(unit)
            self.pace.release()
            return
        except ImpastoError as error:
            ends = [(image, outcome_of_error(image, error)) for image in unit.images]
            is_answered = isinstance(error, ResponseError)
        except asyncio.CancelledError:
            if self.keeper is not None and work.call is not None:
                for image in unit.images:
                    self.keeper.record_cancelled(image, work.call)
            raise
        if is_answered and work.call is not None:
            self._note_answer(work.call)
        settled = await asyncio.gather(*(self._settle(*each) for each in ends))
        if self._is_retried(settled[0]):  # its row says "again": if the process dies here, the next run requests it
            self.stops.release(unit)
            self._retries.append(unit)
            self.pace.release()
            return
        self.stops.settle(unit, *settled)
        if work.call is not None and any(each.state == "done" for each in settled):
            self.pace.on_success(unit.model, time.monotonic() - work.call.began)
        through.put_nowait(settled)

    async def _settle(self, unit: ImageTask, outcome: Outcome) -> Outcome:
        """Store an outcome; somewhere else if the folder can't be written."""
        if self.keeper is None:
            return outcome
        try:
            return await self.keeper.store_result(unit, outcome)
        except OSError as error:
            self.stop_storage(f"the folder can't be written: {error.strerror or error}")
            return await self.keeper.save_elsewhere(unit, outcome)

    def _free_index(self, unit: ImageTask, number: int) -> int:
        """Return the first free index of the task's row, and reserve so many."""
        first = self._extras.get(unit.id, unit.n)
        if self.keeper is not None:
            first = max(first, self.keeper.free_index(unit))
        self._extras[unit.id] = first + number
        return first

    def _is_retried(self, outcome: Outcome) -> bool:
        """Return True if it is requested again in this run: nothing was sent, as the provider can't be reached."""
        error = outcome.error
        if not isinstance(error, NotSent) or outcome.state != "refused" or not error.retryable or self.stops.reason:
            return False
        self.note_outage(None, error)  # the provider's own outages were noted before
        return self._waits_on(error.message)

    def _waits_on(self, reason: str) -> bool:
        """Return True if an unreachable provider is waited for."""
        if self.pace.on_unreachable():
            return True
        self.stop(f"{self._outage_of} can't be reached: {reason}", "unreachable")
        return False

    async def _is_provider_back(self, unit: ImageTask) -> bool:
        """Return True if an image may be requested in an outage, or none will be any more."""
        self.stops.check_time()
        if self.stops.reason is not None or self.is_reachable is None or await self.is_reachable(unit):
            return True
        return not self._waits_on(self._outage_reason or "it does not respond")
