"""A call's deadline ends what it should, and nothing else."""

import asyncio

import pytest

from impasto.deadline import Deadline


async def test_ends_a_wait_with_a_timeout_and_leaves_the_task_fit_to_go_on():
    deadline = Deadline()
    with pytest.raises(TimeoutError), deadline:
        deadline.start(0.01)
        await asyncio.sleep(30)
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_does_nothing_before_it_is_started():
    deadline = Deadline()
    with deadline:
        await asyncio.sleep(0.02)
    assert deadline.remaining() == float("inf")


async def test_only_the_first_start_counts():
    deadline = Deadline()
    with pytest.raises(TimeoutError), deadline:
        deadline.start(0.01)
        deadline.start(30)
        await asyncio.sleep(30)


async def test_never_fires_once_it_was_left():
    deadline = Deadline()
    with deadline:
        deadline.start(0.01)
    await asyncio.sleep(0.05)


async def test_a_cancellation_from_outside_stays_one_even_when_the_time_ends_too():
    began = asyncio.Event()

    async def call() -> None:
        deadline = Deadline()
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
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01) as outer:
            deadline = Deadline()
            with deadline:
                deadline.start(30)
                await asyncio.sleep(30)
    assert outer.expired()


async def test_an_error_of_the_call_is_not_replaced():
    deadline = Deadline()
    with pytest.raises(KeyError), deadline:
        deadline.start(30)
        raise KeyError("its own")
