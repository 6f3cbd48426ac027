"""One ``spend_limit_usd`` for all clients of a state, over processes, kills and restarts."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from pathlib import Path

import pytest

import impasto
from tests.reliability.conftest import CORE, KEY, MakeClient
from tests.reliability.servers import Server, http, picture, refused, silence

PRICE = 0.03
"""USD of an image of stable-image-core, see the contract."""

SPEND = f"""
import asyncio, sys
import impasto

async def main(url, state, limit):
    async with impasto.Client(api_key={KEY!r}, api_base=url, state=state, spend_limit_usd=float(limit)) as client:
        calls = (client.run({CORE!r}, prompt="p") for _ in range(8))
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert not isinstance(error, BaseException) or isinstance(error, impasto.SpendLimitExceeded), error

asyncio.run(main(*sys.argv[1:4]))
"""


async def start(server: Server, state: Path, images: int) -> Process:
    command = [sys.executable, "-c", SPEND, server.url, str(state), str(images * PRICE)]
    return await asyncio.create_subprocess_exec(*command)


async def test_three_processes_spend_no_more_than_one_may(server: Server, tmp_path: Path) -> None:
    processes = [await start(server, tmp_path, 10) for _ in range(3)]
    assert [await each.wait() for each in processes] == [0, 0, 0]
    assert len(server.paid) == 10


async def test_the_limit_holds_over_restarts(server: Server, make_client: MakeClient, tmp_path: Path) -> None:
    for _ in range(2):
        await make_client(server.url, state=tmp_path, spend_limit_usd=2 * PRICE).run(CORE, prompt="p")
    with pytest.raises(impasto.SpendLimitExceeded, match="only 0 of spend_limit_usd=0.06 is left"):
        await make_client(server.url, state=tmp_path, spend_limit_usd=2 * PRICE).run(CORE, prompt="p")
    await make_client(server.url, state=tmp_path, spend_limit_usd=3 * PRICE).run(CORE, prompt="p")
    assert len(server.paid) == 3


async def test_a_refused_call_does_not_count_and_an_unknown_charge_does(
    server: Server, make_client: MakeClient, tmp_path: Path
) -> None:
    server.posts = [refused(400), http(504, b"gone"), picture()]
    client = make_client(server.url, state=tmp_path, spend_limit_usd=2 * PRICE)
    for expected in (impasto.BadRequest, impasto.ChargeUnknown):
        with pytest.raises(expected):
            await client.run(CORE, prompt="p")
    await client.run(CORE, prompt="p")
    with pytest.raises(impasto.SpendLimitExceeded):
        await client.run(CORE, prompt="p")


async def test_the_requests_of_a_killed_process_count(server: Server, make_client: MakeClient, tmp_path: Path) -> None:
    server.posts = [silence]
    victim = await start(server, tmp_path, 8)
    async with asyncio.timeout(30):
        while len(server.paid) < 8:
            await asyncio.sleep(0.01)
    victim.kill()
    await victim.wait()
    with pytest.raises(impasto.SpendLimitExceeded):
        await make_client(server.url, state=tmp_path, spend_limit_usd=8 * PRICE).run(CORE, prompt="p")


async def test_a_cancelled_call_counts_if_it_was_sent(server: Server, make_client: MakeClient, tmp_path: Path) -> None:
    server.posts = [silence]
    client = make_client(server.url, state=tmp_path, spend_limit_usd=PRICE)
    call = asyncio.create_task(client.run(CORE, prompt="p"))
    async with asyncio.timeout(30):
        while not server.paid:
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(impasto.SpendLimitExceeded):
        await client.run(CORE, prompt="p")


async def test_without_its_state_nothing_is_sent(server: Server, make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the place of a folder")
    client = make_client(server.url, state=tmp_path / "state", spend_limit_usd=1.0)
    with pytest.raises(impasto.StorageError, match="nothing was sent"):
        await client.run(CORE, prompt="p")
    assert not server.paid
