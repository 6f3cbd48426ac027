"""Workers, their leases, and their calls in flight, as other replicas find them."""

from __future__ import annotations

import asyncio

import pytest

from impasto import RateLimit
from impasto.ext import CallInFlight, LimitReached, Reservation, StoredCall, Use, WorkerEnded
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.state.postgres.conftest import StoreFactory
from tests.plugins.state.postgres.test_migrations import execute


async def test_a_repeated_call_finds_the_one_that_runs_at_another_replica(factory: StoreFactory) -> None:
    one, two = await factory(), await factory()
    await one.workers.register("one", 60)
    call = CallInFlight(id="a", identity=b"same", worker="one")
    for _ in range(2):  # again, as if the first answer was lost
        await one.workers.begin_call(call)
    assert await two.workers.find_calls(b"same") == [call]
    assert await two.workers.find_calls(b"other") == []
    await one.workers.mark_call("a", "abandoned")
    (found,) = await two.workers.find_calls(b"same")
    assert found.state == "abandoned"
    await one.workers.end_calls(["a", "b"])
    assert await two.workers.find_calls(b"same") == []


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


async def test_a_worker_that_is_late_goes_on_unless_others_have_taken_over_its_calls(
    factory: StoreFactory, postgres: str
) -> None:
    """The store may have been away for longer than a lease."""
    store = await factory()
    await store.workers.register("late", 60)
    call = CallInFlight(id="a", identity=b"same", worker="late")
    await store.workers.begin_call(call)
    await execute(postgres, "UPDATE {s}.workers SET expires = expires - 80")
    dead = await store.workers.dead()
    assert await store.workers.renew("late", 60) is True
    await store.workers.remove(dead)
    assert await store.workers.find_calls(b"same") == [call], "it was renewed in time"
    await execute(postgres, "UPDATE {s}.workers SET expires = expires - 80")
    await store.workers.remove(dead)
    assert await store.workers.find_calls(b"same") == []
    assert await store.workers.renew("late", 60) is False


async def test_a_call_that_was_begun_under_the_name_of_a_removed_worker_is_found(
    factory: StoreFactory, postgres: str
) -> None:
    store = await factory()
    now = await store.now()
    call = StoredCall(id="a", owner=b"o", identity=b"i", worker="gone", created=now, expires=now + 9)
    await store.calls.insert([call])
    assert await store.workers.dead() == {"gone": []}
    await execute(postgres, "INSERT INTO {s}.in_flight VALUES ('b', 'plain', 'gone', 'running')")
    assert await store.workers.dead() == {"gone": [b"plain"]}
    await store.calls.take_over({"gone": [b"plain"]}, "alive", outcome="unknown", seconds=60)
    await store.workers.remove(["gone"])
    assert await store.workers.dead() == {}
    assert await store.workers.find_calls(b"plain") == []


async def test_a_worker_that_stops_leaves_its_calls_alone(factory: StoreFactory, postgres: str) -> None:
    store: PostgresState = await factory()
    for name in ("with", "without"):
        await store.workers.register(name, 60)
    await store.workers.begin_call(CallInFlight(id="a", identity=b"same", worker="with"))
    for name in ("with", "without"):
        await store.workers.end(name)
    assert await store.workers.dead() == {"with": [b"same"]}
    assert await store.workers.renew("without", 60) is False
    for name in ("old", "older"):
        await store.workers.register(name, 60)
    await store.workers.begin_call(CallInFlight(id="b", identity=b"other", worker="old"))
    await execute(postgres, "UPDATE {s}.workers SET expires = expires - 7200")
    await store.workers.register("new", 60)
    assert sorted(await store.workers.dead()) == ["old", "with"], "those without calls go by themselves"


async def test_reports_of_some_moments_are_one_round_trip(factory: StoreFactory) -> None:
    store = await factory()
    await store.workers.register("one", 60)
    for number in (1, 2):
        assert await store.rates.begin("key", number, "one", RateLimit(9, 60.0), 1.0) == 0
        await store.workers.begin_call(CallInFlight(id=str(number), identity=b"same", worker="one"))
    before = store.round_trips
    reports = [store.workers.end_calls([str(number)]) for number in (1, 2)]
    await asyncio.gather(*reports, *(store.rates.count([number]) for number in (1, 2)))
    assert store.round_trips == before + 1
    assert await store.workers.find_calls(b"same") == []
    ((arrivals,),) = await store._pool.fetch("SELECT count(*) FROM {s}.arrivals")
    assert arrivals == 2


async def test_a_call_and_its_reservation_are_there_together_or_not_at_all(factory: StoreFactory) -> None:
    store = await factory()
    await store.workers.register("one", 60)
    use = Use(what="images", period="day", amount=1, limit=1)
    first, second = (CallInFlight(id=name, identity=b"same", worker="one") for name in "ab")
    reservation = await store.workers.begin_call(first, key=b"key", uses=[use])
    assert isinstance(reservation, Reservation)
    refusal = await store.workers.begin_call(second, key=b"key", uses=[use])
    assert isinstance(refusal, LimitReached)
    assert await store.workers.find_calls(b"same") == [first]
    await store.workers.end("one")
    await store.workers.remove(["one"])
    with pytest.raises(WorkerEnded):
        await store.workers.begin_call(second, key=b"other", uses=[use])
    assert await store.budgets.used(b"other", "images", "day") == 0
