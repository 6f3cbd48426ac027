"""Calls that run at one replica as the others see them: joined, taken over, or known to be lost, and paid for once."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from impasto.ext import StateError, StoredCall
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.idempotency import replica_calls
from impasto_plugins.gateway.idempotency.in_flight import InFlightCall
from impasto_plugins.gateway.idempotency.replica_calls import ReplicaCalls
from impasto_plugins.gateway.storage import late_writes
from impasto_plugins.middleware import retry
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.gateway.api.test_jobs import URI, finished_job, polled
from tests.plugins.gateway.conftest import Answer, Running, Serve, Start, config
from tests.plugins.state.postgres.test_migrations import execute

from .test_repeats import BODY, PATH, ask, leave, replayed

pytestmark = pytest.mark.waits


@pytest.fixture
def settings(impasto_emulator: Emulator, postgres: str, tmp_path: Path) -> str:
    """The configuration of replicas that share a folder of images."""
    (tmp_path / "shared").mkdir()
    return config(impasto_emulator.url, general=f"  state: {postgres}\n  data_dir: {tmp_path / 'shared'}\n")


async def expire_leases(address: str) -> None:
    """Let a lease's time pass."""
    await execute(address, "UPDATE {s}.workers SET expires = expires - 80")


async def count(address: str, table: str) -> int:
    store = PostgresState(address)
    ((rows,),) = await store._pool.fetch(f"SELECT count(*) FROM {{s}}.{table}")
    await store.aclose()
    return int(rows)


def calls_of(gateway: Running) -> ReplicaCalls:
    calls = gateway.gateway._idempotency.in_flight
    assert isinstance(calls, ReplicaCalls)
    return calls


async def begin(gateway: Running, emulator: Emulator, **options: Any) -> asyncio.Task[Answer]:
    """Return a request whose call has reached its provider."""
    before = len(emulator.requests)
    call = asyncio.create_task(ask(gateway, **options))
    while len(emulator.requests) == before:
        await asyncio.sleep(0.01)
    return call


async def test_a_key_that_runs_at_one_replica_is_joined_at_the_other(
    start: Start, impasto_emulator: Emulator, settings: str, postgres: str
) -> None:
    one, two = await start(settings), await start(settings)
    impasto_emulator.fault("delay", seconds=0.5, times=1)
    first = await begin(one, impasto_emulator, key="k")
    second = await ask(two, key="k")
    assert (second.status, replayed(second), (await first).status) == (200, True, 200)
    assert second.body == (await first).body
    assert len(impasto_emulator.charges) == 1
    for gateway in (one, two):
        assert not calls_of(gateway)._calls
        assert not calls_of(gateway)._keyed


async def test_an_sdks_retry_at_the_other_replica_waits_for_the_call_that_its_caller_left(
    start: Start, impasto_emulator: Emulator, settings: str, postgres: str
) -> None:
    one, two = await start(settings), await start(settings)
    await leave(one, impasto_emulator, count=0)
    retried = await ask(two, count=1)
    assert (retried.status, replayed(retried)) == (200, True)
    await one.idle()
    assert len(impasto_emulator.charges) == 1
    for _ in range(2):  # nobody left: no call is found
        assert not replayed(await ask(two, count=0))
    await two.idle()
    assert len(impasto_emulator.charges) == 3
    async with asyncio.timeout(30):
        while await count(postgres, "in_flight"):
            await asyncio.sleep(0.01)


async def test_a_call_of_another_caller_is_not_waited_for(
    start: Start, impasto_emulator: Emulator, settings: str
) -> None:
    """A running call's caller is still there, and the retry's own first attempt was refused."""
    one, two = await start(settings), await start(settings)
    impasto_emulator.fault("delay", seconds=1.0, times=1)
    first = await begin(one, impasto_emulator, count=0)
    assert not replayed(await ask(two, count=1))
    assert (await first).status == 200
    assert len(impasto_emulator.charges) == 2


async def test_a_replica_that_is_killed_is_taken_over(
    start: Start, serve: Serve, impasto_emulator: Emulator, settings: str, postgres: str
) -> None:
    """Its job is fetched, and costs nothing more; anything else may have been charged, and is not paid for again."""
    process, url = await asyncio.to_thread(serve, settings)
    two = await start(settings)
    impasto_emulator.fault("pending", method="GET")
    edit = {"model": "creative", "prompt": "p", "images": [{"image_url": URI}]}
    job = await two.ask("POST", f"{url}/v1/images/edits", json=edit, headers={"prefer": "respond-async"})
    assert job.status == 202
    await polled(impasto_emulator, 1)
    impasto_emulator.fault("delay", seconds=60, method="POST")
    for headers in ({"idempotency-key": "k"}, {"x-stainless-retry-count": "0"}):
        before = len(impasto_emulator.charges)
        call = asyncio.create_task(two.ask("POST", url + PATH, json=BODY, headers=headers))
        async with asyncio.timeout(30):
            while len(impasto_emulator.charges) == before:
                await asyncio.sleep(0.01)
        call.add_done_callback(lambda call: call.exception())
    process.kill()
    await asyncio.to_thread(process.wait, 60)
    impasto_emulator.clear_faults()
    await expire_leases(postgres)
    assert (await ask(two, key="k")).error["code"] == "charge_unknown"
    assert (await ask(two, count=1)).error["code"] == "charge_unknown"
    assert (await finished_job(two, job)).json["status"] == "completed"
    assert len(impasto_emulator.charges) == 3
    assert await count(postgres, "in_flight") == 0
    assert await count(postgres, "workers") == 1


async def test_jobs_of_a_dead_replica_are_taken_over_though_nobody_asks_for_them(
    start: Start, impasto_emulator: Emulator, settings: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReplicaCalls, "take_over_seconds", 0.05)
    one = await start(settings)
    impasto_emulator.fault("pending", method="GET")
    edit = {"model": "creative", "prompt": "p", "images": [{"image_url": URI}]}
    job = await one.ask("POST", "/v1/images/edits", json=edit, headers={"prefer": "respond-async"})
    await polled(impasto_emulator, 1)
    two = await start(settings)
    await expire_leases(postgres)
    async with asyncio.timeout(30):
        while bytes.fromhex(job.json["id"]) not in calls_of(two)._keyed:
            await asyncio.sleep(0.01)
    impasto_emulator.clear_faults()
    for gateway in (one, two):  # both fetch it
        assert (await finished_job(gateway, job)).json["status"] == "completed"
        await gateway.idle()
    assert len(impasto_emulator.charges) == 1


async def test_a_replica_that_stood_still_for_too_long_adds_its_late_image(
    start: Start, serve: Serve, impasto_emulator: Emulator, settings: str, postgres: str
) -> None:
    process, url = await asyncio.to_thread(serve, settings)
    two = await start(settings)
    impasto_emulator.fault("delay", seconds=0.3, times=1)
    call = asyncio.create_task(two.ask("POST", url + PATH, json=BODY, headers={"idempotency-key": "k"}))
    async with asyncio.timeout(30):
        while not impasto_emulator.requests:
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    await expire_leases(postgres)
    assert (await ask(two, key="k")).error["code"] == "charge_unknown"
    process.send_signal(signal.SIGCONT)
    late = await call
    assert late.status == 200
    adopted = await ask(two, key="k")
    assert (adopted.status, replayed(adopted), adopted.body) == (200, True, late.body)
    assert len(impasto_emulator.charges) == 1
    again = await two.ask("POST", url + PATH, json=BODY, headers={"idempotency-key": "another"})
    assert again.status == 200, "under another name it goes on"


async def test_a_call_whose_worker_was_taken_for_dead_before_it_was_sent_costs_nothing(
    start: Start, impasto_emulator: Emulator, settings: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start(settings), await start(settings)
    share = ReplicaCalls.share

    async def stands_still(calls: ReplicaCalls, call: InFlightCall) -> str:
        worker = await share(calls, call)
        await expire_leases(postgres)
        await two.gateway._idempotency.reclaim_dead_workers()
        calls._lease.end()
        assert await calls._lease.hold() != worker
        return worker

    ways: list[dict[str, Any]] = [{"key": "k"}, {"count": 0}]
    for options in ways:
        monkeypatch.setattr(retry, "_backoff", lambda *each: 0.0)
        monkeypatch.setattr(ReplicaCalls, "share", stands_still)
        refused = await ask(one, **options)
        assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
        monkeypatch.undo()
        assert not impasto_emulator.requests
    assert (await ask(two, key="k")).status == 200


async def test_after_a_long_outage_nobody_is_taken_for_dead_at_once(
    start: Start, impasto_emulator: Emulator, settings: str, postgres: str
) -> None:
    """No replica could renew its lease. They have some seconds for that, and their calls go on."""
    one, two = await start(settings), await start(settings)
    impasto_emulator.fault("delay", seconds=0.5, times=1)
    first = await begin(one, impasto_emulator, key="k")
    await two.gateway._idempotency.in_flight.worker()
    await expire_leases(postgres)
    lease = calls_of(two)._lease
    lease.end()
    await lease.hold()
    await two.gateway._idempotency.reclaim_dead_workers()
    second = await ask(two, key="k")
    assert (second.status, replayed(second), (await first).status) == (200, True, 200)


async def test_a_call_that_a_bug_ends_is_unknown_to_all(
    start: Start, impasto_emulator: Emulator, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start(settings), await start(settings)

    async def breaks(*args: Any, **options: Any) -> None:
        raise RuntimeError("a bug, after the image came")

    monkeypatch.setattr(replica_calls, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(one.gateway._idempotency.store, "finish", breaks)
    assert (await ask(one, key="k")).status == 500
    assert (await ask(two, key="k")).error["code"] == "charge_unknown"
    assert len(impasto_emulator.charges) == 1


async def test_more_calls_than_there_is_room_for_are_refused(
    start: Start, impasto_emulator: Emulator, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start(settings)
    monkeypatch.setattr(replica_calls, "SLOTS", 0)
    assert (await ask(gateway, key="k")).error["code"] == "overloaded"
    assert (await ask(gateway)).error["code"] == "overloaded"
    assert not calls_of(gateway).has_room
    assert not impasto_emulator.requests


async def test_a_record_whose_insertion_was_not_confirmed_holds_no_key(
    start: Start, impasto_emulator: Emulator, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke before the answer: nothing was sent, and the key is free again."""
    one, two = await start(settings), await start(settings)
    insert = one.gateway._state.calls.insert_or_join

    async def breaks(call: StoredCall, *, join: bool) -> StoredCall:
        await insert(call, join=join)
        error = StateError("the connection broke")
        error.may_have_changed = True
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(one.gateway._state.calls, "insert_or_join", breaks)
        patched.setattr(late_writes, "RETRY_SECONDS", 0.01)
        assert (await ask(one, key="k")).status == 503
    assert not impasto_emulator.requests
    assert (await ask(two, key="k")).status == 200


@pytest.mark.parametrize("is_free", [True, False])
async def test_the_end_of_a_call_is_recorded_when_the_store_is_there_again(
    start: Start, impasto_emulator: Emulator, settings: str, monkeypatch: pytest.MonkeyPatch, is_free: bool
) -> None:
    """Who repeats the call waits for that: its image, or that it cost nothing."""
    one, two = await start(settings), await start(settings)
    calls, failures = one.gateway._state.calls, 2
    name = "delete" if is_free else "update"
    change = getattr(calls, name)

    async def fails(*args: Any, **columns: Any) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StateError("it is away")
        await change(*args, **columns)

    monkeypatch.setattr(late_writes, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(calls, name, fails)
    if is_free:
        impasto_emulator.fault("status", status=403, name="content_moderation", times=1)
    first = await ask(one, key="k")
    second = await ask(two, key="k")
    assert (second.status, replayed(second)) == (200, not is_free)
    assert first.status == (400 if is_free else 200)
    assert len(impasto_emulator.charges) == 1
