"""Looking after callers: how often, for how long, and what is held until it is known if an answer was read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web
from openai._constants import INITIAL_RETRY_DELAY

from impasto.ext import StoredCall
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.http.delivery import LINGER_SECONDS, Delivery
from impasto_plugins.gateway.idempotency import coordinator as module, session
from impasto_plugins.gateway.idempotency.calls_in_flight import FoundCall
from impasto_plugins.gateway.idempotency.coordinator import (
    MAX_TRACKED_DELIVERIES,
    WATCH_SECONDS,
    IdempotencyCoordinator,
)
from impasto_plugins.gateway.idempotency.in_flight import SLOTS, InFlightEntry, SlotState
from tests.sleep import replace_sleep

from .conftest import CONTENT, DONE, KEY, Worker, dead_worker, find, identity


async def test_an_sdks_soonest_retry_comes_after_the_second_look() -> None:
    """The SDK waits half a second, less a quarter of it; by then a caller who left is marked, here or elsewhere."""
    assert 3 * WATCH_SECONDS < INITIAL_RETRY_DELAY * 0.75
    assert LINGER_SECONDS + WATCH_SECONDS < INITIAL_RETRY_DELAY * 0.75


def test_answers_that_may_not_be_read_leave_room_for_calls() -> None:
    assert MAX_TRACKED_DELIVERIES <= SLOTS // 2


class Clock:
    """Time that passes while somebody sleeps, and only then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for each in (module, session):
            monkeypatch.setattr(each, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.sleeps: list[float] = []
        sleep = asyncio.sleep

        async def passes(seconds: float) -> None:
            self.sleeps.append(seconds)
            self.now += seconds
            await sleep(0)

        replace_sleep(monkeypatch, passes)


async def running(worker: Worker) -> InFlightEntry:
    worker.in_flight.begin(CONTENT, None, has_key=False)
    (entry,) = await find(worker, worker.in_flight, CONTENT)
    return entry


async def test_whoever_waits_for_a_call_looks_every_second_if_its_worker_lives(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, clock = await running(worker), Clock(monkeypatch)
    await worker.repeats.wait_for(records, identity())
    assert clock.now == pytest.approx(1001, abs=2 * WATCH_SECONDS)
    assert len(clock.sleeps) > 10  # between these it sees that the call is over


async def test_whoever_waits_for_a_call_sees_at_once_that_it_is_over(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    flight = worker.in_flight.begin(CONTENT, None, has_key=False)
    (entry,) = await find(worker, worker.in_flight, CONTENT)
    worker.in_flight.finish(flight)
    clock = Clock(monkeypatch)
    await worker.repeats.wait_for(entry, identity())
    assert clock.now == 1000


async def test_whoever_joins_a_call_looks_for_it_once_a_second(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look goes to the disk, which all workers share."""
    over, looks = asyncio.Event(), 0

    async def waits(row: StoredCall | None) -> CallOutcome:
        await over.wait()
        return DONE

    first = asyncio.create_task(worker.ask(identity(key=KEY), waits))
    while not worker.in_flight._calls:
        await asyncio.sleep(0.001)
    clock, look = Clock(monkeypatch), worker.repeats.find_running

    async def counted(row: StoredCall) -> FoundCall | None:
        nonlocal looks
        looks += 1
        return await look(row)

    monkeypatch.setattr(worker.repeats, "find_running", counted)
    second = asyncio.create_task(worker.ask(identity(key=KEY)))
    while clock.now < 1003:
        await asyncio.wait([second], timeout=0.001)
    assert looks <= clock.now - 1000 + 2
    over.set()
    assert (await first, await second) == ((b"made", False), (b"made", True))


async def test_whoever_leaves_waits_no_longer(worker: Worker) -> None:
    with pytest.raises(ConnectionResetError):
        await worker.repeats.wait_for(await running(worker), identity(left=True))


class Answered:
    """A delivery that nobody decides until it is given up."""

    def __init__(self, repeats: IdempotencyCoordinator, clock: Clock) -> None:
        self.given_up_at: float | None = None
        self.looks = 0
        self._repeats, self._clock = repeats, clock
        repeats._deliveries[cast("Delivery", self)] = None

    def update(self, now: float) -> None:
        self.looks += 1

    def give_up(self) -> None:
        self.given_up_at = self._clock.now
        del self._repeats._deliveries[cast("Delivery", self)]


async def test_a_gateway_that_stops_gives_callers_time_to_read_their_answers(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    answered = Answered(worker.repeats, clock)
    await worker.repeats.flush_deliveries()
    assert answered.given_up_at is not None
    assert LINGER_SECONDS <= answered.given_up_at - 1000 < LINGER_SECONDS + 2 * WATCH_SECONDS
    assert answered.looks >= LINGER_SECONDS / WATCH_SECONDS


async def test_a_gateway_that_stops_waits_for_no_answer_that_was_read(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    await worker.repeats.flush_deliveries()
    assert clock.now == 1000


async def test_the_oldest_of_too_many_unread_answers_counts_as_not_read_and_no_other(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TRACKED_DELIVERIES", 2)
    sizes: list[int] = []
    monkeypatch.setattr(module, "track_delivery", _Delivery)
    for number in range(4):
        worker.repeats.track_delivery(identity().request, lambda read: sizes.append(number))  # noqa: B023 - called while it is so
        assert len(sizes) == max(0, number - 1)
    for delivery in tuple(worker.repeats._deliveries):
        delivery.give_up()


class _Delivery:
    is_uncertain = False

    def __init__(self, request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> None:
        self.give_up = lambda: decided(False)

    def update(self, now: float) -> None:
        pass


@pytest.mark.parametrize("read", [True, False])
async def test_the_images_of_an_answer_are_released_when_it_was_read_or_stored(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, read: bool
) -> None:
    decide: list[Callable[[bool], object]] = []

    class Followed(_Delivery):
        def __init__(self, request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> None:
            super().__init__(request, decided, gave_up=gave_up)
            decide.append(decided)

    monkeypatch.setattr(module, "track_delivery", Followed)
    other, holds, released = await dead_worker(worker), ExitStack(), list[str]()
    holds.callback(released.append, "all")
    flight = worker.in_flight.begin(CONTENT, None, has_key=False)
    worker.repeats.await_delivery(identity(count=0), flight, DONE, holds, gave_up=False)
    assert flight.delivery is not None
    decide[0](read)
    if not read:
        assert released == []  # it is needed until it is on the disk
        assert [entry.state for entry in await find(worker, other, CONTENT)] == [
            SlotState.ABANDONED
        ]  # another worker's retry waits for it
    await worker.repeats.flush_deliveries()
    assert released == ["all"]
    assert not worker.in_flight._calls
    assert not worker.repeats._writing
    await worker.in_flight.run(other.close)
    assert await worker.ask(identity(count=1)) == (b"made", not read)


@pytest.mark.parametrize(("seconds", "gave_up"), [(8.9, False), (9.1, True)])
async def test_an_answer_in_the_last_tenth_of_its_callers_time_out_may_have_come_too_late(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, seconds: float, gave_up: bool
) -> None:
    clock, messages = Clock(monkeypatch), list[bool]()

    async def takes(row: StoredCall | None) -> CallOutcome:
        clock.now += seconds
        return DONE

    def follow(request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> None:
        messages.append(gave_up)

    monkeypatch.setattr(module, "track_delivery", follow)
    asks = identity(count=0)
    cast("SimpleNamespace", asks.request).headers = {"x-stainless-read-timeout": "10"}
    await worker.ask(asks, takes)
    assert messages == [gave_up]


@pytest.mark.parametrize("count", [None, 0])
async def test_an_answer_is_followed_if_its_caller_may_ask_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    """Only SDKs ask again by themselves; of others only the calls are kept whose callers hung up."""
    followed: list[bool] = []

    def follow(request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> None:
        followed.append(gave_up)

    monkeypatch.setattr(module, "track_delivery", follow)
    await worker.ask(identity(count=count))
    assert len(followed) == (0 if count is None else 1)
    await worker.ask(identity(count=count, left=True))
    assert len(followed) == (1 if count is None else 2)
    await worker.repeats.flush_deliveries()


async def test_a_watch_looks_twenty_times_a_second(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who left is marked before an SDK's retry can come to another worker."""
    clock, looks = Clock(monkeypatch), list[float]()
    monkeypatch.setattr(worker.repeats, "_check_callers", lambda: looks.append(clock.now))
    watching = asyncio.create_task(worker.repeats.watch())
    while len(looks) < 20:
        await asyncio.wait([watching], timeout=0.001)
    watching.cancel()
    assert looks[19] - looks[0] == pytest.approx(19 * 0.05)
