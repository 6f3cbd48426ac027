"""A call's deadline ends what it should, and nothing else."""

import asyncio
import gc
import weakref
from unittest.mock import Mock

import pytest

from impasto.deadline import Deadline, DeadlineScheduler


async def test_ends_a_wait_with_a_timeout_and_leaves_the_task_fit_to_go_on():
    deadline = Deadline(DeadlineScheduler())
    with pytest.raises(TimeoutError), deadline:
        deadline.start(0.01)
        await asyncio.sleep(30)
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_does_nothing_before_it_is_started():
    deadline = Deadline(DeadlineScheduler())
    with deadline:
        await asyncio.sleep(0.02)
    assert deadline.remaining() == float("inf")


async def test_only_the_first_start_counts():
    deadline = Deadline(DeadlineScheduler())
    with pytest.raises(TimeoutError), deadline:
        deadline.start(0.01)
        deadline.start(30)
        await asyncio.sleep(30)


async def test_never_fires_once_it_was_left():
    deadline = Deadline(DeadlineScheduler())
    with deadline:
        deadline.start(0.01)
    await asyncio.sleep(0.05)


async def test_a_cancellation_from_outside_stays_one_even_when_the_time_ends_too():
    began = asyncio.Event()

    async def call() -> None:
        deadline = Deadline(DeadlineScheduler())
        with deadline:
            deadline.start(0.01)
            began.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(0.02)  # a slow clean-up: the time ends meanwhile
                raise

    task = asyncio.create_task(call())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_works_inside_another_time_out():
    outer = asyncio.timeout(0.01)
    with pytest.raises(TimeoutError):
        async with outer:
            deadline = Deadline(DeadlineScheduler())
            with deadline:
                deadline.start(30)
                await asyncio.sleep(30)
    assert outer.expired()


async def test_an_error_of_the_call_is_not_replaced():
    deadline = Deadline(DeadlineScheduler())
    with pytest.raises(KeyError), deadline:
        deadline.start(30)
        raise KeyError("its own")


async def test_one_watch_ends_each_call_at_its_own_time_whatever_their_order():
    watch = DeadlineScheduler()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def call(seconds: float) -> tuple[float, float]:
        deadline = Deadline(watch)
        with pytest.raises(TimeoutError), deadline:
            deadline.start(seconds)
            await asyncio.sleep(30)
        return seconds, loop.time() - began

    took = await asyncio.gather(*map(call, (0.2, 0.05, 0.1)))
    assert all(seconds <= spent < seconds + 5 for seconds, spent in took)


async def test_calls_that_end_in_time_make_no_timers_of_their_own(monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    timers = Mock(wraps=loop.call_at)
    monkeypatch.setattr(loop, "call_at", timers)
    watch = DeadlineScheduler()
    for _ in range(100):
        deadline = Deadline(watch)
        with deadline:
            deadline.start(30)
    assert timers.call_count == 1


async def test_a_watch_keeps_nothing_of_a_call_that_is_over():
    watch = DeadlineScheduler()
    deadline = Deadline(watch)
    with deadline:
        deadline.start(30)
    reference = weakref.ref(deadline)
    del deadline
    gc.collect()
    assert reference() is None


async def test_a_watch_sets_its_timer_for_the_earliest_end_only(monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    timers = Mock(wraps=loop.call_at)
    monkeypatch.setattr(loop, "call_at", timers)
    watch = DeadlineScheduler()
    ends = []

    async def call(seconds: float) -> None:
        deadline = Deadline(watch)
        with deadline:
            deadline.start(seconds)
            ends.append(deadline.ends_at)
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(call(seconds)) for seconds in (60, 90, 30)]
    await asyncio.sleep(0)
    assert [args.args[0] for args in timers.call_args_list] == [ends[0], ends[2]], "the one of 90 s needs none"
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_after_one_call_ended_the_timer_is_set_for_the_next_end_and_no_more(monkeypatch: pytest.MonkeyPatch):
    loop = asyncio.get_running_loop()
    watch = DeadlineScheduler()
    first = Deadline(watch)
    with pytest.raises(TimeoutError), Deadline(watch), first:
        first.start(0.01)
        await asyncio.sleep(30)
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert not [handle for handle in timers if "Watch._look" in repr(handle)], "nothing is left to watch"


async def test_every_call_ends_when_its_watch_is_closed_and_knows_why():
    watch = DeadlineScheduler()
    began = asyncio.Semaphore(0)

    async def call(*, starts: bool) -> Deadline:
        deadline = Deadline(watch)
        with pytest.raises(TimeoutError), deadline:
            if starts:
                deadline.start(60)
            began.release()
            await asyncio.Event().wait()
        return deadline

    tasks = [asyncio.create_task(call(starts=starts)) for starts in (True, False)]
    for _ in tasks:
        await began.acquire()
    watch.close()
    watch.close()
    for deadline in await asyncio.gather(*tasks):
        assert (deadline.is_closed, deadline.is_over) == (True, True)


async def test_a_call_whose_time_is_over_was_not_closed():
    deadline = Deadline(DeadlineScheduler())
    assert (deadline.is_closed, deadline.is_over) == (False, False)
    with pytest.raises(TimeoutError), deadline:
        deadline.start(0.01)
        assert 0 < deadline.remaining() <= 0.01
        assert not deadline.is_cancelled()
        await asyncio.sleep(30)
    assert (deadline.is_closed, deadline.is_over) == (False, True)
    assert deadline.remaining() <= 0
