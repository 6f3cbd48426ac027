"""Workers, their leases, and their calls in flight, as other replicas find them."""

from __future__ import annotations

import pytest

from impasto.ext import CallInFlight, StoredCall, WorkerEnded
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.state.postgres.conftest import StoreFactory
from tests.plugins.state.postgres.test_migrations import execute


async def test_a_repeated_call_finds_the_one_that_runs_at_another_replica(factory: StoreFactory) -> None:
    one, two = await factory(), await factory()
    await one.workers.register("one", 60)
    await two.workers.register("two", 60)
    call = CallInFlight(id="a", identity=b"same", worker="one")
    assert await one.workers.begin_call(call) == []
    assert await two.workers.begin_call(CallInFlight(id="b", identity=b"same", worker="two")) == [call]
    await one.workers.mark_call("a", "abandoned")
    (found,) = await two.workers.begin_call(CallInFlight(id="b", identity=b"same", worker="two"))
    assert found.state == "abandoned"
    await one.workers.end_call("a")
    assert await two.workers.begin_call(CallInFlight(id="c", identity=b"same", worker="two")) == [
        CallInFlight(id="b", identity=b"same", worker="two")
    ]


async def test_the_calls_of_a_dead_worker_are_taken_over_and_it_begins_nothing_more(
    factory: StoreFactory, postgres: str
) -> None:
    store = await factory()
    await store.workers.register("dead", 60)
    await store.workers.register("alive", 60)
    await store.workers.begin_call(CallInFlight(id="a", identity=b"plain", worker="dead"))
    now = await store.now()
    job = StoredCall(
        id="job", owner=b"o", identity=b"job", worker="dead", jobs="{}", created=now, expires=now + 60
    )  # fmt: skip
    await store.calls.insert([job])
    assert await store.workers.dead() == {}
    await execute(postgres, "UPDATE {s}.workers SET expires = expires - 80 WHERE id = 'dead'")
    dead = await store.workers.dead()
    assert dead == {"dead": [b"plain"]}
    for _ in range(2):  # again, as if the first answer was lost
        jobs = await store.calls.take_over(dead, "alive", outcome="unknown", seconds=60)
        assert [(each.id, each.worker) for each in jobs] == [("job", "alive")]
    failed = await store.calls.find_failed(b"plain")
    assert failed is not None
    assert failed.outcome == "unknown"
    await store.workers.remove(dead)
    assert await store.workers.dead() == {}
    with pytest.raises(WorkerEnded):
        await store.workers.begin_call(CallInFlight(id="b", identity=b"plain", worker="dead"))


async def test_a_worker_that_was_removed_leaves_nothing(factory: StoreFactory) -> None:
    store: PostgresState = await factory()
    await store.workers.register("one", 60)
    await store.workers.begin_call(CallInFlight(id="a", identity=b"same", worker="one"))
    await store.workers.remove(["one"])
    await store.workers.register("two", 60)
    assert await store.workers.begin_call(CallInFlight(id="b", identity=b"same", worker="two")) == []
    assert await store.workers.renew("one", 60) is False
