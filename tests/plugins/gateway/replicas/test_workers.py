"""``impasto serve --workers`` with a bucket and a database: every worker answers, whatever ran before the fork."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from impasto_plugins.emulator import Emulator
from tests.moto_s3 import Bucket
from tests.plugins.gateway.conftest import MASTER, Serve, config

from .conftest import stored_in

pytestmark = pytest.mark.waits

COUNT_THREADS = """
import os

def fork(original=os.fork):
    import psutil

    with open(os.environ["FORKS"], "a") as file:
        file.write(f"{os.getpid()} {psutil.Process().num_threads()}\\n")
    return original()

os.fork = fork
"""


@pytest.fixture
def shared(impasto_emulator: Emulator, own_bucket: Bucket, postgres: str) -> str:
    """A configuration with a bucket and a database."""
    return config(impasto_emulator.url, models=("sd3",), general=f"  state: {postgres}\n", more=stored_in(own_bucket))


def workers_of(process: psutil.Process) -> set[int]:
    return {child.pid for child in process.children()}


def wait_for_other_workers(process: psutil.Process, former: set[int], count: int) -> set[int]:
    """Wait until ``count`` workers run that are not among the former ones."""
    end = time.monotonic() + 60
    while len(found := workers_of(process) - former) < count:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


def test_the_process_that_forks_has_one_thread_at_every_fork(serve: Serve, shared: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(COUNT_THREADS)
    forks = tmp_path / "forks"
    environment = {"PYTHONPATH": str(tmp_path / "site"), "FORKS": str(forks)}
    process, _ = serve(shared, "--workers", "2", **environment)
    supervisor = psutil.Process(process.pid)
    first = wait_for_other_workers(supervisor, set(), 2)
    os.kill(min(first), signal.SIGKILL)
    second = wait_for_other_workers(supervisor, {min(first)}, 2)
    process.send_signal(signal.SIGHUP)
    os.kill(max(second), signal.SIGKILL)
    wait_for_other_workers(supervisor, {min(first), max(second)}, 2)
    process.terminate()
    assert process.wait(60) == 0
    lines = [line.split() for line in forks.read_text().splitlines()]
    threads = [int(count) for pid, count in lines if int(pid) == process.pid]
    assert len(threads) >= 4
    assert set(threads) == {1}


async def ask_all(url: str, workers: set[int]) -> None:
    """Call the gateway on new connections until each worker has one, and has answered all of them."""
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        while True:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            headers = {"authorization": f"Bearer {MASTER}", "idempotency-key": "one for all workers"}
            body = {"model": "sd3", "prompt": "a fox"}
            async with session.post(f"{url}/v1/images/generations", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            if all(has_connection(each, url) for each in workers):
                return


def has_connection(pid: int, url: str) -> bool:
    port = int(url.rpartition(":")[2])
    connections = psutil.Process(pid).net_connections("tcp")
    return any(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in connections)


@pytest.mark.parametrize("start", range(3))
def test_every_worker_answers_at_every_start(serve: Serve, shared: str, impasto_emulator: Emulator, start: int) -> None:
    process, url = serve(shared, "--workers", "4")
    asyncio.run(ask_all(url, workers_of(psutil.Process(process.pid))))
    assert len(impasto_emulator.charges) == 1
    process.terminate()
    assert process.wait(60) == 0
