"""Requests that come again: joined to the call that runs, or answered with what it came to, never paid for twice.

With an ``Idempotency-Key`` a request is that key's for 24 hours. An SDK's retry looks for an earlier attempt whose
caller left; each attempt's result is given to one retry. What is proved to have cost nothing runs again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Self

import attrs
from aiohttp import web

from impasto_plugins.gateway.calls.execution import Done
from impasto_plugins.gateway.calls.queue_timeout import patience_of
from impasto_plugins.gateway.errors import SERVER, Failure, unknown
from impasto_plugins.gateway.http.connection import follow, has_left
from impasto_plugins.gateway.http.delivery import LINGER_SECONDS, Delivery
from impasto_plugins.gateway.http.memory_budget import Share
from impasto_plugins.gateway.storage.database import UNWRITABLE, Data

from .fingerprint import KEY_HEADER, Identity
from .in_flight import SLOTS, Flight, Flights, Seen, State
from .store import KEY_SECONDS, Kept, Row, new_id

WATCH_SECONDS = 0.05
"""How often callers are looked after, who may have left."""

MOST_FOLLOWED = SLOTS // 4
"""How many answers may be followed until they are read; one more, and the oldest counts as not read."""

_NEAR_THE_END = 0.9
"""From which part of a caller's time-out on an answer may come too late for it."""

_LOOK_AGAIN_SECONDS = 1.0
"""How often whoever waits for another worker's call looks whether that one lives."""

_log = logging.getLogger("impasto.gateway")

Make = Callable[[Row | None], Awaitable[Done]]
"""Makes a call, which has a row where it is written down. Raises Failure."""

Begun = asyncio.Future[tuple[Row, bool]]
"""A job's row, and whether that was there before."""


@attrs.frozen
class About:
    """What a row tells of its call besides: the model as its caller named it."""

    model: str
    response_format: str


class Repeats:
    """One worker's knowledge of what runs and what came of it. ``resume`` fetches what dead workers had begun."""

    def __init__(self, data: Data, resume: Callable[[Row, Flight], object]) -> None:
        self._data = data
        self._resume = resume
        self.kept = Kept(data)
        self.flights = Flights(data.folder / "workers")
        self._followed: dict[Delivery, None] = {}
        self._keeping: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begins, and takes over what dead workers left."""
        try:
            await self._data.in_thread(self.flights.open)
            await self.take_over()
        except UNWRITABLE as error:
            _log.error("what runs can't be written down for other workers and the next start: %s", error)

    async def aclose(self) -> None:
        """What still runs is for the next to take over."""
        await self.settle()
        await self._data.in_thread(self.flights.close)

    async def watch(self) -> None:
        """Looks after callers who may have left, for ever."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._look()

    async def settle(self) -> None:
        """Wait until every answer that was written is known to be read, or is kept."""
        end = time.monotonic() + LINGER_SECONDS + WATCH_SECONDS
        while self._followed and time.monotonic() < end:
            await asyncio.sleep(WATCH_SECONDS / 2)
            self._look()
        for delivery in tuple(self._followed):
            delivery.give_up()
        while self._keeping:
            await asyncio.wait(self._keeping)

    def _look(self) -> None:
        now = time.monotonic()
        for delivery in tuple(self._followed):
            delivery.look(now)
        self.flights.mark()

    def part(self, identity: Identity, share: Share) -> Part:
        """A request's part: ``async with`` it until it is answered."""
        return Part(self, identity, share)

    def follow(
        self, request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool = False
    ) -> Delivery | None:
        """Call ``decided`` when it is known if the answer was read that was just written. Returns None if it is lost.

        See Delivery.
        """

        def settle(read: bool) -> None:
            if delivery is not None:
                self._followed.pop(delivery, None)
            decided(read)

        delivery = follow(request, settle, gave_up=gave_up)
        if delivery is None:
            decided(False)
            return None
        self._followed[delivery] = None
        if len(self._followed) > MOST_FOLLOWED:
            next(iter(self._followed)).give_up()
        return delivery

    def linger(self, identity: Identity, flight: Flight, done: Done, holds: ExitStack, *, gave_up: bool) -> None:
        """Hold the outcome of a call whose answer is written until it was read, or else keep it for the retry."""

        async def keep() -> None:
            with holds:
                await self.keep(identity, flight, done)

        def decided(read: bool) -> None:
            if read:
                self.flights.remove(flight)
                holds.close()
            else:
                self.flights.mark_left(flight)
                task = asyncio.create_task(keep())
                self._keeping.add(task)
                task.add_done_callback(self._keeping.discard)

        flight.delivery = self.follow(identity.request, decided, gave_up=gave_up)

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
            await self.take_over()
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

    async def begin(self, identity: Identity, about: About, *, wait: bool) -> tuple[Row, Flight | None]:
        """Writes a call down, as its key's where it has one, and gives its row and its flight.

        Where its key has a call already, gives that one's row alone; with ``wait``, when that is over. Raises Failure,
        and what is in UNWRITABLE.
        """
        lost = ""
        while True:
            row, flight = await self._written(self._new_row(identity, about), join=identity.key is not None)
            if flight is not None:
                return row, flight
            if row.content != identity.content:
                said = f"{KEY_HEADER}: this key belongs to another request; use a new one for each"
                raise Failure(422, said, code="idempotency_key_reused", param=KEY_HEADER, should_retry=False)
            if row.state != "running" or not wait:
                return row, None
            if lost == row.id:
                raise unknown()
            if (seen := await self.look(row)) is None:
                lost = row.id
                await asyncio.sleep(2 * WATCH_SECONDS)  # its row may be written just now
            else:
                await self.wait(seen, identity)

    async def _written(self, new: Row, *, join: bool) -> tuple[Row, Flight | None]:
        flight = self.flights.add(bytes.fromhex(new.id), None, keyed=True)  # first: a row without one is lost
        begun = False
        try:
            row = await self.kept.begin(new, join=join)
            begun = row is new
        finally:
            if not begun:
                self.flights.remove(flight)
        return row, flight if begun else None

    async def look(self, row: Row) -> Seen | None:
        """The call of a row, where it runs."""
        await self.take_over()
        seen = await self._data.in_thread(lambda: self.flights.find(bytes.fromhex(row.id)))
        return next((each for each in seen if not each.ended()), None)

    async def carry(
        self, row: Row, flight: Flight, make: Callable[[], Awaitable[Done]], *, forget: Callable[[], bool]
    ) -> Done:
        """Makes a call that was begun, and writes down what came of it. Raises Failure.

        ``forget``: whether nobody asks for it where it cost nothing.
        """
        outcome: Done | Failure
        try:
            outcome = await make()
        except Failure as failure:
            outcome = failure
        except BaseException:  # the process ends, or has a bug
            self.flights.lose(flight)
            raise
        if await self.kept.finish(row, outcome, forget=forget()):
            self.flights.remove(flight)
        else:
            self.flights.lose(flight)
        if isinstance(outcome, Failure):
            raise outcome
        return outcome

    async def take_over(self) -> None:
        """Takes over what dead workers left. Raises what is in UNWRITABLE."""
        for row in await self.kept.take_over(self.flights):
            self._resume(row, self.flights.add(bytes.fromhex(row.id), None, keyed=True))

    def _new_row(self, identity: Identity, about: About) -> Row:
        now, id = self._data.clock(), new_id()
        return Row(
            id=id,
            owner=identity.owner,
            identity=identity.key or (identity.content if identity.count is not None else b""),
            content=identity.content,
            model=about.model,
            response_format=about.response_format,
            worker=self.flights.name,
            given=identity.count or 0,
            made=now,
            expires=now + KEY_SECONDS,
        )


class Part:
    """One request's part in it."""

    def __init__(self, repeats: Repeats, identity: Identity, share: Share) -> None:
        self._repeats = repeats
        self._identity = identity
        self._share = share
        self._flight: Flight | None = None
        self._row: Row | None = None
        self._outcome: Done | Failure | None = None
        self._replayed = False
        self._seconds = 0.0
        """How long the call took."""
        self.holds = ExitStack()
        """What the outcome needs for as long as it may have to be kept."""

    async def outcome(self, make: Make, about: About) -> tuple[Done, Row | None]:
        """The outcome of the call, which is made here if it is to be made, or that of a row. Raises Failure."""
        identity, repeats = self._identity, self._repeats
        flight: Flight | None = None
        if identity.key is not None or identity.count:
            with promised():
                if identity.key is not None:
                    self._row, flight = await repeats.begin(identity, about, wait=True)
                elif identity.count:
                    self._row = await repeats.earlier(identity, identity.count)
        if self._row is not None:
            if flight is not None:
                carried = repeats.carry(self._row, flight, partial(make, self._row), forget=lambda: True)
                return await carried, None
            self._replayed = True
            return await repeats.kept.load(self._row), self._row
        self._flight = repeats.flights.add(identity.content, identity.request, keyed=False)
        began = time.monotonic()
        try:
            self._outcome = await make(None)
        except Failure as failure:
            self._outcome = failure
            raise
        self._seconds = time.monotonic() - began
        return self._outcome, None

    async def job(self, make: Callable[[Row], Awaitable[Done]], about: About, begun: Begun) -> None:
        """Makes the call for whoever asks for it later, or tells ``begun`` which one it was already.

        ``make`` tells ``begun`` when all is well. Raises Failure where it failed before that.
        """
        identity, repeats = self._identity, self._repeats
        row: Row | None = None
        flight: Flight | None = None
        with promised():
            if identity.key is None and identity.count:
                row = await repeats.kept.claim(identity.content, identity.count, begun=True)
            if row is None:
                row, flight = await repeats.begin(identity, about, wait=False)
        if flight is None:
            begun.set_result((row, True))
            return
        try:
            await repeats.carry(row, flight, partial(make, row), forget=lambda: not begun.done())
        except Failure:  # it is written down
            if not begun.done():
                raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.holds:
            await self._end(broken=not (error is None or isinstance(error, Failure)))

    async def _end(self, *, broken: bool) -> None:
        """The request is answered, or its caller is gone. ``broken``: the answer is not whole."""
        identity, repeats, flight, outcome = self._identity, self._repeats, self._flight, self._outcome
        left = broken or has_left(identity.request)
        if flight is None:
            if left and self._replayed and self._row is not None and identity.key is None and identity.count:
                await repeats.kept.unclaim(self._row, identity.count)
        elif outcome is None:
            repeats.flights.lose(flight)  # the process ends, or has a bug
        elif isinstance(outcome, Failure):
            if outcome.free:
                repeats.flights.remove(flight)
            else:
                await repeats.keep(identity, flight, outcome)
        elif broken:
            await repeats.keep(identity, flight, outcome)
        elif left or identity.count is not None:
            gave_up = self._seconds > patience_of(identity.request.headers, math.inf) * _NEAR_THE_END
            self.holds.enter_context(self._share.hand_over())  # the answer is in memory for longer than the request
            repeats.linger(identity, flight, outcome, self.holds.pop_all(), gave_up=gave_up)
        else:
            repeats.flights.remove(flight)  # no SDK: nothing will ask again by itself


@contextmanager
def promised(what: str = "written down") -> Iterator[None]:
    """Around what must be read and written before a call is made."""
    try:
        yield
    except ConnectionError:  # the caller left
        raise
    except UNWRITABLE as error:
        _log.error("a call can't be %s: %s", what, error)
        said = f"the call can't be {what} now, so that it would be made once; nothing was sent, try again"
        raise Failure(503, said, SERVER, "overloaded", retry_after=5, should_retry=True) from None
