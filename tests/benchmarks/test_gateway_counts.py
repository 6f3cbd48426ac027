"""What an answer of the gateway may cost, as counts: they hold on every machine, where times do not."""

from __future__ import annotations

import asyncio
import cProfile
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from benchmarks.floors import relay
from benchmarks.server import LARGE, SMALL, running

from impasto_plugins.gateway.config.loader import parse
from impasto_plugins.gateway.gateway import Gateway

KEY = "sk-counted-" + "k" * 24
MODEL = "stability/stable-image-core"


@asynccontextmanager
async def gateway(url: str, folder: Path) -> AsyncIterator[str]:
    """In this process, in front of a provider in another."""
    text = (
        f"model_list: [{{model_name: core, litellm_params: {{model: {MODEL}, api_key: k, api_base: '{url}'}}}}]\n"
        f"general_settings: {{master_key: {KEY}, data_dir: {folder}}}\nfiles: {{folder: {folder}/files}}\n"
    )
    async with Gateway(parse(text.encode())) as gateway:
        yield gateway.url


async def request_bytes(url: str, times: int) -> bytes:
    """Asks over one connection, with as little of Python as that takes; the last answer."""
    body = json.dumps({"model": "core", "prompt": "a lighthouse"}).encode()
    head = (
        f"POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1 << 22)
    answer = b""
    for _ in range(times):
        writer.write(head.encode() + body)
        top = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert top.startswith(b"http/1.1 200"), top
        answer = await reader.readexactly(int(top.partition(b"content-length:")[2].split(b"\r\n")[0]))
    writer.close()
    await writer.wait_closed()
    return answer


async def function_calls(url: str) -> float:
    """How many an answer takes."""
    await request_bytes(url, 3)
    profile = cProfile.Profile()
    with profile:
        await request_bytes(url, 100)
    return sum(entry.callcount for entry in profile.getstats()) / 100


@asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[str]:
    """The relay that the benchmarks have for a floor, in this process too."""
    runner = web.AppRunner(relay.relaying(url), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_an_answer_makes_few_more_function_calls_than_the_relays(tmp_path: Path) -> None:
    """What the ratio of CPU in ``python -m benchmarks gateway`` is made of: 1,200 over 810, the asking included."""
    with running(SMALL) as url:
        async with gateway(url, tmp_path) as ours, by_hand(url) as floor:
            assert await function_calls(ours) < 1.6 * await function_calls(floor)


async def test_a_large_answer_is_held_once_beside_its_base64_and_let_go_of(tmp_path: Path) -> None:
    with running(LARGE) as url:
        async with gateway(url, tmp_path) as ours:
            await request_bytes(ours, 3)
            tracemalloc.start()
            try:
                answer = await request_bytes(ours, 1)
                memory, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert len(answer) > 4 / 3 * LARGE
    assert memory < len(answer) + 0.1 * LARGE
    assert peak < len(answer) + 1.8 * LARGE  # the picture, and the pieces that come and go
