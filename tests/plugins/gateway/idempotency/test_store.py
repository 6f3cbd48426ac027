"""What is kept: on a disk that is full or broken, and until it has expired."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from impasto import Artifact
from impasto.ext import StoredCall
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.errors import APIError, charge_unknown_error
from impasto_plugins.gateway.idempotency.store import OutcomeStore, new_row_id
from impasto_plugins.gateway.storage.contents import FolderContents
from impasto_plugins.gateway.storage.places import OUTCOMES
from impasto_plugins.state.sqlite import SQLiteState
from tests.plugins.gateway.conftest import Running, Start
from tests.plugins.gateway.raw import until
from tests.plugins.gateway.records import database

from .test_repeats import BODY, PATH, ask, leave, replayed


async def test_no_promise_is_given_if_it_can_not_be_recorded(
    start: Start, impasto_emulator: Emulator, state: Path
) -> None:
    state.parent.mkdir()
    state.touch()  # a file where the folder should be
    gateway = await start()
    refused = await ask(gateway, key="k")
    assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
    assert "nothing was sent" in (refused.error["message"] or "")
    assert str(state) not in (refused.error["message"] or "")
    assert not impasto_emulator.requests
    assert (await ask(gateway)).status == 200
    await leave(gateway, impasto_emulator, count=0)
    assert (await ask(gateway, count=1)).status == 503
    assert len(impasto_emulator.charges) == 2
    state.unlink()
    assert (await ask(gateway, key="k")).status == 200
    retried = await ask(gateway, count=2)
    assert (retried.status, replayed(retried)) == (200, True)
    assert len(impasto_emulator.charges) == 3


async def test_a_disk_that_fails_after_the_call_holds_nothing_back(
    gateway: Running, impasto_emulator: Emulator, state: Path
) -> None:
    (state / "outcomes").touch()  # a file where the folder should be
    assert (await ask(gateway, key="k")).status == 200
    answer = await ask(gateway, key="k")
    assert (answer.status, answer.error["code"], answer.headers["x-should-retry"]) == (502, "charge_unknown", "false")
    assert len(impasto_emulator.charges) == 1


async def test_an_image_for_which_no_response_waits_is_stored_when_the_disk_can_be_written(
    gateway: Running, impasto_emulator: Emulator, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state / "outcomes").touch()
    await leave(gateway, impasto_emulator, count=0)
    job = await gateway.ask("POST", PATH, json=BODY, headers={"prefer": "respond-async"})
    await until(lambda: caplog.text.count("paid images could not be stored") >= 2)
    retry = asyncio.create_task(ask(gateway, count=1))
    assert (await gateway.ask("GET", job.headers["location"])).json["status"] == "in_progress"
    (state / "outcomes").unlink()
    assert ((await retry).status, replayed(await retry)) == (200, True)
    async with asyncio.timeout(60):
        while (found := await gateway.ask("GET", job.headers["location"])).json["status"] == "in_progress":
            await asyncio.sleep(0.02)
    assert found.json["status"] == "completed"
    assert len(impasto_emulator.charges) == 2


async def test_a_gateway_that_ends_waits_for_no_disk(
    gateway: Running, impasto_emulator: Emulator, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state / "outcomes").touch()
    await leave(gateway, impasto_emulator, count=0)
    await until(lambda: "paid images could not be stored" in caplog.text)
    async with asyncio.timeout(30):
        await gateway.gateway._idempotency.end_deliveries()
    answer = await ask(gateway, count=1)
    assert (answer.status, answer.error["code"], answer.headers["x-should-retry"]) == (502, "charge_unknown", "false")
    assert len(impasto_emulator.charges) == 1


async def test_expired_rows_are_removed(gateway: Running, impasto_emulator: Emulator, state: Path) -> None:
    await ask(gateway, key="k", n=2)
    data, store = database(gateway), gateway.gateway._idempotency.store
    stray = state / "outcomes" / "stray.0"
    stray.touch()
    for each in (state / "outcomes").iterdir():
        os.utime(each, (0, 0))
    await store.remove_expired()
    assert len(list((state / "outcomes").iterdir())) == 2
    assert replayed(await ask(gateway, key="k", n=2))
    now = data.clock()
    data.clock = lambda: now + 25 * 3600
    await store.remove_expired()
    assert list((state / "outcomes").iterdir()) == []


NOON = 1_790_856_000.0
ONE, TWO = (letter * 32 for letter in (b"1", b"2"))
DONE = CallOutcome(
    artifacts=(Artifact(data=b"made", media_type="image/png"),), warnings=(), lost=(), cost=None, created=0
)


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[SQLiteState]:
    state = SQLiteState(str(tmp_path), clock=Clock())
    await state.open()
    yield state
    await state.aclose()


def outcome_store(records: SQLiteState) -> OutcomeStore:
    return OutcomeStore(records, FolderContents(records.database.folder / OUTCOMES))


def row(records: SQLiteState, **values: Any) -> StoredCall:
    base = StoredCall(
        id=new_row_id(),
        owner=ONE,
        identity=ONE,
        content=ONE,
        worker="w",
        created=records.database.clock(),
        expires=NOON + 100,
    )
    return attrs.evolve(base, **values)


async def rows(records: SQLiteState) -> list[tuple[str, bytes, str]]:
    return await records.database.write(
        lambda db: db.execute("SELECT id, identity, state FROM calls ORDER BY created").fetchall()
    )


async def test_a_result_is_kept_for_exactly_a_quarter_of_an_hour(records: SQLiteState) -> None:
    store, clock = outcome_store(records), Clock()
    records.database.clock = clock
    assert await store.save(ONE, DONE)
    assert await store.save(TWO, charge_unknown_error())
    clock.now = NOON + 899.5
    assert await store.calls.claim(ONE, 1, as_job=False) is not None
    assert await store.calls.find_failed(TWO) is not None
    clock.now = NOON + 900
    assert await store.calls.claim(ONE, 2, as_job=False) is None
    assert await store.calls.find_failed(TWO) is None
    await store.remove_expired()
    assert await rows(records) == []


async def test_a_call_is_found_by_its_id_and_its_key_until_it_has_expired(records: SQLiteState) -> None:
    store, clock = outcome_store(records), Clock()
    records.database.clock = clock
    first = await store.calls.insert_or_join(row(records), join=True)
    clock.now = NOON + 99.5
    assert (await store.calls.insert_or_join(row(records), join=True)).id == first.id
    assert await store.calls.find(first.id, ONE) is not None
    assert await store.calls.find(first.id, TWO) is None
    clock.now = NOON + 100
    assert await store.calls.find(first.id, ONE) is None
    second = await store.calls.insert_or_join(row(records, expires=NOON + 200), join=True)
    assert second.id != first.id
    assert [id for id, *_ in await rows(records)] == [second.id]


@asynccontextmanager
async def statements(records: SQLiteState) -> AsyncIterator[list[str]]:
    """Yield the statements that are run meanwhile."""
    found: list[str] = []
    await records.database.write(lambda db: db.set_trace_callback(found.append))
    yield found
    await records.database.write(lambda db: db.set_trace_callback(None))


async def test_a_paid_image_survives_a_power_loss(records: SQLiteState) -> None:
    """SQLite syncs a commit to the disk in the mode FULL alone."""
    store = outcome_store(records)
    first = await store.calls.insert_or_join(row(records), join=True)
    works: dict[str, Callable[[], Awaitable[object]]] = {
        "a call, before it is sent": lambda: store.calls.insert_or_join(row(records), join=False),
        "a provider's job": lambda: store.record_jobs(first, lambda: "[]"),
        "an outcome": lambda: store.finish(first, DONE, forget=False),
        "the outcome for a retry": lambda: store.save(TWO, DONE),
        "a call of a dead worker": lambda: store.take_over({"dead": [ONE]}, "w"),
    }
    for name, work in works.items():
        async with statements(records) as run:
            await work()
        written = next(at for at, each in enumerate(run) if each.startswith(("INSERT", "UPDATE")))
        modes = [each for each in run[:written] if each.startswith("PRAGMA synchronous")]
        assert modes[-1] == "PRAGMA synchronous=FULL", name
        assert "COMMIT" in run[written:], name


async def test_only_a_key_is_joined(records: SQLiteState) -> None:
    store = outcome_store(records)
    first, second = (
        await store.calls.insert_or_join(row(records), join=False),
        await store.calls.insert_or_join(row(records), join=False),
    )
    assert first.id != second.id
    assert len(await rows(records)) == 2


@pytest.mark.parametrize("forget", [True, False])
async def test_a_free_failure_is_not_found_by_its_key(records: SQLiteState, forget: bool) -> None:
    """A job's id, which its caller has, is still told what became of it."""
    store = outcome_store(records)
    first = await store.calls.insert_or_join(row(records), join=True)
    await store.finish(first, APIError(503, "no"), forget=forget)
    assert await rows(records) == ([] if forget else [(first.id, b"", "failed")])


@pytest.mark.parametrize("outcome", [DONE, charge_unknown_error()], ids=["done", "unknown"])
async def test_a_possible_charge_is_found_by_its_key(records: SQLiteState, outcome: CallOutcome | APIError) -> None:
    store = outcome_store(records)
    first = await store.calls.insert_or_join(row(records), join=True)
    await store.finish(first, outcome, forget=True)
    (found,) = await rows(records)
    assert found == (first.id, ONE, "done" if outcome is DONE else "failed")


async def test_at_most_64_images_are_in_memory_until_they_are_kept(
    records: SQLiteState, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, groups = outcome_store(records), list[int]()
    save = type(store._files).save

    async def counted(self: object, outcomes: Mapping[str, CallOutcome]) -> dict[str, str]:
        groups.append(len(outcomes))
        return await save(store._files, outcomes)

    monkeypatch.setattr(type(store._files), "save", counted)
    assert all(await asyncio.gather(*(store.save(ONE, DONE) for _ in range(70))))
    assert groups == [64, 6]
    assert len(await rows(records)) == 70


async def test_a_bug_while_outcomes_are_kept_keeps_nobody_waiting(
    records: SQLiteState, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = outcome_store(records)

    async def breaks(self: object, outcomes: Mapping[str, CallOutcome]) -> dict[str, str]:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(type(store._files), "save", breaks)
        async with asyncio.timeout(60):
            assert not any(await asyncio.gather(store.save(ONE, DONE), store.save(ONE, DONE)))
    assert await store.save(ONE, DONE)


async def test_a_caller_who_is_gone_stops_nothing_from_being_kept(records: SQLiteState) -> None:
    store = outcome_store(records)
    tasks = [asyncio.create_task(store.save(ONE, DONE)) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await tasks[1]
    assert len(await rows(records)) == 2


@pytest.mark.parametrize("is_back", [True, False])
async def test_an_outcome_that_can_not_be_written_is_written_when_the_state_is_back(
    records: SQLiteState, is_back: bool
) -> None:
    store = outcome_store(records)
    first, second = [await store.calls.insert_or_join(row(records), join=False) for _ in range(2)]
    await records.database.write(lambda db: db.execute("ALTER TABLE calls RENAME TO away"))
    stored: list[str] = []
    assert await store.save(TWO, DONE, on_stored=lambda: stored.append("for a retry"))
    await store.finish(first, DONE, forget=True, on_stored=lambda: stored.append("done"))
    await store.finish(second, APIError(503, "no"), forget=True, on_stored=lambda: stored.append("free"))
    assert not stored
    if is_back:
        await records.database.write(lambda db: db.execute("ALTER TABLE away RENAME TO calls"))
    await store.aclose()
    assert {*stored} == ({"for a retry", "done", "free"} if is_back else set())
    if is_back:
        assert {(identity, state) for _, identity, state in await rows(records)} == {(ONE, "done"), (TWO, "done")}


async def test_an_image_that_is_gone_may_have_been_charged(records: SQLiteState) -> None:
    store = outcome_store(records)
    await store.save(ONE, DONE)
    claimed = await store.calls.claim(ONE, 1, as_job=False)
    assert claimed is not None
    (records.database.folder / "outcomes" / f"{claimed.id}.0").unlink()
    with pytest.raises(APIError) as caught:
        await store.load(claimed)
    assert (caught.value.code, caught.value.not_charged, caught.value.should_retry) == ("charge_unknown", False, False)


async def test_a_failure_is_replayed_as_one_that_may_have_been_charged(records: SQLiteState) -> None:
    store = outcome_store(records)
    error = APIError(504, "no", "server_error", "charge_unknown", "p", should_retry=False, not_charged=False)
    await store.save(ONE, error)
    found = await store.calls.find_failed(ONE)
    assert found is not None
    with pytest.raises(APIError) as caught:
        await store.load(found)
    assert caught.value.to_json() == error.to_json()
    assert (caught.value.status, caught.value.not_charged, caught.value.should_retry) == (504, False, False)
    assert caught.value.to_response().headers["idempotent-replayed"] == "true"
