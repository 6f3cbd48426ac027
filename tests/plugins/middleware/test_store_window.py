"""Rate windows that replicas share: clients with a PostgreSQL state, in one process and in several."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import impasto
from impasto import RateLimit
from impasto.ext import StateError, WorkerLease
from impasto_plugins.middleware.store_window import StoreWindow
from impasto_plugins.middleware.window import Permit
from impasto_plugins.state.postgres import PostgresState
from impasto_plugins.state.sqlite import SQLiteState
from tests.postgres import PostgresServer, own_server
from tests.recorder import Answer, ReceivedRequest, Recorder, picture

pytestmark = pytest.mark.waits

LIMIT = RateLimit(10, 1.0)
MODEL = "stability/stable-image-core"

SEND = """
import asyncio, sys
import impasto

async def main(url, state, number):
    settings = {"api_key": "sk-" + "tests-" * 6, "api_base": url, "rate_limit": impasto.RateLimit(10, 1.0)}
    async with impasto.Client(**settings, state=state) as client:
        calls = (client.run("stability/stable-image-core", prompt="x") for _ in range(int(number)))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        print(sum(isinstance(each, impasto.Result) for each in outcomes), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class ArrivalTimes:
    """Answers as the provider does, and notes when each paid request came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, request: ReceivedRequest) -> Answer:
        self.times.append(time.monotonic())
        return picture()

    def check(self, limit: RateLimit = LIMIT) -> None:
        """Fail if more than the limit arrived in one window."""
        later = self.times[limit.requests :]
        assert [b - a for a, b in zip(self.times, later, strict=False) if b - a < limit.seconds] == []


def client_of(recorder: Recorder, state: object, **settings: object) -> impasto.Client:
    return impasto.Client(
        api_key="sk-" + "tests-" * 6, api_base=recorder.url, rate_limit=LIMIT, state=state, **settings  # type: ignore[arg-type]
    )  # fmt: skip


async def test_two_processes_share_the_window_of_a_key_as_the_provider_counts(
    recorder: Recorder, postgres: str
) -> None:
    recorder.answer = arrivals = ArrivalTimes()
    command = [sys.executable, "-c", SEND, recorder.url, postgres, "20"]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    outputs = await asyncio.gather(*(each.communicate() for each in processes))
    assert [int(output) for output, _ in outputs] == [20, 20], outputs
    assert len(arrivals.times) == 40
    arrivals.check()


async def test_without_the_store_nothing_is_sent_and_it_recovers_by_itself(recorder: Recorder) -> None:
    with own_server() as server:
        async with client_of(recorder, server.dsn(), retry=impasto.Retry(attempts=1)) as client:
            await client.run(MODEL, prompt="x")
            await asyncio.to_thread(server.kill)
            for _ in range(3):
                with pytest.raises(
                    impasto.NotSent, match="state: .*PostgreSQL at 127.0.0.1.* nothing is sent"
                ) as caught:
                    await client.run(MODEL, prompt="x")
                assert caught.value.billed == "no"
            assert len(recorder.posts) == 1
            await asyncio.to_thread(server.start)
            await client.run(MODEL, prompt="x")
            assert len(recorder.posts) == 2


async def test_a_window_is_never_passed_while_the_database_is_killed_under_load(recorder: Recorder) -> None:
    recorder.answer = arrivals = ArrivalTimes()
    with own_server() as server:
        async with (
            client_of(recorder, server.dsn(), retry=impasto.Retry(attempts=1)) as one,
            client_of(recorder, server.dsn(), retry=impasto.Retry(attempts=1)) as two,
        ):
            is_over = False

            async def send(client: impasto.Client) -> int:
                done = 0
                while not is_over:
                    try:
                        await client.run(MODEL, prompt="x")
                        done += 1
                    except impasto.NotSent:
                        await asyncio.sleep(0.05)
                return done

            tasks = [asyncio.create_task(send(client)) for client in (one, two) for _ in range(6)]
            for _ in range(2):
                goal = len(arrivals.times) + 15
                while len(arrivals.times) < goal:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            goal = len(arrivals.times) + 15
            while len(arrivals.times) < goal:
                await asyncio.sleep(0.01)
            is_over = True
            assert sum(await asyncio.gather(*tasks)) == len(arrivals.times), "each request is one result"
    arrivals.check()


async def test_a_pause_after_a_429_holds_for_all_replicas(recorder: Recorder, postgres: str) -> None:
    async with client_of(recorder, postgres, retry=impasto.Retry(attempts=1)) as client:
        recorder.answer = lambda request: Answer(status=429, headers={"retry-after": "30"}, body=b"{}")
        with pytest.raises(impasto.ImpastoError):
            await client.run(MODEL, prompt="x")
    store = PostgresState(postgres)
    await store.workers.register("other", 60)
    fingerprint = await key_of(store)
    assert 20 < await store.rates.begin(fingerprint, 1, "other", LIMIT, 0.1) <= 60
    await store.aclose()


async def key_of(store: PostgresState) -> str:
    """The only key that has a window."""
    ((key,),) = await store._pool.fetch("SELECT key FROM {s}.rates")
    return str(key)


async def count_permits(store: PostgresState) -> int:
    """The number of permits."""
    ((count,),) = await store._pool.fetch("SELECT count(*) FROM {s}.permits")
    return int(count)


async def test_a_cancellation_at_any_await_leaves_no_permit_behind(recorder: Recorder, postgres: str) -> None:
    store = PostgresState(postgres)

    @asynccontextmanager
    async def open_store() -> AsyncIterator[PostgresState]:
        shared = PostgresState(postgres)
        yield shared
        await shared.aclose()

    window = StoreWindow(open_store)
    limit = RateLimit(1_000, 60.0)
    permits = []
    for steps in range(30):
        task = asyncio.create_task(window.acquire("key", limit))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, Permit):
            permits.append(outcome)
    for permit in permits:
        window.release(permit)
    async with asyncio.timeout(30):
        while await count_permits(store) or window._released:
            await asyncio.sleep(0.01)
    await window.aclose()
    await store.aclose()


async def test_a_process_stops_to_trust_its_lease_before_the_store_ends_it(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresState(postgres)
    lease = WorkerLease(store.workers)
    worker = await lease.hold()
    assert lease.is_valid
    assert await lease.hold() == worker
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 16)
    assert not lease.is_valid, "4 seconds before its end"
    assert await lease.hold() == worker, "renewed"
    assert lease.is_valid
    await store.workers.end(worker)
    lease.end()
    assert await lease.hold() != worker
    await lease.aclose()
    assert await store.workers.dead() == {}
    await store.aclose()
    with pytest.raises(StateError):
        await lease.hold() if not lease.is_valid else await store.now()


async def test_clients_of_one_store_share_it_and_its_owner_closes_it(recorder: Recorder, postgres: str) -> None:
    store = PostgresState(postgres)
    for _ in range(2):
        async with client_of(recorder, store, spend_limit_usd=1) as client:
            await client.run(MODEL, prompt="x")
    workers = await store._pool.fetch("SELECT id FROM {s}.workers")
    assert [row[0] for row in workers] == [store.lease.worker]
    assert await store.budgets.used(b"spend_limit_usd", "nano_usd", "ever") > 0
    await store.aclose()


async def test_a_client_has_one_store_for_its_rates_and_its_spending(
    recorder: Recorder, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[PostgresState] = []

    async def note(store: PostgresState) -> None:
        stores.append(store)

    monkeypatch.setattr(PostgresState, "open", note)
    async with client_of(recorder, postgres, spend_limit_usd=1) as client:
        await asyncio.gather(*(client.run(MODEL, prompt="x") for _ in range(3)))
    assert len(stores) == 1
    assert len(recorder.posts) == 3


async def test_a_store_of_one_machine_shares_no_windows(recorder: Recorder, tmp_path: Path) -> None:
    store = SQLiteState(str(tmp_path))
    async with client_of(recorder, store) as client:
        with pytest.raises(impasto.ConfigError, match="SQLiteState shares no rate limits; give a postgresql:// URL"):
            await client.run(MODEL, prompt="x")
    await store.aclose()


async def test_a_store_for_one_machine_is_refused(recorder: Recorder) -> None:
    client = client_of(recorder, "nowhere://x")
    for use in (client.__aenter__, lambda: client.run(MODEL, prompt="x")):
        with pytest.raises(impasto.RegistryError, match="nowhere"):
            await use()
    await client.aclose()
    assert recorder.posts == []


async def test_a_password_is_in_no_repr_and_no_message(recorder: Recorder, postgres_server: PostgresServer) -> None:
    client = client_of(recorder, postgres_server.dsn(password="secret-word"))
    assert "secret-word" not in repr(client)
    with pytest.raises(impasto.ConfigError, match="refused the user or the password") as caught:
        await client.run(MODEL, prompt="x")
    await client.aclose()
    assert "secret-word" not in str(caught.value)
