"""One client for each loop, closed when the loop ends."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest

import impasto
from impasto_plugins.openai_compat.clients import client_of_this_loop
from tests.recorder import Recorder


async def test_a_loop_has_one_client() -> None:
    first, second = await asyncio.gather(client_of_this_loop(), client_of_this_loop())
    assert first is second


def test_each_loop_has_its_own_and_ends_it() -> None:
    clients: list[impasto.Client] = []

    async def call() -> None:
        clients.append(await client_of_this_loop())
        await clients[-1].warm("stability/sd3")

    for _ in range(3):
        asyncio.run(call())
    assert len(set(clients)) == 3

    async def closed() -> None:
        for client in clients:
            with pytest.raises(impasto.ClientClosedError):
                await client.run("stability/sd3", prompt="a")

    asyncio.run(closed())


def test_loops_in_threads_do_not_disturb_each_other(wire: Recorder) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(3):
                asyncio.run(impasto.aimage_generation("a", "stability/sd3"))
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert len(wire.posts) == 12


def clients_and_accounts() -> int:
    gc.collect()
    return sum(isinstance(each, impasto.Client | impasto.Account) for each in gc.get_objects())


async def test_settings_of_a_call_leave_nothing_behind(wire: Recorder) -> None:
    await impasto.aimage_generation("a", "stability/sd3", api_key="sk-warm")
    before = clients_and_accounts()
    for i in range(20):
        await impasto.aimage_generation("a", "stability/sd3", api_key=f"sk-{i}")
    async with asyncio.timeout(60):  # a thread that worked for the last call may still hold it
        while clients_and_accounts() > before:
            await asyncio.sleep(0.01)


SCRIPT = """
import asyncio, logging
logging.getLogger("asyncio").addFilter(lambda record: "took" not in record.msg)  # how busy the machine is
from impasto import aimage_generation
async def main():
    await asyncio.gather(*(aimage_generation("a", "stability/sd3") for _ in range(3)))
{ending}
"""


@pytest.mark.parametrize(
    "ending",
    [
        "asyncio.run(main())",
        "asyncio.run(main()); asyncio.run(main())",
        "with asyncio.Runner() as runner: runner.run(main()); runner.run(main())",
        "asyncio.run(main(), debug=True)",
    ],
)
def test_no_connection_is_left_open(ending: str, wire: Recorder) -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT.format(ending=ending)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(wire.posts) in (3, 6)
