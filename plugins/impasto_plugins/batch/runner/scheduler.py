"""The run: pictures side by side, each kept as it comes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, ClassVar

import attrs

from impasto import Call, Client, ImpastoError, NotSent, Pending, RateLimited, Result, StorageError, WireRequest
from impasto.ext import StopReason
from impasto_plugins.batch.classification import extras, failed, made
from impasto_plugins.batch.ledger.recorder import Keeper
from impasto_plugins.batch.tasks import Outcome, Unit

from .concurrency import Pace
from .limits import Stops

Through = asyncio.Queue[list[Outcome] | None]
"""Outcomes of units that are through: of each the images that came for it; None after the last."""

Ask = Callable[[Unit, Callable[..., Call]], Awaitable[Result]]
"""Asks for a unit's picture; what it is given makes the calls, see ``Client.invoke``. Raises ImpastoError."""


def of_client(client: Client) -> Ask:
    """Asks as a unit says, by this client."""

    async def ask(unit: Unit, call: Callable[..., Call]) -> Result:
        if unit.job is not None:
            return await client.resume(unit.model, unit.job, timeout=unit.timeout)
        assert unit.request is not None  # noqa: S101 - what is no job is a request
        return await client.invoke(
            unit.model, unit.request, timeout=unit.timeout, base_model=unit.base_model, call=call
        )

    return ask


class _Recorded(Call):
    """A unit's call, which tells the keeper and the pace what happens."""

    is_recorded: ClassVar[bool] = True

    def __init__(self, work: _Work, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.work = work
        work.call = self
        self.began = 0.0

    async def sending(self, wire: WireRequest) -> None:
        await self.work.sending(wire, self)

    def attempt(self) -> None:
        super().attempt()
        self.began = time.monotonic()

    def refused(self, error: ImpastoError) -> None:
        super().refused(error)
        if isinstance(error, RateLimited):
            self.work.run.pace.refused()

    def accepted(self, pending: Pending) -> None:
        super().accepted(pending)
        self.work.accepted(pending, self)


@attrs.define(eq=False)
class _Work:
    """One unit while it runs."""

    run: Run
    unit: Unit
    call: _Recorded | None = None
    recorded: asyncio.Future[None] | None = None
    """The row that says that a job was taken on."""

    async def sending(self, wire: WireRequest, call: Call) -> None:
        keeper = self.run.keeper
        if wire.method == "POST" and keeper is not None:
            await keeper.begin(self.unit, call)
        elif self.recorded is not None:
            await self.run.wrote(self.recorded)

    def accepted(self, pending: Pending, call: Call) -> None:
        if self.run.keeper is not None:
            self.recorded = self.run.keeper.accepted(self.unit, call, pending)


@attrs.define(eq=False)
class Run:
    """Runs units. ``keeper`` is None where nothing is kept."""

    ask: Ask
    pace: Pace
    stops: Stops
    keeper: Keeper | None = None
    is_reached: Callable[[Unit], Awaitable[bool]] | None = None
    """Finds out, in an outage, whether a unit's provider is back, at no cost."""
    failure: Exception | None = None
    """The error of the source of units: what was in flight then was waited for."""
    _again: deque[Unit] = attrs.field(factory=deque[Unit])
    """Those of which nothing could be sent, for as long as an outage is waited out."""
    _extras: dict[str, int] = attrs.field(factory=dict[str, int])
    """By id, the first index that is free for images which were not asked for."""
    _dispatching: asyncio.Task[None] | None = None
    _is_cancelled: bool = False

    async def outcomes(self, units: AsyncIterator[Unit | Outcome]) -> AsyncGenerator[Outcome]:
        """What comes of each, as it comes. Leaving it early cancels what is in flight, and keeps a record of that.

        A place is free again when its outcome was taken: whoever takes them slowly is sent no more than that.
        """
        through: Through = asyncio.Queue()
        dispatching = self._dispatching = asyncio.create_task(self._dispatch(units, through))
        dispatching.add_done_callback(lambda _: through.put_nowait(None))
        try:
            while (came := await through.get()) is not None:
                try:
                    for outcome in came:
                        yield outcome
                finally:
                    self.pace.leave()
        finally:
            dispatching.cancel()
            await asyncio.gather(dispatching, return_exceptions=True)
        if not self._is_cancelled:
            dispatching.result()

    def stop(self, reason: str, kind: StopReason = "interrupted", cause: ImpastoError | None = None) -> None:
        """Request no further image."""
        self.stops.stop(reason, kind, cause)
        self.pace.wake()

    def stop_storage(self, reason: str) -> None:
        """Request no further image, as nothing can be stored."""
        self.stop(reason, "storage", StorageError(reason))

    def cancel(self) -> None:
        """Gives up what is in flight, and keeps a record of that; ``outcomes`` ends."""
        self._is_cancelled = True
        if self._dispatching is not None:
            self._dispatching.cancel()

    async def wrote(self, row: asyncio.Future[None]) -> None:
        """Waits for a row of a job that runs. Where it can't be written the job is polled all the same."""
        try:
            await asyncio.shield(row)
        except OSError as error:
            self.stop_storage(f"the ledger can't be written: {error.strerror}")

    async def _dispatch(self, units: AsyncIterator[Unit | Outcome], through: Through) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                unit = self._again.popleft() if self._again else await self._next(units)
                if isinstance(unit, Outcome):  # known already: it only takes its turn
                    await self.pace.turn(self.stops)
                    through.put_nowait([unit])
                elif unit is not None:
                    await self.pace.turn(self.stops)
                    if self.pace.is_outage and not await self._is_back(unit):
                        self._again.appendleft(unit)
                        self.pace.leave()
                        continue
                    if not self.stops.admits(unit):
                        self.pace.leave()
                        return
                    group.create_task(self._one(unit, through))
                elif self.pace.in_flight:
                    await self.pace.changed()
                else:
                    return

    async def _next(self, units: AsyncIterator[Unit | Outcome]) -> Unit | Outcome | None:
        """Return the next unit, None after the last one."""
        if self.failure is not None:
            return None
        try:
            return await anext(units, None)
        except Exception as error:  # noqa: BLE001 - the caller's own iterator may raise anything; it must not cancel paid calls
            self.failure = error
            return None

    async def _one(self, unit: Unit, through: Through) -> None:
        work = _Work(self, unit)
        try:
            await self._made(work, through)
        finally:
            work.call = None  # each holds the other, and the call its answer: hundreds would wait for the collector

    async def _made(self, work: _Work, through: Through) -> None:
        unit, more = work.unit, list[tuple[Unit, Outcome]]()
        try:
            result = await self.ask(unit, partial(_Recorded, work))
            outcome = made(unit, result)
            more = list(extras(unit, result, partial(self._free_index, unit, len(result.artifacts) - 1)))
        except ImpastoError as error:
            outcome = failed(unit, error)
        except asyncio.CancelledError:
            if self.keeper is not None and work.call is not None:
                self.keeper.abandon(unit, work.call)
            raise
        came = await asyncio.gather(*(self._settled(*each) for each in ((unit, outcome), *more)))
        if self._comes_again(came[0]):
            self.stops.release(unit)
            self._again.append(unit)
            self.pace.leave()
            return
        self.stops.settle(unit, *came)
        if came[0].state == "done" and work.call is not None:
            self.pace.answered(unit.model, time.monotonic() - work.call.began)
        through.put_nowait(came)

    async def _settled(self, unit: Unit, outcome: Outcome) -> Outcome:
        """Keep what came; somewhere else if the folder can't be written."""
        if self.keeper is None:
            return outcome
        try:
            return await self.keeper.settle(unit, outcome)
        except OSError as error:
            self.stop_storage(f"the folder can't be written: {error.strerror or error}")
            return await self.keeper.spare(unit, outcome)

    def _free_index(self, unit: Unit, number: int) -> int:
        """Return the first of so many indices that no image of the unit's row has, and keep them for this one."""
        first = self._extras.get(unit.id, unit.n)
        if self.keeper is not None:
            first = max(first, self.keeper.free_index(unit))
        self._extras[unit.id] = first + number
        return first

    def _comes_again(self, outcome: Outcome) -> bool:
        """Whether it is asked for again in this run: where the provider can't be reached nothing was sent at all."""
        error = outcome.error
        if not isinstance(error, NotSent) or outcome.state != "refused" or not error.retryable or self.stops.reason:
            return False
        return self._waits_on(error.message)

    def _waits_on(self, said: str) -> bool:
        """The provider could not be reached. Whether it is waited for."""
        if self.pace.unreachable():
            return True
        self.stop(f"the provider can't be reached: {said}", "unreachable")
        return False

    async def _is_back(self, unit: Unit) -> bool:
        """Whether a picture may be asked for in an outage, or none will be any more."""
        self.stops.check_time()
        if self.stops.reason is not None or self.is_reached is None or await self.is_reached(unit):
            return True
        return not self._waits_on("it does not answer")
