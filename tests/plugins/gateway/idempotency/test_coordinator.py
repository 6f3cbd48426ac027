"""Callers, workers and the disk, without a gateway around them: one payment for each call, and nothing leaks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs
import pytest

from impasto.ext import StoredCall
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.errors import SERVER, APIError, charge_unknown_error
from impasto_plugins.gateway.http.memory_budget import MemoryReservation
from impasto_plugins.gateway.idempotency.in_flight import SLOTS, InFlightCall
from impasto_plugins.gateway.idempotency.session import IdempotencySession
from tests.sleep import replace_sleep

from .conftest import ABOUT, CONTENT, DONE, KEY, Worker, dead_worker, find, identity
from .test_in_flight import dies


@pytest.mark.parametrize("left", [False, True], ids=["waits", "left"])
async def test_a_retry_pays_nothing_for_a_call_whose_worker_was_killed(worker: Worker, left: bool) -> None:
    """The workers that live look for dead ones before they look for the call."""
    dead = await dead_worker(worker)
    flight = dead.begin(CONTENT, None, has_key=False)
    if left:
        dead.mark_abandoned(flight)
    dies(dead)
    assert await worker.ask(identity(count=1)) == ("charge_unknown", False)
    assert worker.calls == 0


async def test_a_key_whose_worker_was_killed_is_not_waited_for(worker: Worker) -> None:
    dead = await dead_worker(worker)
    await worker.ask(identity(key=KEY))
    (id,) = await worker.data.write(lambda db: db.execute("SELECT id FROM calls").fetchone())
    await worker.data.write(lambda db: db.execute("UPDATE calls SET state = 'running', worker = ?", (dead.name,)))
    dead.begin(bytes.fromhex(id), None, has_key=True)
    dies(dead)
    assert await worker.ask(identity(key=KEY)) == ("charge_unknown", False)
    assert worker.calls == 1


async def test_a_key_whose_worker_left_no_trace_is_not_waited_for(worker: Worker) -> None:
    await worker.ask(identity(key=KEY))
    await worker.data.write(lambda db: db.execute("UPDATE calls SET state = 'running', worker = 'gone'"))
    assert await worker.ask(identity(key=KEY)) == ("charge_unknown", False)
    assert worker.calls == 1


async def test_a_job_that_its_provider_took_on_is_fetched_by_the_worker_that_finds_it(worker: Worker) -> None:
    dead = await dead_worker(worker)
    row, _ = await worker.begin(identity())
    set_back = "UPDATE calls SET state = 'running', jobs = '{}', worker = ?"
    await worker.data.write(lambda db: db.execute(set_back, (dead.name,)))
    dies(dead)
    await worker.repeats.reclaim_dead_workers()
    assert worker.resumed == [row.id]
    assert await find(worker, worker.in_flight, bytes.fromhex(row.id))
    await worker.repeats.reclaim_dead_workers()
    assert worker.resumed == [row.id]


async def test_a_bug_in_a_call_keeps_nobody_waiting_and_pays_once(worker: Worker) -> None:
    async def breaks(row: StoredCall | None) -> CallOutcome:
        raise RuntimeError("a bug, after the request left")

    for each in (identity(key=KEY), identity(count=0)):
        with pytest.raises(RuntimeError):
            await worker.ask(each, breaks)
    for each in (identity(key=KEY), identity(count=1)):
        assert await worker.ask(each) == ("charge_unknown", False)
    assert worker.calls == 0


async def test_whoever_is_answered_leaves_no_call_behind(worker: Worker) -> None:
    for each in (identity(key=KEY), identity(key=KEY), identity()):
        assert (await worker.ask(each))[0] == b"made"
    assert not worker.in_flight._calls
    assert len(worker.in_flight._free) == SLOTS
    assert worker.flow.used_bytes == 0


async def test_a_failure_that_cost_nothing_leaves_nothing_behind(worker: Worker) -> None:
    async def refuses(row: StoredCall | None) -> CallOutcome:
        raise APIError(503, "no", SERVER, "provider_fault")

    for each in (identity(key=KEY), identity(count=0), identity()):
        assert await worker.ask(each, refuses) == ("provider_fault", False)
    assert not worker.in_flight._calls
    assert await worker.data.write(lambda db: db.execute("SELECT COUNT(*) FROM calls").fetchone()) == (0,)


async def test_a_retry_that_left_before_it_was_given_its_result_takes_it_from_nobody(worker: Worker) -> None:
    await worker.repeats.store_outcome(identity(count=0), worker.in_flight.begin(CONTENT, None, has_key=False), DONE)
    for left in (True, False):
        assert await worker.ask(identity(count=1, left=left)) == (b"made", True)
    assert await worker.ask(identity(count=1)) == (b"made", False)
    assert worker.calls == 1


async def test_a_replay_of_a_key_is_for_all_who_ask_again(worker: Worker) -> None:
    await worker.ask(identity(key=KEY))
    for left in (True, False, False):
        assert await worker.ask(identity(key=KEY, count=1, left=left)) == (b"made", True)
    assert worker.calls == 1


async def test_a_result_is_a_later_retrys_again_if_the_first_one_lost_it(worker: Worker) -> None:
    """A later retry says by its higher count that the caller did not read what an earlier one was given."""
    await worker.repeats.store_outcome(identity(count=0), worker.in_flight.begin(CONTENT, None, has_key=False), DONE)
    assert await worker.ask(identity(count=1)) == (b"made", True)
    assert await worker.ask(identity(count=2)) == (b"made", True)
    assert worker.calls == 0


async def test_two_retries_of_one_count_are_two_jobs(worker: Worker) -> None:
    """Both callers' first attempts were refused, so each of these begins its own."""
    first, _ = await worker.begin(identity(count=1))
    second, was_there = await worker.begin(identity(count=1))
    assert first.id != second.id
    assert not was_there
    third, was_there = await worker.begin(identity(count=2))
    assert was_there
    assert third.id in (first.id, second.id)
    assert worker.calls == 2


async def test_a_retry_is_given_the_job_that_still_runs(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer with its id was lost."""
    began, over = asyncio.Event(), asyncio.Event()

    async def waits(row: StoredCall | None) -> CallOutcome:
        began.set()
        await over.wait()
        return DONE

    monkeypatch.setattr(worker, "make", waits)
    running = asyncio.create_task(worker.begin(identity(count=0)))
    await began.wait()
    retried = asyncio.create_task(worker.begin(identity(count=1)))
    row, was_there = await asyncio.wait_for(retried, 10)
    over.set()
    assert (was_there, row.id) == (True, (await running)[0].id)


async def test_a_retry_goes_on_while_another_callers_call_of_the_same_content_still_runs(worker: Worker) -> None:
    """Its own first attempt was refused: the one that runs has a caller who waits for it."""
    over = asyncio.Event()

    async def waits(row: StoredCall | None) -> CallOutcome:
        await over.wait()
        return DONE

    running = asyncio.create_task(worker.ask(identity(count=0), waits))
    while not worker.in_flight._calls:
        await asyncio.sleep(0)
    assert await worker.ask(identity(count=1)) == (b"made", False)
    over.set()
    assert await running == (b"made", False)


@pytest.mark.parametrize("is_kept", [True, False])
async def test_an_outcome_that_can_not_be_stored_is_lost_and_not_paid_for_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    if not is_kept:
        (worker.data.folder / "outcomes").touch()  # a file where the folder should be
        worker.repeats.store.hurry()
    await worker.repeats.store_outcome(identity(count=0), flight_of(worker), DONE)
    assert not worker.in_flight._calls
    assert await worker.ask(identity(count=1)) == ((b"made", True) if is_kept else ("charge_unknown", False))
    assert worker.calls == 0


def flight_of(worker: Worker) -> InFlightCall:
    return worker.in_flight.begin(CONTENT, None, has_key=False)


@pytest.mark.parametrize("free", [True, False])
async def test_a_failure_is_kept_for_the_retry_if_it_may_have_been_charged(worker: Worker, free: bool) -> None:
    async def fails(row: StoredCall | None) -> CallOutcome:
        worker.calls += 1
        raise APIError(503, "no", SERVER, "provider_fault") if free else charge_unknown_error()

    await worker.ask(identity(count=0), fails)
    assert (await worker.ask(identity(count=1), fails))[0] == ("provider_fault" if free else "charge_unknown")
    assert worker.calls == (2 if free else 1)


async def test_a_row_that_can_not_be_written_is_tried_again_after_some_seconds(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    worker = Worker(tmp_path / "file" / "data")
    with pytest.raises(APIError) as refused:
        async with IdempotencySession(worker.repeats, identity(key=KEY), MemoryReservation(worker.flow)) as part:
            await part.get_outcome(worker.make, ABOUT)
    headers = refused.value.to_response().headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("5", "true")
    assert refused.value.not_charged
    assert (worker.calls, worker.in_flight._calls) == (0, {})
    await worker.data.aclose()


@pytest.mark.parametrize("count", [None, 0, 3])
async def test_a_key_and_a_job_hold_for_exactly_a_day(worker: Worker, count: int | None) -> None:
    worker.data.clock = lambda: 1_790_856_000.0
    await worker.ask(identity(key=KEY, count=count))
    await worker.begin(identity(count=count))
    work = worker.data.write(lambda db: db.execute("SELECT created, expires, attempt FROM calls").fetchall())
    assert await work == [(1_790_856_000.0, 1_790_942_400.0, count or 0)] * 2


async def test_a_running_call_without_a_worker_gets_a_moment_to_write_its_end(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may end between two looks: only a second look without it says that its outcome was lost."""
    row, call = await worker.repeats.claim_or_join(identity(key=KEY), ABOUT, wait=False)
    assert call is not None
    worker.in_flight.finish(call)
    states = ["running"]

    async def insert_or_join(new_row: StoredCall, *, join: bool) -> StoredCall:
        return attrs.evolve(row, state=states[-1])

    async def ends_meanwhile(seconds: float) -> None:
        states.append("done")

    monkeypatch.setattr(worker.repeats.store.calls, "insert_or_join", insert_or_join)
    replace_sleep(monkeypatch, ends_meanwhile)
    found, call = await worker.repeats.claim_or_join(identity(key=KEY), ABOUT, wait=True)
    assert (found.state, call) == ("done", None)
