"""Rate windows of several processes: never more in a window than the limit, whoever dies, and whatever is slow."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys

import pytest

from impasto import RateLimit
from impasto.ext import WorkerEnded
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.state.postgres.conftest import StoreFactory
from tests.plugins.state.postgres.test_migrations import execute

LIMIT = RateLimit(3, 60.0)
SLACK = 2.5
numbers = itertools.count(10)


async def begin(store: PostgresState, permit: int, *, worker: str = "one", limit: RateLimit = LIMIT) -> float:
    return await store.rates.begin("key", permit, worker, limit, SLACK)


@pytest.fixture
async def store(factory: StoreFactory) -> PostgresState:
    """A store with two workers."""
    store = await factory()
    await store.workers.register("one", 60)
    await store.workers.register("two", 60)
    return store


async def test_a_permit_holds_its_place_until_its_request_has_arrived_and_then_for_a_window(
    store: PostgresState,
) -> None:
    assert [await begin(store, permit) for permit in (1, 2, 3)] == [0, 0, 0]
    assert await begin(store, 4) == SLACK, "nobody knows when a place will be free"
    for permits in ([1], [1, 2], [2, 3]):
        await store.rates.count(permits)
        assert 59 < await begin(store, 4) <= 60
    assert 59 < await begin(store, 4, worker="two") <= 60
    assert await store.rates.begin("other", 5, "two", LIMIT, SLACK) == 0


async def test_a_permit_that_was_released_leaves_its_place_at_once(store: PostgresState) -> None:
    assert [await begin(store, permit) for permit in (1, 2, 3)] == [0, 0, 0]
    await store.rates.release("key", [2])
    await store.rates.count([2])
    assert await begin(store, 4) == 0


async def test_a_repeated_permit_is_one(store: PostgresState) -> None:
    assert [await begin(store, permit) for permit in (1, 1, 1, 2, 3)] == [0] * 5
    assert await begin(store, 4) > 0


async def test_an_arrival_is_forgotten_after_the_longest_window(store: PostgresState, postgres: str) -> None:
    assert [await begin(store, permit) for permit in (1, 2, 3)] == [0, 0, 0]
    await store.rates.count([1, 2, 3])
    await execute(postgres, "UPDATE {s}.arrivals SET at = at - 60")
    assert [await begin(store, permit) for permit in (4, 5, 6)] == [0, 0, 0]
    assert await begin(store, 7) > 0


async def test_the_requests_of_a_worker_whose_lease_ended_count_as_arrived_then(
    store: PostgresState, postgres: str
) -> None:
    assert [await begin(store, permit) for permit in (1, 2, 3)] == [0, 0, 0]
    await execute(postgres, "UPDATE {s}.workers SET expires = expires - 80 WHERE id = 'one'")
    assert 35 < await begin(store, 4, worker="two") <= 40, "60 seconds after it ended, 20 seconds ago"


async def test_a_worker_whose_lease_ended_begins_nothing_until_it_is_renewed(
    store: PostgresState, postgres: str
) -> None:
    await execute(postgres, "UPDATE {s}.workers SET expires = expires - 80 WHERE id = 'one'")
    with pytest.raises(WorkerEnded):
        await begin(store, 1)
    assert await store.workers.renew("one", 60) is True
    assert await begin(store, 1) == 0


async def test_a_pause_stops_a_key_and_is_never_made_shorter(store: PostgresState) -> None:
    await store.rates.pause("key", 30)
    await store.rates.pause("key", 5)
    assert 25 < await begin(store, 1) <= 30
    assert await store.rates.begin("other", 2, "one", LIMIT, SLACK) == 0


@pytest.mark.parametrize("column", ["started = started - 9", "timeline = 'another'"])
async def test_after_the_database_started_again_all_keys_wait_for_one_whole_window(
    store: PostgresState, postgres: str, column: str
) -> None:
    assert await begin(store, 1) == 0
    await execute(postgres, f"UPDATE {{s}}.servers SET {column}")
    seconds = 100_000.0  # longer than the server of the tests runs: a window that its start is in
    for key in ("key", "new"):
        wait = await store.rates.begin(key, next(numbers), "one", RateLimit(3, seconds), SLACK)
        assert seconds - 3_600 < wait <= seconds + SLACK


SEND = """
import asyncio, random, secrets, sys, time
from impasto import RateLimit
from impasto_plugins.state.postgres import PostgresState

async def main():
    store, worker, limit = PostgresState(sys.argv[1]), secrets.token_hex(8), RateLimit(20, 1.0)
    await store.open()
    await store.workers.register(worker, 60)

    async def send():
        for _ in range(10):
            permit = secrets.randbits(63)
            while (wait := await store.rates.begin("key", permit, worker, limit, 0.14)) > 0:
                await asyncio.sleep(wait)
            await asyncio.sleep(random.random() * 0.02)  # on its way
            print(time.monotonic(), flush=True)  # the provider counts it
            await asyncio.sleep(random.random() * 0.05)
            await store.rates.count([permit])

    await asyncio.gather(*(send() for _ in range(4)))
    await store.aclose()

asyncio.run(main())
"""


async def test_two_processes_never_pass_a_window_as_the_provider_counts(store: PostgresState, postgres: str) -> None:
    command = [sys.executable, "-c", SEND, postgres]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    outputs = await asyncio.gather(*(each.communicate() for each in processes))
    times = sorted(float(line) for output, _ in outputs for line in output.split())
    assert len(times) == 80, outputs
    assert all(later - earlier >= 1.0 for earlier, later in zip(times, times[20:], strict=False))
