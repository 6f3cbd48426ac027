"""A database that is away as a paid answer comes: what became of the call is stored when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from impasto import RateLimit
from impasto.provider import Account
from impasto_plugins.gateway.storage.late_writes import LateWrites
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.gateway.api.test_jobs import URI
from tests.plugins.gateway.conftest import Answer, Running, Start, config, key_entry
from tests.plugins.gateway.raw import until
from tests.postgres import PostgresServer, own_server
from tests.reliability.servers import Server, in_json, picture, refused
from tests.reliability.test_idempotency_keys import behind, reached

from .test_repeats import ask, replayed

pytestmark = pytest.mark.waits

KEY = "sk-studio-" + "k" * 24
JOB = "b" * 64


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    """A server that the test may stop."""
    with own_server() as server:
        yield server


@attrs.frozen
class World:
    """A gateway, its database, and a provider whose answers wait for ``gate``."""

    gateway: Running
    database: PostgresServer
    provider: Server
    gate: asyncio.Event

    @property
    def late_writes(self) -> LateWrites:
        return self.gateway.gateway._idempotency.store.late_writes

    async def leave(self, call: Awaitable[Answer]) -> None:
        """Begin a call, and hang up as soon as the provider has it."""
        before = len(self.provider.paid)
        calling = asyncio.ensure_future(call)
        await reached(self.provider, before + 1)
        calling.cancel()
        await asyncio.wait([calling])

    async def answer_without_database(self) -> None:
        """Let the provider answer while the database is away, and start that again."""
        await asyncio.to_thread(self.database.stop)
        self.gate.set()
        await until(lambda: bool(self.late_writes._changes))
        await asyncio.to_thread(self.database.start)


@pytest.fixture
async def world(
    start: Start, provider: Server, database: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    """With short windows of rates: after its start the database waits for one."""
    from impasto.client_state import ClientState

    new_account = ClientState.new_account

    def with_short_window(*args: Any, **options: Any) -> Account:
        return attrs.evolve(new_account(*args, **options), rate_limit=RateLimit(20, 0.5))

    monkeypatch.setattr(ClientState, "new_account", with_short_window)
    gate = asyncio.Event()
    provider.posts = [behind(gate, picture())]
    (tmp_path / "data").mkdir()
    general = f"  state: {database.dsn()}\n  data_dir: {tmp_path / 'data'}\n"
    text = config(provider.url, general=general, more="keys:\n" + key_entry("studio", KEY, images_per_day=1))
    return World(await start(text), database, provider, gate)


async def test_an_sdks_retry_gets_the_image_of_the_call_that_its_caller_left(world: World) -> None:
    await world.leave(ask(world.gateway, count=0))
    await asyncio.to_thread(world.database.stop)
    world.gate.set()
    await until(lambda: bool(world.late_writes._changes))
    early = await ask(world.gateway, count=1)
    assert (early.status, early.headers["x-should-retry"]) == (503, "true")
    await asyncio.to_thread(world.database.start)
    retried = await ask(world.gateway, count=2)
    assert (retried.status, replayed(retried)) == (200, True)
    assert len(world.provider.paid) == 1


async def test_an_amount_that_a_call_did_not_spend_is_given_back(world: World) -> None:
    world.provider.posts = [behind(world.gate, refused(403, "content_moderation")), picture()]
    world.gateway.session.headers["authorization"] = f"Bearer {KEY}"
    refusal = asyncio.create_task(ask(world.gateway))
    await reached(world.provider, 1)
    await world.answer_without_database()
    assert (await refusal).error["code"] == "moderation_blocked"
    await until(lambda: not world.late_writes._changes)
    assert (await ask(world.gateway)).status == 200
    assert (await ask(world.gateway)).error["code"] == "insufficient_quota"


@pytest.mark.parametrize("headers", [{"idempotency-key": "k"}, {"x-stainless-retry-count": "0"}], ids=["key", "sdk"])
async def test_the_job_of_a_call_is_recorded(world: World, headers: dict[str, str]) -> None:
    world.provider.posts = [behind(world.gate, in_json({"id": JOB}))]
    world.provider.polls = [in_json({"id": JOB, "status": "in-progress"}, 202)]
    edit = {"model": "creative", "prompt": "p", "images": [{"image_url": URI}]}
    call = asyncio.create_task(world.gateway.ask("POST", "/v1/images/edits", json=edit, headers=headers))
    await reached(world.provider, 1)
    await world.answer_without_database()
    store = PostgresState(world.database.dsn())
    async with asyncio.timeout(30):
        while not (rows := await store._pool.fetch("SELECT jobs FROM {s}.calls WHERE jobs <> ''")):
            await asyncio.sleep(0.01)
    await store.aclose()
    assert JOB in rows[0]["jobs"]
    world.provider.polls = [picture()]
    assert (await call).status == 200
    assert len(world.provider.paid) == 1
