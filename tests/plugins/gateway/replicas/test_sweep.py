"""Expired contents of the bucket are deleted, by one replica; those with a record are not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryFile

import attrs
import pytest

from impasto import Artifact, File
from impasto.ext import StoredCall
from impasto_plugins.gateway import sweep
from impasto_plugins.gateway.batches.replicas import lease as lease_module
from impasto_plugins.gateway.batches.replicas.lease import BatchLease
from impasto_plugins.gateway.batches.store import BatchRow, BatchStore
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.idempotency import serialization
from impasto_plugins.gateway.idempotency.store import OutcomeStore, new_row_id
from impasto_plugins.gateway.storage import s3 as s3_images
from impasto_plugins.gateway.storage.bucket import BucketContents
from impasto_plugins.gateway.storage.pair import BucketPair
from impasto_plugins.gateway.storage.s3 import S3Store
from impasto_plugins.state.sqlite import SQLiteState
from impasto_plugins.transports.s3 import Objects, S3Clients
from tests.images import png
from tests.moto_s3 import Bucket

_numbers = itertools.count()
DONE = CallOutcome(
    artifacts=(Artifact(data=png(8, 8), media_type="image/png"),), warnings=(), lost=(), cost=None, created=0
)


@attrs.define
class Clock:
    """The clock of a store."""

    now: float = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def records(tmp_path: Path, clock: Clock) -> AsyncIterator[SQLiteState]:
    state = SQLiteState(str(tmp_path / "state"), clock=clock)
    await state.open()
    yield state
    await state.aclose()


@pytest.fixture
async def objects(bucket: Bucket) -> AsyncIterator[Objects]:
    """A place of its own in the bucket."""
    account = {
        "endpoint": bucket.url,
        "region": "us-east-1",
        "access_key_id": "AKIATEST",
        "secret_access_key": "secret-of-the-test",
    }
    async with S3Clients() as clients:
        yield await Objects.open(bucket.name, f"sweep-{next(_numbers)}", account, clients)


async def test_images_of_expired_calls_are_deleted(
    records: SQLiteState, clock: Clock, objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serialization, "_STORING_SECONDS", -1.0)  # the clock of S3 is another one
    pair = BucketPair(objects, records, needs_conditions=True)
    contents = BucketContents(objects.below("outcomes/"), tmp_path / "outcomes", pair)
    store = OutcomeStore(records, contents)
    rows = [
        StoredCall(id=new_row_id(), owner=b"o", identity=bytes([number]), expires=100.0 * number) for number in (1, 2)
    ]
    for row in rows:
        await store.calls.insert_or_join(row, join=True)
        await store.finish(row, DONE, forget=True)
    await contents.save({"f" * 64 + ".0": File.of(b"of a call whose record is missing")})
    clock.now += 150
    await store.remove_expired()
    assert set(await contents.ages()) == {f"{rows[1].id}.0", "f" * 64 + ".0"}
    outcome = await store.load(attrs.evolve(rows[1], state="done", outcome=serialization.dump_outcome(DONE)))
    assert [each.data for each in outcome.artifacts] == [png(8, 8)]


async def test_expired_images_at_urls_are_deleted_and_nothing_else(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_images, "_SIGNING_SECONDS", 0.0)
    images, others = S3Store(objects, 3600), objects.below("outcomes/")
    name = await images.save(DONE.artifacts[0])
    await others.put("a.0", File.of(b"x"), "image/png")
    await objects.put("of-the-operator.png", File.of(b"x"), "image/png")
    await images.remove_expired()
    found = await images.find(name)
    assert found is not None
    with found.source as source:
        assert source.read() == png(8, 8)
    async with asyncio.timeout(30):
        while await images.exists(name):
            await S3Store(objects, 0).remove_expired()
    assert await others.exists("a.0")
    assert await objects.exists("of-the-operator.png")


async def test_folders_of_the_bucket_have_ages_copies_and_ends(
    records: SQLiteState, objects: Objects, tmp_path: Path
) -> None:
    contents = BucketContents(objects, tmp_path, BucketPair(objects, records, needs_conditions=True))
    await contents.save({f"runs/b{number}/{name}": File.of(name.encode()) for number in (1, 2) for name in "xy"})
    assert await contents.copy("runs/b1/x", "runs/b3/x")
    assert not await contents.copy("runs/b1/z", "runs/b3/z")
    assert set(await contents.ages("runs", skip=("b2",))) == {"b1", "b3"}
    await contents.delete_folder("runs/b1")
    await contents.delete(["runs/b3/x", "runs/b3/z"])
    assert set(await contents.ages("runs")) == {"b2"}
    with TemporaryFile() as target:
        assert await objects.fetch("runs/b1/x", target) is None
    assert await contents.open("runs/b1/x") is None
    assert not await contents.fetch("runs/b1/x")
    assert await contents.fetch("runs/b2/x")
    assert await asyncio.to_thread((tmp_path / "runs/b2/x").read_bytes) == b"x"


async def test_one_replica_sweeps(records: SQLiteState, clock: Clock) -> None:
    turns = await asyncio.gather(*(sweep._take_turn(records, 300.0) for _ in range(3)))
    assert sorted(turns) == [False, False, True]
    clock.now += 100
    assert not await sweep._take_turn(records, 300.0)
    clock.now += 100
    turns = await asyncio.gather(*(sweep._take_turn(records, 300.0) for _ in range(3)))
    assert sorted(turns) == [False, False, True]


async def test_a_worker_that_has_lost_a_batchs_lease_changes_nothing_of_it(records: SQLiteState, clock: Clock) -> None:
    store = BatchStore(records)
    batch = BatchRow(
        id="batch_1", owner=b"o", identity=b"", status="in_progress", about="{}", room=0, created=1e9, expires=2e9
    )
    await store.insert_or_find(batch, since=None, maximum=10)
    one, two = BatchLease(store), BatchLease(store)
    own = await one.take(batch)
    assert own is not None
    assert await two.take(batch) is None
    clock.now += lease_module.LEASE_SECONDS + 1
    other = await two.take(batch)
    assert other is not None
    with pytest.raises(APIError, match="another replica runs this batch"):
        await one.change(own, lambda current: current.with_attributes("completed"))
    await one.release(own)
    changed = await two.change(other, lambda current: current.with_attributes("finalizing"))
    assert changed.status == "finalizing"
    assert await one.take(batch) is None
    await two.release(other)
    with pytest.raises(APIError, match="another replica runs this batch"):
        await one.change(own, lambda current: current.with_attributes("completed"))
    assert await BatchLease(store).take(batch) is not None
