"""The promise with real processes and OpenAI's own SDK: time-outs, kills, restarts, several workers. One charge."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.images import drawn

from .conftest import MASTER, Process, Serve, config, entry, read_log, sdk_client

pytestmark = pytest.mark.waits

SD3 = "stability/sd3.5-large"


def text(emulator: Emulator, *, key: str = KEY, general: str = "") -> str:
    entries = entry("sd3", SD3, emulator.url, key) + entry("creative", "stability/upscale-creative", emulator.url, key)
    return config(emulator.url, entries=entries, general=general)


@asynccontextmanager
async def sdk(url: str, *, timeout: float = 60, retries: int = 2) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk_client(url, timeout=timeout, max_retries=retries) as client:
        yield client


async def started(emulator: Emulator, calls: int = 1) -> None:
    """Waits until the provider has so many requests."""
    async with asyncio.timeout(60):
        while len(emulator.requests) < calls:
            await asyncio.sleep(0.01)


async def raw(url: str, *headers: str, worker: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends a generation over a connection of its own, to one worker if that matters."""
    port = int(url.rpartition(":")[2])
    body = b'{"model":"sd3","prompt":"p"}'
    lines = [f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MASTER}", *headers]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close", "", ""]
    async with asyncio.timeout(60):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if worker is None or await asyncio.to_thread(_served_by, worker, writer.get_extra_info("sockname")[1]):
                break
            writer.close()
    writer.write("\r\n".join(lines).encode() + body)
    return reader, writer


def _served_by(worker: int, port: int) -> bool:
    for _ in range(20):  # until it is accepted
        if any(each.raddr and each.raddr.port == port for each in psutil.Process(worker).net_connections("tcp4")):
            return True
    return False


async def answered(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[int, dict[str, str], dict[str, object]]:
    """A whole answer: its status, its headers and its JSON."""
    head, _, body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
    writer.close()
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, json.loads(body)


def code(body: dict[str, object]) -> object:
    error = body["error"]
    assert isinstance(error, dict)
    return error["code"]


def children(process: Process) -> list[int]:
    return [child.pid for child in psutil.Process(process.pid).children()]


async def wait_for_exit(process: Process, worker: int) -> None:
    """Waits until a worker that was killed is no more: it listens until then."""
    async with asyncio.timeout(60):
        while worker in children(process):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("workers", "patience", "delay"), [("1", 1, 2.5), ("2", 0.4, 1.0)])
async def test_an_sdk_whose_patience_ends_pays_once_and_has_its_picture(
    serve: Serve, impasto_emulator: Emulator, workers: str, patience: float, delay: float
) -> None:
    _, url = await asyncio.to_thread(serve, text(impasto_emulator), "--workers", workers)
    impasto_emulator.fault("delay", seconds=delay)
    async with sdk(url, timeout=patience, retries=20) as client:
        response = await client.images.with_raw_response.generate(model="sd3", prompt="p")
    assert response.http_request.headers["x-stainless-retry-count"] != "0"
    assert response.headers["idempotent-replayed"] == "true"
    assert response.parse().data
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 1


async def test_an_sdk_that_gives_up_before_it_is_done_paid_once(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = await asyncio.to_thread(serve, text(impasto_emulator))
    impasto_emulator.fault("delay", seconds=2)
    async with sdk(url, timeout=0.3, retries=1) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.images.generate(model="sd3", prompt="p")
    await started(impasto_emulator)
    process.terminate()  # which waits for what is paid for
    assert await asyncio.to_thread(process.wait, 60) == 0
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 1


async def test_a_retry_that_reaches_another_worker_joins(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = await asyncio.to_thread(serve, text(impasto_emulator), "--workers", "2")
    first, other = children(process)
    impasto_emulator.fault("delay", seconds=1.5)
    _, writer = await raw(url, "x-stainless-retry-count: 0", worker=first)
    await started(impasto_emulator)
    writer.transport.abort()
    status, headers, body = await answered(*await raw(url, "x-stainless-retry-count: 1", worker=other))
    assert (status, headers["idempotent-replayed"], len(str(body["data"])) > 100) == (200, "true", True)
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 1


async def test_a_key_is_one_call_in_all_workers(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = await asyncio.to_thread(serve, text(impasto_emulator), "--workers", "2")
    impasto_emulator.fault("delay", seconds=0.5)
    calls = [await raw(url, "Idempotency-Key: k", worker=each) for each in children(process) for _ in range(3)]
    answers = [await answered(*each) for each in calls]
    assert {(status, json.dumps(body)) for status, _, body in answers} == {(200, json.dumps(answers[0][2]))}
    assert sum("idempotent-replayed" in headers for _, headers, _ in answers) == 5
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_call_whose_worker_was_killed_is_never_made_again(
    serve: Serve, impasto_emulator: Emulator, workers: str
) -> None:
    process, url = await asyncio.to_thread(serve, text(impasto_emulator), "--workers", workers)
    worker = children(process)[0] if workers == "2" else process.pid
    impasto_emulator.fault("delay", seconds=60)
    calls = [await raw(url, header, worker=worker) for header in ("x-stainless-retry-count: 0", "Idempotency-Key: k")]
    await started(impasto_emulator, 2)
    os.kill(worker, signal.SIGKILL)
    for reader, writer in calls:
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
    if workers == "2":
        await wait_for_exit(process, worker)
    else:
        await asyncio.to_thread(process.wait, 60)
        _, url = await asyncio.to_thread(serve, text(impasto_emulator))
    for header in ["x-stainless-retry-count: 1", "x-stainless-retry-count: 2", *["Idempotency-Key: k"] * 2]:
        status, headers, body = await answered(*await raw(url, header))
        assert (status, headers["x-should-retry"], code(body)) == (502, "false", "charge_unknown")
    assert len(impasto_emulator.requests) == 2


async def test_the_sdk_is_told_when_its_worker_was_killed(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = await asyncio.to_thread(serve, text(impasto_emulator), "--workers", "2")
    impasto_emulator.fault("delay", seconds=60)
    async with sdk(url, retries=20) as client:  # it goes on until a worker is there again
        call = asyncio.create_task(client.images.generate(model="sd3", prompt="p"))
        await started(impasto_emulator)
        for worker in children(process):
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(openai.InternalServerError) as caught:
            await call
    assert caught.value.code == "charge_unknown"
    assert len(impasto_emulator.requests) == 1


async def test_an_abandoned_call_ends_before_the_gateway_and_waits_for_the_retry(
    serve: Serve, impasto_emulator: Emulator
) -> None:
    process, url = await asyncio.to_thread(serve, text(impasto_emulator))
    impasto_emulator.fault("delay", seconds=1)
    _, writer = await raw(url, "x-stainless-retry-count: 0")
    await started(impasto_emulator)
    writer.transport.abort()
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0
    _, url = await asyncio.to_thread(serve, text(impasto_emulator))
    status, headers, _ = await answered(*await raw(url, "x-stainless-retry-count: 1"))
    assert (status, headers["idempotent-replayed"]) == (200, "true")
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 1


async def test_a_call_that_was_cancelled_at_the_end_is_reported_as_unknown(
    serve: Serve, impasto_emulator: Emulator
) -> None:
    given_up = text(impasto_emulator, general="  drain_seconds: 0.2\n")
    process, url = await asyncio.to_thread(serve, given_up)
    impasto_emulator.fault("delay", seconds=60)
    calls = [await raw(url, header) for header in ("x-stainless-retry-count: 0", "Idempotency-Key: k")]
    await started(impasto_emulator, 2)
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 1
    for _, writer in calls:
        writer.close()
    _, url = await asyncio.to_thread(serve, given_up)
    for header in ("x-stainless-retry-count: 1", "Idempotency-Key: k"):
        status, _, body = await answered(*await raw(url, header))
        assert (status, code(body)) == (502, "charge_unknown")
    assert len(impasto_emulator.requests) == 2


async def test_a_key_that_is_rotated_while_a_call_runs_is_not_the_calls(
    serve: Serve, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    process, url = await asyncio.to_thread(serve, text(impasto_emulator))
    impasto_emulator.fault("delay", seconds=1, method="POST")
    async with sdk(url, retries=0) as client:
        picture = drawn("PNG", size=(128, 128))
        call = asyncio.create_task(client.images.edit(model="creative", image=picture, prompt="p"))
        await started(impasto_emulator)
        (tmp_path / "config.yaml").write_text(text(impasto_emulator, key="sk-" + "rotated-" * 5))
        process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(read_log, process, "the configuration was reloaded")
        assert (await call).data
        assert len({request.key for request in impasto_emulator.requests}) == 1  # its polls came after that
        assert len(impasto_emulator.requests) > 1
        await client.images.edit(model="creative", image=picture, prompt="p")
    assert len({request.key for request in impasto_emulator.requests}) == 2
    assert len(impasto_emulator.charges) == 2
