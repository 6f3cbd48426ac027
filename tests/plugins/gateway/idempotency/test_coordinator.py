"""Callers, workers and the disk, without a gateway around them: one payment for each call, and nothing leaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web
from openai._constants import INITIAL_RETRY_DELAY

from impasto import Artifact
from impasto_plugins.gateway.calls.execution import Done
from impasto_plugins.gateway.errors import SERVER, Failure, unknown
from impasto_plugins.gateway.http.delivery import LINGER_SECONDS, Delivery
from impasto_plugins.gateway.http.memory_budget import Flow
from impasto_plugins.gateway.idempotency import coordinator as module
from impasto_plugins.gateway.idempotency.coordinator import MOST_FOLLOWED, WATCH_SECONDS, About, Repeats
from impasto_plugins.gateway.idempotency.fingerprint import Identity
from impasto_plugins.gateway.idempotency.in_flight import SLOTS, Flight, Flights, Seen, State
from impasto_plugins.gateway.idempotency.store import Row
from impasto_plugins.gateway.storage.database import Data

from .test_in_flight import dies

OWNER, CONTENT, KEY = (letter * 32 for letter in (b"o", b"c", b"k"))
ABOUT = About("m", "b64_json")
DONE = Done(artifacts=(Artifact(data=b"made", media_type="image/png"),), warnings=(), lost=(), cost=None, created=0)


class Worker:
    """A worker of a gateway: its promises, and how often it asked its provider."""

    def __init__(self, folder: Path) -> None:
        self.data = Data(folder)
        self.resumed: list[str] = []
        self.repeats = Repeats(self.data, lambda row, flight: self.resumed.append(row.id))
        self.made = 0
        self.flow = Flow(1 << 30)

    async def make(self, row: Row | None) -> Done:
        self.made += 1
        return DONE

    async def ask(
        self, identity: Identity, make: Callable[[Row | None], Awaitable[Done]] | None = None
    ) -> tuple[bytes | str | None, bool]:
        """Return what a caller gets, an image or the code of an error, and True if an earlier call made it."""
        try:
            async with asyncio.timeout(60), self.repeats.part(identity, self.flow.share()) as part:
                done, row = await part.outcome(make or self.make, ABOUT)
                return done.artifacts[0].data, row is not None
        except Failure as failure:
            return failure.code, False

    async def begin(self, identity: Identity) -> tuple[Row, bool]:
        """Return a job's row, and True if it was there before."""
        begun: asyncio.Future[tuple[Row, bool]] = asyncio.get_running_loop().create_future()

        async def make(row: Row) -> Done:
            begun.set_result((row, False))
            return await self.make(row)

        async with self.repeats.part(identity, self.flow.share()) as part:
            await part.job(make, ABOUT, begun)
        return await begun


def identity(*, key: bytes | None = None, count: int | None = None, left: bool = False) -> Identity:
    transport = None if left else SimpleNamespace(is_closing=lambda: False)
    request = cast("web.BaseRequest", SimpleNamespace(transport=transport, protocol=None, headers={}))
    return Identity(request=request, owner=OWNER, content=CONTENT, key=key, count=count)


Hire = Callable[[], Awaitable[Worker]]


@pytest.fixture
async def hire(tmp_path: Path) -> AsyncIterator[Hire]:
    workers: list[Worker] = []

    async def hire() -> Worker:
        workers.append(Worker(tmp_path))
        await workers[-1].data.open()
        await workers[-1].repeats.open()
        return workers[-1]

    yield hire
    for worker in workers:
        await worker.repeats.aclose()
        await worker.data.aclose()


@pytest.fixture
async def worker(hire: Hire) -> Worker:
    return await hire()


async def dead_worker(worker: Worker) -> Flights:
    """Return the table of a worker that begins beside this one, and is killed with ``dies``."""
    dead = Flights(worker.repeats.flights._folder)
    await worker.data.in_thread(dead.open)
    return dead


@pytest.mark.parametrize("left", [False, True], ids=["waits", "left"])
async def test_a_retry_pays_nothing_for_a_call_whose_worker_was_killed(worker: Worker, left: bool) -> None:
    """The workers that live look for dead ones before they look for the call."""
    dead = await dead_worker(worker)
    flight = dead.add(CONTENT, None, keyed=False)
    if left:
        dead.mark_left(flight)
    dies(dead)
    assert await worker.ask(identity(count=1)) == ("charge_unknown", False)
    assert worker.made == 0


async def test_a_key_whose_worker_was_killed_is_not_waited_for(worker: Worker) -> None:
    dead = await dead_worker(worker)
    await worker.ask(identity(key=KEY))
    (id,) = await worker.data.write(lambda db: db.execute("SELECT id FROM outcomes").fetchone())
    await worker.data.write(lambda db: db.execute("UPDATE outcomes SET state = 'running', worker = ?", (dead.name,)))
    dead.add(bytes.fromhex(id), None, keyed=True)
    dies(dead)
    assert await worker.ask(identity(key=KEY)) == ("charge_unknown", False)
    assert worker.made == 1


async def test_a_key_whose_worker_left_no_trace_is_not_waited_for(worker: Worker) -> None:
    await worker.ask(identity(key=KEY))
    await worker.data.write(lambda db: db.execute("UPDATE outcomes SET state = 'running', worker = 'gone'"))
    assert await worker.ask(identity(key=KEY)) == ("charge_unknown", False)
    assert worker.made == 1


async def test_a_job_that_its_provider_took_on_is_fetched_by_the_worker_that_finds_it(worker: Worker) -> None:
    dead = await dead_worker(worker)
    row, _ = await worker.begin(identity())
    set_back = "UPDATE outcomes SET state = 'running', accepted = '{}', worker = ?"
    await worker.data.write(lambda db: db.execute(set_back, (dead.name,)))
    dies(dead)
    await worker.repeats.take_over()
    assert worker.resumed == [row.id]
    assert await find(worker, worker.repeats.flights, bytes.fromhex(row.id))
    await worker.repeats.take_over()
    assert worker.resumed == [row.id]


async def test_a_bug_in_a_call_keeps_nobody_waiting_and_pays_once(worker: Worker) -> None:
    async def breaks(row: Row | None) -> Done:
        raise RuntimeError("a bug, after the request left")

    for each in (identity(key=KEY), identity(count=0)):
        with pytest.raises(RuntimeError):
            await worker.ask(each, breaks)
    for each in (identity(key=KEY), identity(count=1)):
        assert await worker.ask(each) == ("charge_unknown", False)
    assert worker.made == 0


async def test_whoever_is_answered_leaves_no_call_behind(worker: Worker) -> None:
    for each in (identity(key=KEY), identity(key=KEY), identity()):
        assert (await worker.ask(each))[0] == b"made"
    assert not worker.repeats.flights._flying
    assert len(worker.repeats.flights._free) == SLOTS
    assert worker.flow.bytes == 0


async def test_a_failure_that_cost_nothing_leaves_nothing_behind(worker: Worker) -> None:
    async def refuses(row: Row | None) -> Done:
        raise Failure(503, "no", SERVER, "provider_fault")

    for each in (identity(key=KEY), identity(count=0), identity()):
        assert await worker.ask(each, refuses) == ("provider_fault", False)
    assert not worker.repeats.flights._flying
    assert await worker.data.write(lambda db: db.execute("SELECT COUNT(*) FROM outcomes").fetchone()) == (0,)


async def test_a_retry_that_left_before_it_was_given_its_result_takes_it_from_nobody(worker: Worker) -> None:
    await worker.repeats.keep(identity(count=0), worker.repeats.flights.add(CONTENT, None, keyed=False), DONE)
    for left in (True, False):
        assert await worker.ask(identity(count=1, left=left)) == (b"made", True)
    assert await worker.ask(identity(count=1)) == (b"made", False)
    assert worker.made == 1


async def test_a_replay_of_a_key_is_for_all_who_ask_again(worker: Worker) -> None:
    await worker.ask(identity(key=KEY))
    for left in (True, False, False):
        assert await worker.ask(identity(key=KEY, count=1, left=left)) == (b"made", True)
    assert worker.made == 1


async def test_a_result_is_a_later_retrys_again_if_the_first_one_lost_it(worker: Worker) -> None:
    """A later retry says by its higher count that the caller did not read what an earlier one was given."""
    await worker.repeats.keep(identity(count=0), worker.repeats.flights.add(CONTENT, None, keyed=False), DONE)
    assert await worker.ask(identity(count=1)) == (b"made", True)
    assert await worker.ask(identity(count=2)) == (b"made", True)
    assert worker.made == 0


async def test_two_retries_of_one_count_are_two_jobs(worker: Worker) -> None:
    """Both callers' first attempts were refused, so each of these begins its own."""
    first, _ = await worker.begin(identity(count=1))
    second, was_there = await worker.begin(identity(count=1))
    assert first.id != second.id
    assert not was_there
    third, was_there = await worker.begin(identity(count=2))
    assert was_there
    assert third.id in (first.id, second.id)
    assert worker.made == 2


async def test_a_retry_goes_on_while_another_callers_call_of_the_same_content_still_runs(worker: Worker) -> None:
    """Its own first attempt was refused: the one that runs has a caller who waits for it."""
    over = asyncio.Event()

    async def waits(row: Row | None) -> Done:
        await over.wait()
        return DONE

    running = asyncio.create_task(worker.ask(identity(count=0), waits))
    while not worker.repeats.flights._flying:
        await asyncio.sleep(0)
    assert await worker.ask(identity(count=1)) == (b"made", False)
    over.set()
    assert await running == (b"made", False)


async def test_an_sdks_soonest_retry_comes_after_the_second_look() -> None:
    """The SDK waits half a second, less a quarter of it; by then a caller who left is marked, here or elsewhere."""
    assert 3 * WATCH_SECONDS < INITIAL_RETRY_DELAY * 0.75
    assert LINGER_SECONDS + WATCH_SECONDS < INITIAL_RETRY_DELAY * 0.75


def test_answers_that_may_not_be_read_leave_room_for_calls() -> None:
    assert MOST_FOLLOWED <= SLOTS // 2


class Clock:
    """Time that passes while somebody sleeps, and only then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.sleeps: list[float] = []
        sleep = asyncio.sleep

        async def passes(seconds: float) -> None:
            self.sleeps.append(seconds)
            self.now += seconds
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", passes)


async def running(worker: Worker) -> Seen:
    worker.repeats.flights.add(CONTENT, None, keyed=False)
    (seen,) = await find(worker, worker.repeats.flights, CONTENT)
    return seen


async def find(worker: Worker, flights: Flights, identity: bytes) -> list[Seen]:
    return await worker.data.in_thread(lambda: flights.find(identity))


async def test_whoever_waits_for_a_call_looks_every_second_if_its_worker_lives(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, clock = await running(worker), Clock(monkeypatch)
    await worker.repeats.wait(seen, identity())
    assert clock.now == pytest.approx(1001, abs=2 * WATCH_SECONDS)
    assert len(clock.sleeps) > 10  # between these it sees that the call is over


async def test_whoever_waits_for_a_call_sees_at_once_that_it_is_over(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    flight = worker.repeats.flights.add(CONTENT, None, keyed=False)
    (seen,) = await find(worker, worker.repeats.flights, CONTENT)
    worker.repeats.flights.remove(flight)
    clock = Clock(monkeypatch)
    await worker.repeats.wait(seen, identity())
    assert clock.now == 1000


async def test_whoever_leaves_waits_no_longer(worker: Worker) -> None:
    with pytest.raises(ConnectionResetError):
        await worker.repeats.wait(await running(worker), identity(left=True))


class Answered:
    """A delivery that nobody decides until it is given up."""

    def __init__(self, repeats: Repeats, clock: Clock) -> None:
        self.given_up_at: float | None = None
        self.looks = 0
        self._repeats, self._clock = repeats, clock
        repeats._followed[cast("Delivery", self)] = None

    def look(self, now: float) -> None:
        self.looks += 1

    def give_up(self) -> None:
        self.given_up_at = self._clock.now
        del self._repeats._followed[cast("Delivery", self)]


async def test_a_gateway_that_stops_gives_callers_time_to_read_their_answers(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    answered = Answered(worker.repeats, clock)
    await worker.repeats.settle()
    assert answered.given_up_at is not None
    assert LINGER_SECONDS <= answered.given_up_at - 1000 < LINGER_SECONDS + 2 * WATCH_SECONDS
    assert answered.looks >= LINGER_SECONDS / WATCH_SECONDS


async def test_a_gateway_that_stops_waits_for_no_answer_that_was_read(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    await worker.repeats.settle()
    assert clock.now == 1000


async def test_the_oldest_of_too_many_unread_answers_counts_as_not_read_and_no_other(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_FOLLOWED", 2)
    unread: list[int] = []
    monkeypatch.setattr(module, "follow", _Delivery)
    for number in range(4):
        worker.repeats.follow(identity().request, lambda read: unread.append(number))  # noqa: B023 - called while it is so
        assert len(unread) == max(0, number - 1)
    for delivery in tuple(worker.repeats._followed):
        delivery.give_up()


class _Delivery:
    is_doubtful = False

    def __init__(self, request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> None:
        self.give_up = lambda: decided(False)

    def look(self, now: float) -> None:
        pass


@pytest.mark.parametrize("read", [True, False])
async def test_what_an_answer_holds_is_let_go_when_it_was_read_or_is_kept(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, read: bool
) -> None:
    decide: list[Callable[[bool], object]] = []

    class Followed(_Delivery):
        def __init__(self, request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> None:
            super().__init__(request, decided, gave_up=gave_up)
            decide.append(decided)

    monkeypatch.setattr(module, "follow", Followed)
    other, holds, released = await dead_worker(worker), ExitStack(), list[str]()
    holds.callback(released.append, "all")
    flight = worker.repeats.flights.add(CONTENT, None, keyed=False)
    worker.repeats.linger(identity(count=0), flight, DONE, holds, gave_up=False)
    assert flight.delivery is not None
    decide[0](read)
    if not read:
        assert released == []  # it is needed until it is on the disk
        assert [seen.state for seen in await find(worker, other, CONTENT)] == [
            State.LEFT
        ]  # another worker's retry waits for it
    await worker.repeats.settle()
    assert released == ["all"]
    assert not worker.repeats.flights._flying
    assert not worker.repeats._keeping
    await worker.data.in_thread(other.close)
    assert await worker.ask(identity(count=1)) == (b"made", not read)


@pytest.mark.parametrize("is_kept", [True, False])
async def test_what_can_not_be_kept_is_lost_and_not_paid_for_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    if not is_kept:
        (worker.data.folder / "pictures").touch()  # a file where the folder should be
    await worker.repeats.keep(identity(count=0), flight_of(worker), DONE)
    assert not worker.repeats.flights._flying
    assert await worker.ask(identity(count=1)) == ((b"made", True) if is_kept else ("charge_unknown", False))
    assert worker.made == 0


def flight_of(worker: Worker) -> Flight:
    return worker.repeats.flights.add(CONTENT, None, keyed=False)


@pytest.mark.parametrize("free", [True, False])
async def test_a_failure_is_kept_for_the_retry_if_it_may_have_been_charged(worker: Worker, free: bool) -> None:
    async def fails(row: Row | None) -> Done:
        worker.made += 1
        raise Failure(503, "no", SERVER, "provider_fault") if free else unknown()

    await worker.ask(identity(count=0), fails)
    assert (await worker.ask(identity(count=1), fails))[0] == ("provider_fault" if free else "charge_unknown")
    assert worker.made == (2 if free else 1)


@pytest.mark.parametrize(("seconds", "gave_up"), [(8.9, False), (9.1, True)])
async def test_an_answer_in_the_last_tenth_of_its_callers_time_out_may_have_come_too_late(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, seconds: float, gave_up: bool
) -> None:
    clock, said = Clock(monkeypatch), list[bool]()

    async def takes(row: Row | None) -> Done:
        clock.now += seconds
        return DONE

    def follow(request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> None:
        said.append(gave_up)

    monkeypatch.setattr(module, "follow", follow)
    asks = identity(count=0)
    cast("SimpleNamespace", asks.request).headers = {"x-stainless-read-timeout": "10"}
    await worker.ask(asks, takes)
    assert said == [gave_up]


@pytest.mark.parametrize("count", [None, 0])
async def test_an_answer_is_followed_if_its_caller_may_ask_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    """Only SDKs ask again by themselves; of others only the calls are kept whose callers hung up."""
    followed: list[bool] = []

    def follow(request: web.BaseRequest, decided: Callable[[bool], object], *, gave_up: bool) -> None:
        followed.append(gave_up)

    monkeypatch.setattr(module, "follow", follow)
    await worker.ask(identity(count=count))
    assert len(followed) == (0 if count is None else 1)
    await worker.ask(identity(count=count, left=True))
    assert len(followed) == (1 if count is None else 2)
    await worker.repeats.settle()


async def test_what_can_not_be_written_down_is_asked_for_again_after_some_seconds(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    worker = Worker(tmp_path / "file" / "data")
    with pytest.raises(Failure) as refused:
        async with worker.repeats.part(identity(key=KEY), worker.flow.share()) as part:
            await part.outcome(worker.make, ABOUT)
    headers = refused.value.response().headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("5", "true")
    assert refused.value.free
    assert (worker.made, worker.repeats.flights._flying) == (0, {})
    await worker.data.aclose()


async def test_a_watch_looks_twenty_times_a_second(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who left is marked before an SDK's retry can come to another worker."""
    clock, looks = Clock(monkeypatch), list[float]()
    monkeypatch.setattr(worker.repeats, "_look", lambda: looks.append(clock.now))
    watching = asyncio.create_task(worker.repeats.watch())
    while len(looks) < 20:
        await asyncio.wait([watching], timeout=0.001)
    watching.cancel()
    assert looks[19] - looks[0] == pytest.approx(19 * 0.05)


@pytest.mark.parametrize("count", [None, 0, 3])
async def test_a_key_and_a_job_hold_for_exactly_a_day(worker: Worker, count: int | None) -> None:
    worker.data.clock = lambda: 1_790_856_000.0
    await worker.ask(identity(key=KEY, count=count))
    await worker.begin(identity(count=count))
    work = worker.data.write(lambda db: db.execute("SELECT made, expires, given FROM outcomes").fetchall())
    assert await work == [(1_790_856_000.0, 1_790_942_400.0, count or 0)] * 2
