"""Requests that come again: joined to the call that runs, or answered with what it came to, never paid for twice.

With an ``Idempotency-Key`` a request is that key's for 24 hours. An SDK's retry looks for an earlier attempt whose
caller left; each attempt's result is given to one retry. What is proved to have cost nothing runs again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import attrs

from .calls import Done
from .data import UNWRITABLE, Data
from .errors import SERVER, Failure
from .flights import Flight, Flights, Seen, State, has_left
from .identity import KEY_HEADER, Identity
from .kept import Kept, Row, unknown

WATCH_SECONDS = 0.05
"""How often callers are looked after, who may have left."""

LINGER_SECONDS = 0.2
"""How long an SDK may take to hang up on an answer that came as its patience ended; its retry comes later than that."""

_LOOK_AGAIN_SECONDS = 1.0
"""How often whoever waits for another worker's call looks whether that one lives."""

_log = logging.getLogger("impasto.gateway")

Make = Callable[[], Awaitable[Done]]


@attrs.frozen(eq=False)
class _Answered:
    """A call whose answer is out, and may not have been read."""

    until: float
    identity: Identity
    flight: Flight
    done: Done
    holds: ExitStack


class Repeats:
    """One worker's knowledge of what runs and what came of it."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.kept = Kept(data)
        self.flights = Flights(data.folder / "workers")
        self._answered: deque[_Answered] = deque()

    async def open(self) -> None:
        """Begins, and takes over what dead workers left."""
        try:
            await self._data.in_thread(self.flights.open)
            await self.kept.take_over(self.flights)
        except UNWRITABLE as error:
            _log.error("what runs can't be written down for other workers and the next start: %s", error)

    async def aclose(self) -> None:
        """What still runs is for the next to take over."""
        await self.settle(time.monotonic() + LINGER_SECONDS)
        await self._data.in_thread(self.flights.close)

    async def watch(self) -> None:
        """Looks after callers who may have left, for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self.flights.mark()
            await self.settle(time.monotonic())

    async def settle(self, now: float) -> None:
        """Keeps what was answered to callers who hung up on it, and forgets the rest."""
        while self._answered and self._answered[0].until <= now:
            each = self._answered.popleft()
            with each.holds:
                if has_left(each.identity.request):
                    await self.keep(each.identity, each.flight, each.done)
                else:
                    self.flights.remove(each.flight)
            self.flights.mark()

    def part(self, identity: Identity) -> Part:
        """A request's part: ``async with`` it until it is answered."""
        return Part(self, identity)

    def linger(self, identity: Identity, flight: Flight, done: Done, holds: ExitStack) -> None:
        """The answer is out; ``settle`` decides."""
        self._answered.append(_Answered(time.monotonic() + LINGER_SECONDS, identity, flight, done, holds))

    async def keep(self, identity: Identity, flight: Flight, outcome: Done | Failure) -> None:
        """Keeps the outcome of a call that is over for its retry."""
        if await self.kept.keep(identity.content, outcome):
            self.flights.remove(flight)
        else:
            self.flights.lose(flight)

    async def earlier(self, identity: Identity, count: int) -> Row | None:
        """What an earlier attempt of an SDK's call came to, once it is over; None where nothing was charged.

        Raises Failure, and what is in UNWRITABLE.
        """
        second_look = False
        while True:
            await self.kept.take_over(self.flights)
            self.flights.mark()
            seen = await self._data.in_thread(lambda: self.flights.find(identity.content))
            if (row := await self.kept.claim(identity.content, count)) is not None:  # after that look: none is between
                return row
            states = {each.state for each in seen}
            if State.LEFT in states:
                await self.wait(next(each for each in seen if each.state == State.LEFT), identity)
            elif State.LOST in states:
                raise unknown()
            elif State.RUNNING in states and not second_look:
                second_look = True
                await asyncio.sleep(2 * WATCH_SECONDS)  # another worker is about to see that its caller left
            else:
                return await self.kept.failed(identity.content)

    async def wait(self, seen: Seen, identity: Identity) -> None:
        """Waits until a call may be over. Raises ConnectionError where whoever waits leaves."""
        until = time.monotonic() + _LOOK_AGAIN_SECONDS
        while not seen.ended() and time.monotonic() < until:
            if has_left(identity.request):
                raise ConnectionResetError("the caller left")
            await asyncio.sleep(WATCH_SECONDS / 2)

    async def by_key(self, identity: Identity, key: bytes) -> tuple[Row, Flight | None]:
        """The row of an Idempotency-Key: that of a call which is over, or a new one with its flight.

        Raises Failure, and what is in UNWRITABLE.
        """
        lost = False
        while True:
            flight = self.flights.add(key, None, keyed=True)  # before its row: one that runs without is lost
            begun = False
            try:
                row, begun = await self.kept.begin(identity.owner, key, identity.content, self.flights.name)
            finally:
                if not begun:
                    self.flights.remove(flight)
            if begun:
                return row, flight
            if row.content != identity.content:
                said = f"{KEY_HEADER}: this key belongs to another request; use a new one for each"
                raise Failure(422, said, code="idempotency_key_reused", param=KEY_HEADER, should_retry=False)
            if row.state != "running":
                return row, None
            if lost:
                raise unknown()
            await self.kept.take_over(self.flights)
            seen = await self._data.in_thread(lambda: self.flights.find(key))
            flying = [each for each in seen if not each.ended()]
            lost = not flying  # unless it was just over: then its row says so now
            if flying:
                await self.wait(flying[0], identity)


class Part:
    """One request's part in it."""

    def __init__(self, repeats: Repeats, identity: Identity) -> None:
        self._repeats = repeats
        self._identity = identity
        self._flight: Flight | None = None
        self._row: Row | None = None
        self._outcome: Done | Failure | None = None
        self.replayed = False
        self.holds = ExitStack()
        """What the outcome needs for as long as it may have to be kept."""

    async def outcome(self, make: Make) -> Done:
        """The outcome of the call, which is made here if it is to be made. Raises Failure."""
        identity, repeats = self._identity, self._repeats
        try:
            if identity.key is not None:
                self._row, self._flight = await repeats.by_key(identity, identity.key)
            elif identity.count:
                self._row = await repeats.earlier(identity, identity.count)
        except ConnectionError:  # the caller left
            raise
        except UNWRITABLE as error:
            _log.error("a repeated request can't be looked up: %s", error)
            said = "the gateway can't promise to do this once, as it can't write it down; nothing was sent"
            raise Failure(503, said, SERVER, "overloaded", retry_after=5, should_retry=True) from None
        if self._row is not None and self._flight is None:
            self.replayed = True
            return await repeats.kept.load(self._row)
        if self._flight is None:
            self._flight = repeats.flights.add(identity.content, identity.request, keyed=False)
        return await self._made(make)

    async def _made(self, make: Make) -> Done:
        try:
            self._outcome = done = await make()
        except Failure as failure:
            self._outcome = failure
            raise
        finally:
            if self._row is not None and self._outcome is not None:
                await self._repeats.kept.finish(self._row, self._outcome)
        return done

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.holds:
            await self._end(gone=has_left(self._identity.request) or not (error is None or isinstance(error, Failure)))

    async def _end(self, *, gone: bool) -> None:
        """The request is answered, or its caller is gone."""
        identity, repeats, flight, outcome = self._identity, self._repeats, self._flight, self._outcome
        if flight is None:
            if gone and self._row is not None and identity.key is None and identity.count:
                await repeats.kept.unclaim(self._row, identity.count)
        elif outcome is None:
            repeats.flights.lose(flight)  # the process ends, or has a bug
        elif identity.key is not None or (isinstance(outcome, Failure) and outcome.free):
            repeats.flights.remove(flight)
        elif isinstance(outcome, Failure) or gone:
            await repeats.keep(identity, flight, outcome)
        elif identity.count is None:
            repeats.flights.remove(flight)
        else:
            repeats.linger(identity, flight, outcome, self.holds.pop_all())
