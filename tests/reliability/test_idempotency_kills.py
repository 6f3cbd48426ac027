"""Kills, stops, forks and cancellation at every await of calls with an idempotency key."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

import impasto
from impasto_plugins.state.sqlite.connection import DATABASE_NAME
from tests.images import png
from tests.reliability.conftest import CORE, JOB_MODEL, KEY, MakeClient
from tests.reliability.servers import PICTURE, PICTURE_HEADERS, Server, head, in_json, picture, raw
from tests.reliability.steps import counting
from tests.reliability.test_idempotency_keys import behind, reached, start
from tests.reliability.test_shared_spending import PRICE


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


POINTS = ("before the record", "after the record", "image", "outcome", "before the end", "after the end")

KILLED = f"""
import asyncio, os, signal, sys
import impasto
from impasto_plugins.idempotent_calls import artifact_files
from impasto_plugins.state.sqlite.calls import SQLiteCalls

def reach(point):
    if point == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

def between(kind, name, before, after):
    method = getattr(kind, name)
    async def wrapped(self, *args, **options):
        reach(before)
        result = await method(self, *args, **options)
        reach(after)
        return result
    setattr(kind, name, wrapped)

between(SQLiteCalls, "insert_or_join", "before the record", "after the record")
between(SQLiteCalls, "update", "before the end", "after the end")
write = artifact_files.write_content

def counted(path, content):
    reach("outcome" if path.suffix == ".part" else "image")
    write(path, content)

artifact_files.write_content = counted

async def main(url, state):
    async with impasto.Client(api_key={KEY!r}, api_base=url, state=state) as client:
        await client.run({CORE!r}, prompt="a kite", idempotency_key="k")

asyncio.run(main(*sys.argv[1:3]))
"""


@pytest.mark.parametrize("point", POINTS)
async def test_killed_between_the_record_and_the_result(
    server: Server, make_client: MakeClient, state: Path, point: str
) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, server.url, str(state), point)
    assert await process.wait() == -signal.SIGKILL
    sent = len(server.paid)
    for _ in range(2):
        call = make_client(server.url, state=state).run(CORE, prompt="a kite", idempotency_key="k")
        if point in ("after the record", "image", "outcome"):
            with pytest.raises(impasto.ChargeUnknown, match="cut off"):
                await call
            assert len(server.paid) == sent
        else:  # nothing was recorded, or the whole result is on the disk
            assert (await call).artifacts[0].data == PICTURE
            assert len(server.paid) == 1


ACCEPTED = f"""
import asyncio, sys
import impasto
from tests.images import png

async def main(url, state):
    async with impasto.Client(api_key={KEY!r}, api_base=url, state=state, poll_interval=600) as client:
        await client.run({JOB_MODEL!r}, image=png(64, 64), prompt="p", n=2, idempotency_key="k")

asyncio.run(main(*sys.argv[1:3]))
"""


async def test_killed_before_the_first_poll_its_jobs_are_fetched(
    server: Server, make_client: MakeClient, state: Path
) -> None:
    server.posts = [in_json({"id": f"{number:064x}"}) for number in range(2)]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ACCEPTED, server.url, str(state))
    async with asyncio.timeout(60):
        while await asyncio.to_thread(_recorded_jobs, state) < 2:
            assert process.returncode is None
            await asyncio.sleep(0.01)
    process.kill()
    await process.wait()
    assert not server.polled
    client = make_client(server.url, state=state, poll_interval=0.01)
    result = await client.run(JOB_MODEL, image=png(64, 64), prompt="p", n=2, idempotency_key="k")
    assert [each.data for each in result.artifacts] == [PICTURE, PICTURE]
    assert (len(server.paid), len(server.polled)) == (2, 2)


def _recorded_jobs(state: Path) -> int:
    """Return the number of jobs in the record of a call."""
    if not (path := state / DATABASE_NAME).exists():
        return 0
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return sum(len(json.loads(jobs)) for (jobs,) in db.execute("SELECT jobs FROM calls WHERE jobs != ''"))
    return 0  # its tables are made just now


async def test_a_stopped_process_is_waited_for(server: Server, make_client: MakeClient, state: Path) -> None:
    gate = asyncio.Event()
    server.posts = [behind(gate, picture()), picture()]
    owner = await start(server, state)
    await reached(server, 1)
    owner.send_signal(signal.SIGSTOP)
    gate.set()
    client = make_client(server.url, state=state)
    with pytest.raises(impasto.ChargeUnknown, match="still runs"):
        await client.run(CORE, prompt="a kite", idempotency_key="k", timeout=0.5)
    owner.send_signal(signal.SIGCONT)
    assert (await client.run(CORE, prompt="a kite", idempotency_key="k")).artifacts[0].data == PICTURE
    await owner.wait()
    assert len(server.paid) == 1


async def test_clients_of_several_loops_share_one_request(server: Server, make_client: MakeClient, state: Path) -> None:
    gate = asyncio.Event()
    server.posts = [behind(gate, picture()), picture()]

    async def call() -> int:
        async with impasto.Client(api_key=KEY, api_base=server.url, state=state) as client:
            return len((await client.run(CORE, prompt="a kite", idempotency_key="k")).artifacts[0].data)

    calls = [asyncio.create_task(asyncio.to_thread(asyncio.run, call())) for _ in range(4)]
    await reached(server, 1)
    gate.set()
    assert set(await asyncio.gather(*calls)) == {len(PICTURE)}
    assert len(server.paid) == 1


@pytest.mark.parametrize("again", [(), (1,), (1, 2, 5)], ids=["once", "twice", "four times"])
async def test_cancelled_at_every_await(
    server: Server, make_client: MakeClient, state: Path, again: tuple[int, ...]
) -> None:
    answer = head(200, {**PICTURE_HEADERS, "content-length": str(len(PICTURE))})
    server.posts = [raw(answer, 0.0, PICTURE[:9], 0.0, PICTURE[9:])]
    client = make_client(server.url, state=state, spend_limit_usd=100.0)
    await client.warm(CORE)
    through = spent = 0
    with counting() as cancelled_at:
        for step in range(1, 500):
            server.requests.clear()
            call = partial(client.run, CORE, prompt="a kite", idempotency_key=f"k{step}")
            steps = await cancelled_at(call, (step, *(step + each for each in again)))
            assert steps.task is not None
            done = not steps.task.cancelled()
            await asyncio.sleep(0.003)  # what left arrives
            sent = len(server.paid)
            try:
                await client.run(CORE, prompt="a kite", idempotency_key=f"k{step}")
            except impasto.ChargeUnknown:
                assert sent, f"step {step}: nothing was sent"
            assert len(server.paid) <= 1, f"step {step}"
            spent += len(server.paid)
            async with client._shared.state_store() as store:
                used = await store.budgets.used(b"spend_limit_usd", "nano_usd", "ever")
            assert used == spent * round(PRICE * 1e9), f"step {step}"
            if done:
                through += 1
                if through > 3:
                    break
    assert through


FORK = f"""
import asyncio, os, sys
import impasto

async def main(url, state):
    async with impasto.Client(api_key={KEY!r}, api_base=url, state=state) as client:
        await client.run({CORE!r}, prompt="a kite", idempotency_key=sys.argv[3])

asyncio.run(main(*sys.argv[1:3]))
pid = os.fork()
asyncio.run(main(*sys.argv[1:3]))
if pid:
    assert os.waitpid(pid, 0)[1] == 0
"""


async def test_a_forked_process_uses_the_key(server: Server, state: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FORK, server.url, str(state), "k", stderr=PIPE)
    _, err = await process.communicate()
    assert process.returncode == 0, err
    assert len(server.paid) == 1
