"""Calls with an idempotency key when things break: polls that are refused, closed clients, missing and full folders."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import impasto
from impasto import FlatPrice, Registry, UnusableResult
from impasto.ext import StateError, Use
from impasto.registry import OPERATIONS
from impasto_plugins.concurrency.seats import Seat
from impasto_plugins.state.sqlite import SQLiteState
from impasto_plugins.state.sqlite.connection import DATABASE_NAME
from tests.reliability.conftest import CORE, JOB_MODEL, KEY, MakeClient
from tests.reliability.hostile import IMAGE, MODEL, Dialect, operation
from tests.reliability.servers import (
    PICTURE,
    Server,
    accepted_job,
    http,
    in_json,
    pending,
    picture,
    refused,
    silence,
)
from tests.reliability.test_idempotency_keys import behind, reached
from tests.reliability.test_shared_spending import PRICE


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.mark.parametrize("status", [401, 404, 422, 429, 502])
async def test_a_refused_poll_never_makes_the_call_again(
    server: Server, make_client: MakeClient, state: Path, status: int
) -> None:
    server.posts, server.polls = [accepted_job()], [pending()]
    client = make_client(server.url, state=state)
    call: dict[str, Any] = {"image": PICTURE, "prompt": "p", "idempotency_key": "k"}
    with pytest.raises(impasto.ChargeUnknown):
        await client.run(JOB_MODEL, timeout=0.3, **call)
    server.polls = [refused(status)]
    with pytest.raises(impasto.ImpastoError) as caught:
        await client.run(JOB_MODEL, timeout=0.5, **call)
    assert caught.value.billed == "unknown"
    server.polls = [picture()]
    assert (await client.run(JOB_MODEL, **call)).artifacts[0].data == PICTURE
    assert len(server.paid) == 1


async def test_a_client_that_closes_forgets_calls_that_were_not_sent(
    server: Server, make_client: MakeClient, state: Path
) -> None:
    gate = asyncio.Event()
    server.posts = [behind(gate, picture()), picture()]
    client = make_client(server.url, state=state, max_concurrency=1)
    other = asyncio.create_task(client.run(CORE, prompt="another"))
    await reached(server, 1)
    waiting = asyncio.create_task(client.run(CORE, prompt="a kite", idempotency_key="k"))
    await asyncio.sleep(0.2)  # it waits for its slot; if it does not yet, the test holds all the same
    await client.aclose()
    await asyncio.gather(other, waiting, return_exceptions=True)
    assert len(server.paid) == 1
    again = make_client(server.url, state=state)
    assert (await again.run(CORE, prompt="a kite", idempotency_key="k")).artifacts[0].data == PICTURE


async def test_a_caller_that_waits_for_a_closed_client(server: Server, make_client: MakeClient, state: Path) -> None:
    server.posts = [silence]
    client, other = make_client(server.url, state=state), make_client(server.url, state=state)
    first = asyncio.create_task(other.run(CORE, prompt="a kite", idempotency_key="k"))
    await reached(server, 1)
    waiting = asyncio.create_task(client.run(CORE, prompt="a kite", idempotency_key="k"))
    await asyncio.sleep(0.3)  # it waits; if it does not yet, the client refuses it
    await client.aclose()
    with pytest.raises(impasto.ImpastoError) as caught:
        await waiting
    assert caught.value.billed == "unknown"
    await other.aclose()
    with pytest.raises(impasto.ChargeUnknown):
        await first


async def test_without_its_database_a_state_with_results_is_refused(
    server: Server, make_client: MakeClient, state: Path
) -> None:
    client = make_client(server.url, state=state)
    await client.run(CORE, prompt="a kite", idempotency_key="k")
    await client.aclose()
    for each in state.glob("*.sqlite3*"):
        each.unlink()
    store = SQLiteState(str(state))
    with pytest.raises(StateError, match="missing"):
        await store.migrate()
    await store.aclose()
    with pytest.raises(impasto.StorageError, match="missing"):
        await make_client(server.url, state=state).run(CORE, prompt="a kite", idempotency_key="k")
    assert len(server.paid) == 1


async def test_a_limit_that_was_lowered_refuses_and_breaks_nothing(server: Server, state: Path) -> None:
    registry = Registry()
    free = impasto.Cost(usd=0.0, as_of="2026-01-01")
    registry.add(OPERATIONS, MODEL, operation(price=FlatPrice(cost=free)))
    server.posts = [http(200, IMAGE, content_type="image/png")]
    provider = {"villain": {"api_base": server.url, "api_key": KEY}}
    store = SQLiteState(str(state))
    await store.open()
    await store.budgets.reserve(b"spend_limit_usd", [Use(what="nano_usd", period="ever", amount=5 * 10**9, limit=None)])
    await store.aclose()
    async with impasto.Client(registry=registry, providers=provider, state=state, spend_limit_usd=1.0) as client:
        await client.run(MODEL, prompt="p")


async def test_a_reservation_is_given_back_if_its_call_is_cancelled(
    server: Server, make_client: MakeClient, state: Path
) -> None:
    client = make_client(server.url, state=state, spend_limit_usd=2 * PRICE)
    await client.run(CORE, prompt="p")
    with closing(sqlite3.connect(state / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        call = asyncio.create_task(client.run(CORE, prompt="p"))
        await asyncio.sleep(0.2)
        call.cancel()
        await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await call
    await client.run(CORE, prompt="p")
    assert len(server.paid) == 2


async def test_an_unusable_answer_keeps_its_bytes(server: Server, make_client: MakeClient, state: Path) -> None:
    server.posts = [http(200, PICTURE[:-20], content_type="image/png")]
    client = make_client(server.url, state=state)
    errors = []
    for _ in range(2):
        with pytest.raises(UnusableResult) as caught:
            await client.run(CORE, prompt="a kite", idempotency_key="k")
        errors.append(caught.value)
    assert errors[1].raw == errors[0].raw == PICTURE[:-20]
    assert len(server.paid) == 1


async def test_images_that_came_with_errors_are_stored(server: Server, make_client: MakeClient, state: Path) -> None:
    server.posts = [
        picture(),
        http(200, PICTURE[:-20], content_type="image/png"),
        picture(finish_reason="CONTENT_FILTERED"),
    ]
    client = make_client(server.url, state=state)
    first = await client.run(CORE, n=3, prompt="a kite", idempotency_key="k")
    again = await client.run(CORE, n=3, prompt="a kite", idempotency_key="k")
    for one, other in zip(first.errors, again.errors, strict=True):
        assert getattr(one.error, "raw", None) == getattr(other.error, "raw", None)
        assert one.error.artifacts == other.error.artifacts


def test_a_process_without_free_files_does_not_declare_others_dead(tmp_path: Path) -> None:
    seat, other = Seat.take(tmp_path), Seat.take(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(OSError):
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        assert not seat.has_ended(other.number)
    finally:
        for each in files:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    seat.close()
    other.close()


class AcmeFault(impasto.ProviderFault):
    def __init__(self, code: int, hint: str) -> None:
        super().__init__(f"code {code}: {hint}", status=200, billed="yes")
        self.code = code


@pytest.mark.parametrize("odd", [b"bytes", object(), {1: 2}])
async def test_errors_of_plugins_are_stored(server: Server, state: Path, odd: object) -> None:
    class Odd(Dialect):
        def normalize_response(self, *args: Any, **kw: Any) -> Any:
            error = AcmeFault(7, "the lamp is out")
            error.status = odd  # type: ignore[assignment]
            error.artifacts = (impasto.Artifact(data=IMAGE, media_type="image/png"),)
            raise error

    registry = Registry()
    registry.add(OPERATIONS, MODEL, operation(Odd()))
    server.posts = [in_json({})]
    provider = {"villain": {"api_base": server.url, "api_key": KEY}}
    async with impasto.Client(registry=registry, providers=provider, state=state) as client:
        for _ in range(2):
            with pytest.raises(impasto.ProviderFault, match="code 7") as caught:
                await client.run(MODEL, prompt="p", idempotency_key="k")
            assert caught.value.artifacts[0].data == IMAGE
    assert len(server.paid) == 1


def test_seats_of_processes_that_ended_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a file of somebody else").touch()
    Seat.take(tmp_path).close()
    living = Seat.take(tmp_path)
    Seat.take(tmp_path).close()
    last = Seat.take(tmp_path)
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {f"{living.number:016x}", f"{last.number:016x}", "a file of somebody else"}
    living.close()
    last.close()


async def test_waiting_callers_outlive_cancelled_ones(server: Server, make_client: MakeClient, state: Path) -> None:
    gate = asyncio.Event()
    server.posts = [behind(gate, picture()), picture()]
    client = make_client(server.url, state=state)
    owner = asyncio.create_task(client.run(CORE, prompt="a kite", idempotency_key="k"))
    await reached(server, 1)
    waiting = [asyncio.create_task(client.run(CORE, prompt="a kite", idempotency_key="k")) for _ in range(4)]
    for each in waiting[:2]:
        await asyncio.sleep(0)
        each.cancel()
    gate.set()
    assert await owner == await waiting[2] == await waiting[3]
    assert len(server.paid) == 1
