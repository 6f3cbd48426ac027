"""Operations of several processes at once: exact, and never in each other's way for good."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import attrs

from impasto.ext import LimitReached, ObjectsFull, Reservation, StoredCall, StoredObject, Use
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.state.postgres.conftest import StoreFactory

SPEND = """
import asyncio, sys
from impasto.ext import Reservation, Use
from impasto_plugins.state.postgres import PostgresState

async def main():
    store = PostgresState(sys.argv[1])
    await store.open()
    use = Use(what="images", period="day", amount=1, limit=10)
    answers = await asyncio.gather(*(store.budgets.reserve(b"key", [use]) for _ in range(25)))
    print(sum(isinstance(each, Reservation) for each in answers))
    await store.aclose()

asyncio.run(main())
"""


def call(identity: bytes, now: float, *, state: str = "running", worker: str = "", seconds: float = 60) -> StoredCall:
    """A call of a name that nobody else has."""
    id, expires = random.randbytes(16).hex(), now + seconds
    return StoredCall(id=id, owner=b"o", identity=identity, state=state, worker=worker, created=now, expires=expires)


async def test_two_processes_spend_a_budget_for_10_exactly(store: PostgresState, postgres: str) -> None:
    command = [sys.executable, "-c", SPEND, postgres]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    outputs = await asyncio.gather(*(each.communicate() for each in processes))
    assert sum(int(output) for output, _ in outputs) == 10, outputs
    assert await store.budgets.used(b"key", "images", "day") == 10


async def test_one_of_many_equal_calls_is_inserted_and_each_retry_gets_another_result(factory: StoreFactory) -> None:
    stores = [await factory(pool_size=2) for _ in range(3)]
    now = await stores[0].now()
    calls = [call(b"same", now) for _ in range(30)]
    found = await asyncio.gather(
        *(store.calls.insert_or_join(each, join=True) for store, each in zip(stores * 10, calls, strict=True))
    )
    assert len({each.id for each in found}) == 1
    await stores[0].calls.insert([call(b"done", now, state="done") for _ in range(5)])
    claims = await asyncio.gather(*(store.calls.claim(b"done", 1, as_job=False) for store in stores * 4))
    ids = [each.id for each in claims if each is not None]
    assert len(ids) == len(set(ids)) == 5


async def test_many_mixed_operations_never_deadlock(factory: StoreFactory) -> None:
    stores = [await factory() for _ in range(3)]
    now = await stores[0].now()
    uses = [
        Use(what="requests", period="minute", amount=1),
        Use(what="images", period="day", amount=1, limit=1_000),
        Use(what="money", period="month", amount=3),
    ]

    async def work(number: int) -> None:
        chance = random.Random(number)
        store = stores[number % 3]
        for _ in range(15):
            key, identity = bytes([chance.randrange(3)]), bytes([chance.randrange(4)])
            match chance.randrange(8):
                case 0 | 1:
                    answer = await store.budgets.reserve(key, chance.sample(uses, 3))
                    assert not isinstance(answer, LimitReached)
                    await store.budgets.settle(answer, {"images": 0, "money": 9})
                case 2:
                    await store.calls.insert_or_join(call(identity, now, worker="w"), join=chance.random() < 0.5)
                case 3:
                    expired = [call(bytes([each]), now, seconds=-1, worker="w") for each in range(4)]
                    await store.calls.insert(expired)
                    await store.calls.delete_expired()
                case 4:
                    await store.calls.take_over({"w": [identity]}, "v", outcome="lost", seconds=60)
                case 5:
                    if (found := await store.calls.claim(identity, 9, as_job=True)) is not None:
                        await store.calls.release(found, 9)
                        await store.calls.update(found.id, identity=b"")
                case 6:
                    await store.budgets.delete_old()
                    await store.objects.delete_expired("file")
                case 7:
                    item = StoredObject(
                        kind="file", id=random.randbytes(8).hex(), owner=key, status="x", size=1, body="{}",
                        created=now, expires=now + chance.choice([-1, 60]),
                    )  # fmt: skip
                    assert not isinstance(await store.objects.insert(item, max_count=10_000), ObjectsFull)
                    await store.objects.replace(item, attrs.evolve(item, status="y"), max_bytes=10_000)
                    await store.objects.delete([item.id])

    await asyncio.gather(*(work(number) for number in range(24)))
    reservation = await stores[0].budgets.reserve(b"last", uses)
    assert isinstance(reservation, Reservation)
