"""Paid answers of a batch that can't be used: the error file names where their owner gets the bytes."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import Any

import pytest

from impasto_plugins.gateway.batches import job
from impasto_plugins.gateway.batches.finalization import finish_batch
from tests.plugins.gateway.conftest import Running, Start, config
from tests.reliability.servers import Server, in_json, picture, refused

from .conftest import finish, line, results, submit

FILTERED = {"finish-reason": "CONTENT_FILTERED"}


@pytest.fixture
async def gateway(start: Start, provider: Server) -> Running:
    return await start(config(provider.url))


async def _bodies(gateway: Running, message: str) -> list[bytes]:
    paths = re.findall(r"GET (/v1/images/files/[\w-]{43}\.\w+) has [^;]*, for 24 hours", message)
    return sorted([(await gateway.ask("GET", path)).body for path in paths])


async def test_the_error_of_a_line_names_the_file_of_each_answer(gateway: Running, provider: Server) -> None:
    provider.posts = [in_json({"x": 1}), in_json({"x": 2})]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", n=2)]))
    failure = (await results(gateway.sdk, batch.error_file_id))["a"]
    assert (failure["error"]["code"], failure["error"]["billed"]) == ("unusable_result", "yes")
    assert failure["response"]["body"]["error"]["message"] == failure["error"]["message"]
    assert await _bodies(gateway, failure["error"]["message"]) == [b'{"x": 1}', b'{"x": 2}']


async def test_the_error_of_a_line_names_its_blurred_image(gateway: Running, provider: Server) -> None:
    provider.posts = [picture(**FILTERED)]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))
    failure = (await results(gateway.sdk, batch.error_file_id))["a"]["error"]
    assert (failure["code"], failure["billed"]) == ("moderation_blocked", "unknown")
    (body,) = await _bodies(gateway, failure["message"])
    assert body.startswith(b"\x89PNG")


async def test_an_unusable_answer_beside_an_image_is_named(gateway: Running, provider: Server) -> None:
    provider.posts = [picture(), in_json({"x": 1})]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", n=2)]))
    body = (await results(gateway.sdk, batch.output_file_id))["a"]["response"]["body"]
    (failure,) = body["errors"]
    assert (len(body["data"]), failure["billed"]) == (1, "yes")
    assert await _bodies(gateway, failure["message"]) == [b'{"x": 1}']


async def test_a_line_was_charged_if_any_of_its_images_was(gateway: Running, provider: Server) -> None:
    provider.posts = [refused(400), in_json({"x": 1})]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", n=2)]))
    failure = (await results(gateway.sdk, batch.error_file_id))["a"]
    assert (failure["error"]["code"], failure["error"]["billed"]) == ("unusable_result", "yes")
    assert failure["response"]["status_code"] == 502


async def test_a_batch_ends_although_an_unusable_answer_was_deleted(
    gateway: Running, provider: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def finish_without_files(scheduler: Any, batch: Any, folder: Any, *others: Any, **options: Any) -> Any:
        await asyncio.to_thread(shutil.rmtree, folder.layout.salvage)
        return await finish_batch(scheduler, batch, folder, *others, **options)

    monkeypatch.setattr(job, "finish_batch", finish_without_files)
    provider.posts = [in_json({"x": 1})]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))
    assert batch.status == "completed"
    failure = (await results(gateway.sdk, batch.error_file_id))["a"]["error"]
    assert (failure["code"], "GET" in failure["message"]) == ("unusable_result", False)
    assert "can't be read" in caplog.text
