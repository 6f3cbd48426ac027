"""A gateway that is killed as soon as a provider has accepted its job: the next one fetches it, and pays nothing."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.state.postgres import PostgresState
from tests.plugins.gateway.conftest import MASTER, Process, Serve, config, entry, read_log
from tests.plugins.state.postgres.test_migrations import execute

from .test_jobs import ASYNC, URI, polled, posts

pytestmark = pytest.mark.waits

EDIT = {"model": "creative", "prompt": "p", "images": [{"image_url": URI}]}
COUNT = "x-stainless-retry-count"
_IS_RECORDED = "SELECT count(*) FROM {s}calls WHERE state = 'running' AND jobs <> ''"


@attrs.frozen
class Machine:
    """A gateway's processes, one after the other. ``address``: that of their database, "" for one on this machine."""

    serve: Serve
    emulator: Emulator
    folder: Path
    address: str

    async def start(self, *, poll_interval: float = 0.05, rate_limit: str = "150/10s") -> tuple[Process, str]:
        general = f"  state: {self.address}\n  data_dir: {self.folder}\n" if self.address else ""
        entries = entry("creative", "stability/upscale-creative", self.emulator.url)
        entries += f"      rate_limit: {rate_limit}\n"
        text = config(self.emulator.url, entries=entries, general=general)
        assert "poll_interval: 0.05\n" in text
        text = text.replace("poll_interval: 0.05\n", f"poll_interval: {poll_interval}\n")
        return await asyncio.to_thread(self.serve, text)

    async def recorded(self, jobs: int = 1) -> None:
        """Wait until so many jobs of the provider are in the store."""
        async with asyncio.timeout(30):
            while await self._recorded() != jobs:
                await asyncio.sleep(0.01)

    async def _recorded(self) -> int:
        if not self.address:
            path = self.folder / "gateway.sqlite3"
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
                return int(db.execute(_IS_RECORDED.format(s="")).fetchone()[0])
        store = PostgresState(self.address)
        ((rows,),) = await store._pool.fetch(_IS_RECORDED.replace("{s}", "{s}."))
        await store.aclose()
        return int(rows)

    async def kill(self, process: Process) -> None:
        process.kill()
        await asyncio.to_thread(process.wait, 60)
        if self.address:  # the others need not wait for the end of its lease
            await execute(self.address, "UPDATE {s}.workers SET expires = expires - 80")


@pytest.fixture(params=["sqlite", "postgres"])
def machine(
    request: pytest.FixtureRequest, serve: Serve, impasto_emulator: Emulator, state: Path, tmp_path: Path
) -> Machine:
    if request.param == "sqlite":
        return Machine(serve, impasto_emulator, state, "")
    (tmp_path / "data").mkdir()
    return Machine(serve, impasto_emulator, tmp_path / "data", request.getfixturevalue("postgres"))


@pytest.fixture
async def session() -> Any:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {MASTER}"}) as session:
        yield session


async def edit(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> tuple[int, Any]:
    async with session.post(f"{url}/v1/images/edits", json=EDIT, headers=headers) as answer:
        return answer.status, await answer.json()


async def job_result(session: aiohttp.ClientSession, url: str, path: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            async with session.get(url + path) as answer:
                payload = await answer.json()
            if payload.get("status") != "in_progress":
                return payload
            await asyncio.sleep(0.02)


async def cut_off(
    machine: Machine, session: aiohttp.ClientSession, call: Callable[[str], Awaitable[tuple[int, Any]]]
) -> Any:
    """Kill a gateway once the job of this call is recorded, long before its first poll. Return the answer, if any."""
    process, url = await machine.start(poll_interval=600)
    calling = asyncio.ensure_future(call(url))
    await machine.recorded()
    assert [request.method for request in machine.emulator.requests] == ["POST"], "it was not polled"
    answer = await calling if calling.done() else None
    await machine.kill(process)
    await asyncio.gather(calling, return_exceptions=True)
    return answer


def check_paid_once(machine: Machine, payload: Any) -> None:
    assert base64.b64decode(payload["data"][0]["b64_json"]).startswith(b"\x89PNG"), payload
    assert posts(machine.emulator) == len(machine.emulator.charges) == 1


async def test_an_asynchronous_job(machine: Machine, session: aiohttp.ClientSession) -> None:
    process, url = await machine.start(poll_interval=600)
    status, job = await edit(session, url, ASYNC)
    assert status == 202
    await machine.recorded()
    await machine.kill(process)
    _, url = await machine.start()
    check_paid_once(machine, await job_result(session, url, f"/v1/images/jobs/{job['id']}"))


async def test_a_call_with_a_key(machine: Machine, session: aiohttp.ClientSession) -> None:
    key = {"idempotency-key": "k"}
    await cut_off(machine, session, lambda url: edit(session, url, key))
    _, url = await machine.start()
    status, payload = await edit(session, url, key)
    assert status == 200
    check_paid_once(machine, payload)


async def test_an_sdks_call_waits_for_the_job_of_its_first_attempt(
    machine: Machine, session: aiohttp.ClientSession
) -> None:
    await cut_off(machine, session, lambda url: edit(session, url, {COUNT: "0"}))
    machine.emulator.fault("pending", method="GET")
    _, url = await machine.start()
    retry = asyncio.create_task(edit(session, url, {COUNT: "1"}))
    await polled(machine.emulator, 1)
    machine.emulator.clear_faults()
    status, payload = await retry
    assert status == 200
    check_paid_once(machine, payload)
    status, payload = await edit(session, url, {COUNT: "1"})  # that of another call, whose first attempt was refused
    assert status == 200
    assert len(machine.emulator.charges) == 2


async def test_a_call_that_nobody_repeats(machine: Machine, session: aiohttp.ClientSession) -> None:
    """Its image is stored, and the log names the address."""
    await cut_off(machine, session, lambda url: edit(session, url, {}))
    process, url = await machine.start()
    line = await asyncio.to_thread(read_log, process, "/v1/images/jobs/")
    check_paid_once(
        machine, await job_result(session, url, "/v1/images/jobs/" + line.split("/v1/images/jobs/")[1].strip())
    )


@pytest.mark.parametrize("headers", [{}, {COUNT: "0"}, {"idempotency-key": "k"}], ids=["plain", "sdk", "key"])
async def test_a_job_that_came_to_its_end_is_not_fetched_again(
    machine: Machine, session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    process, url = await machine.start()
    status, payload = await edit(session, url, headers)
    assert status == 200
    check_paid_once(machine, payload)
    await machine.recorded(0)
    before = len(machine.emulator.requests)
    await machine.kill(process)
    _, url = await machine.start()
    await session.get(f"{url}/v1/models")
    assert len(machine.emulator.requests) == before


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_call_that_waited_for_its_turn_is_free_to_run_again(
    machine: Machine, session: aiohttp.ClientSession, is_async: bool
) -> None:
    process, url = await machine.start(rate_limit="1/15s")
    status, payload = await edit(session, url, {})
    assert status == 200
    await machine.recorded(0)
    key = {"idempotency-key": "k", **(ASYNC if is_async else {})}
    waiting = asyncio.create_task(edit(session, url, key))
    await machine.recorded()
    assert posts(machine.emulator) == 1, "it waits for its turn"
    job: dict[str, Any] = {}
    if is_async:
        _, job = await waiting
    await machine.kill(process)
    await asyncio.gather(waiting, return_exceptions=True)
    _, url = await machine.start()
    if is_async:
        failed = await job_result(session, url, f"/v1/images/jobs/{job['id']}")
        assert failed["status"] == "failed"
        assert "nothing was sent, send it again" in failed["error"]["message"]
    status, payload = await edit(session, url, key)
    if is_async:
        payload = await job_result(session, url, f"/v1/images/jobs/{payload['id']}")
    assert len(payload["data"]) == 1
    assert posts(machine.emulator) == len(machine.emulator.charges) == 2


async def test_a_call_that_was_sent_after_its_wait_is_not_made_again(
    machine: Machine, session: aiohttp.ClientSession
) -> None:
    process, url = await machine.start(rate_limit="1/4s")
    status, _ = await edit(session, url, {})
    assert status == 200
    await machine.recorded(0)
    machine.emulator.fault("delay", seconds=600, method="POST")
    waiting = asyncio.create_task(edit(session, url, {"idempotency-key": "k"}))
    await machine.recorded()
    async with asyncio.timeout(30):
        while posts(machine.emulator) < 2:
            await asyncio.sleep(0.01)
    await machine.kill(process)
    await asyncio.gather(waiting, return_exceptions=True)
    machine.emulator.clear_faults()
    _, url = await machine.start()
    status, payload = await edit(session, url, {"idempotency-key": "k"})
    assert (status, payload["error"]["code"]) == (502, "charge_unknown")
    assert "it may have been charged" in payload["error"]["message"]
    assert posts(machine.emulator) == 2
