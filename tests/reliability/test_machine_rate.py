"""One rate limit for all processes of a machine that use a key, over real sockets and with a process that is killed."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

import impasto
from tests.reliability.conftest import CORE, KEY
from tests.reliability.servers import Server
from tests.reliability.test_rates import most_in

pytestmark = pytest.mark.waits

LIMIT = impasto.RateLimit(6, 2.0)

CLIENT = f"""
import asyncio, sys
import impasto

async def stuck(wire, next):
    print("has a permit", flush=True)
    await asyncio.Event().wait()

async def main(url, state, calls, middleware):
    limit = impasto.RateLimit({LIMIT.requests}, {LIMIT.seconds})
    settings = dict(api_key={KEY!r}, api_base=url, rate_limit=limit, state=state, middleware=middleware)
    async with impasto.Client(**settings) as client:
        await asyncio.gather(*(client.run({CORE!r}, prompt="p") for _ in range(calls)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), [stuck] if "stuck" in sys.argv else []))
"""


async def start(url: str, state: Path, calls: int, *options: str) -> Process:
    command = [sys.executable, "-c", CLIENT, url, str(state), str(calls), *options]
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE)


async def test_three_processes_send_no_more_than_one_may(server: Server, tmp_path: Path) -> None:
    processes = [await start(server.url, tmp_path / "state", 6) for _ in range(3)]
    assert [await each.wait() for each in processes] == [0, 0, 0]
    times = [request.at for request in server.paid]
    assert len(times) == 18
    assert most_in(times, LIMIT.seconds) <= LIMIT.requests


async def test_a_process_that_was_killed_with_permits_holds_up_no_other(server: Server, tmp_path: Path) -> None:
    victim = await start(server.url, tmp_path / "state", LIMIT.requests, "stuck")
    assert victim.stdout is not None
    for _ in range(LIMIT.requests):
        await victim.stdout.readline()
    other = await start(server.url, tmp_path / "state", 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(other.wait()), 2 * LIMIT.seconds)
    assert not server.paid, "the victim may send its requests at any time"
    victim.kill()
    await victim.wait()
    assert await other.wait() == 0
    assert len(server.paid) == 1
