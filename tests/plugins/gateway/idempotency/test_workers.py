"""A retry that reaches another worker, and what both workers' disk holds: one charge, whichever of them ends."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from impasto import ChargeUnknown, ImpastoError, NotSent, ProviderFault, RateLimited, UnusableResult
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.errors import to_api_error
from impasto_plugins.gateway.idempotency.in_flight import InFlightTable
from impasto_plugins.state.sqlite.connection import SQLiteDatabase
from tests.plugins.gateway.conftest import Running, Start
from tests.plugins.gateway.raw import until
from tests.plugins.gateway.records import calls_of

from .test_in_flight import dies
from .test_repeats import ask, leave, replayed


async def test_a_retry_reaches_another_worker_before_the_first_knows_that_its_caller_left(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = await start(), await start()
    calls, others = calls_of(first.gateway._idempotency), calls_of(other.gateway._idempotency)
    mark, find = calls.mark_disconnected, others.find
    monkeypatch.setattr(calls, "mark_disconnected", lambda: None)
    looks = 0

    def found(identity: bytes) -> Any:
        nonlocal looks
        looks += 1
        entry = find(identity)
        if looks == 1:  # from now on the first worker sees it
            monkeypatch.setattr(calls, "mark_disconnected", mark)
        return entry

    monkeypatch.setattr(others, "find", found)
    await leave(first, impasto_emulator, count=0)
    assert replayed(await ask(other, count=1))
    assert looks > 1
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 1


def watched(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that change the database, each with how far it has reached when it is committed."""
    messages: list[str] = []
    transact = SQLiteDatabase.transact

    def transacted(data: SQLiteDatabase, work: Any, *, durable: bool = False) -> Any:
        def traced(db: Any) -> Any:
            level = db.execute("PRAGMA synchronous").fetchone()[0]
            db.set_trace_callback(lambda text: messages.append(f"{level} {text}"))
            try:
                return work(db)
            finally:
                db.set_trace_callback(None)

        return transact(data, traced, durable=durable)

    monkeypatch.setattr(SQLiteDatabase, "transact", transacted)
    return messages


@pytest.mark.parametrize("way", ["key", "left"])
async def test_a_promise_has_reached_the_disk(
    gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, way: str, state: Path
) -> None:
    messages, synced, fsync = watched(gateway, monkeypatch), list[str](), os.fsync

    def noted(number: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{number}") if os.path.exists("/proc/self/fd") else "")
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted)
    if way == "key":
        assert (await ask(gateway, key="k")).status == 200
    else:
        await leave(gateway, impasto_emulator, count=0)
    await gateway.idle()
    writes = [each for each in messages if " calls" in each and each.split()[1] in ("INSERT", "UPDATE")]
    assert len(writes) == (2 if way == "key" else 1)
    assert {each[0] for each in writes} == {"2"}  # SQLite's FULL: the log is synced at each commit
    assert len(synced) == 2  # the image, and the folder that has its name
    assert synced[-1] in ("", str(state / "outcomes"))


async def test_possible_charges_of_a_dead_worker_are_on_the_disk_before_its_table_is_removed(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = InFlightTable(calls_of(gateway.gateway._idempotency)._folder)
    await asyncio.to_thread(dead.open)
    dead.begin(b"1" * 32, None, has_key=False)
    dies(dead)
    events = watched(gateway, monkeypatch)
    await gateway.gateway._idempotency.reclaim_dead_workers()
    assert {each.split()[0] for each in events if "INSERT INTO calls" in each} == {"2"}


async def test_an_image_that_could_not_be_synced_is_not_promised_and_not_paid_for_again(
    gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a call whose caller left it is synced when the disk works again."""

    def broken(number: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        assert (await ask(gateway, key="k")).status == 200
        caplog.clear()
        await leave(gateway, impasto_emulator, count=0)
        await until(lambda: "a paid image could not be stored" in caplog.text)
    answer = await ask(gateway, key="k")
    assert (answer.status, answer.error["code"], answer.headers["x-should-retry"]) == (502, "charge_unknown", "false")
    retried = await ask(gateway, count=1)
    assert (retried.status, replayed(retried)) == (200, True)
    assert len(impasto_emulator.charges) == 2


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("slow", status=429),
        NotSent("no"),
        ProviderFault("no", status=503),
        UnusableResult("no"),
        ChargeUnknown("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_sdk_is_told_to_try_again_what_may_have_been_charged(error: ImpastoError) -> None:
    error.errors = (ChargeUnknown("one of its images"),)
    failure = to_api_error(error)
    headers = failure.to_response().headers
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers
    assert not failure.not_charged
