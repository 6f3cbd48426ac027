"""Batches as OpenAI's SDK makes them: a file of lines, a batch, its results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import openai
import pytest

from impasto_plugins.gateway.batches import job, scheduler

MAKE, EDIT = "/v1/images/generations", "/v1/images/edits"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(job, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(scheduler, "WATCH_SECONDS", 0.1)


def line(id: object, url: str = MAKE, **body: object) -> dict[str, object]:
    """A line of an input file."""
    return {"custom_id": id, "method": "POST", "url": url, "body": {"model": "core", "prompt": "a fox", **body}}


def jsonl(lines: Sequence[object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


async def submit(sdk: openai.AsyncOpenAI, lines: Sequence[object] | bytes, endpoint: Any = MAKE, **more: Any) -> Any:
    file = await sdk.files.create(
        file=("in.jsonl", lines if isinstance(lines, bytes) else jsonl(lines)), purpose="batch"
    )
    return await sdk.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


async def finish(sdk: openai.AsyncOpenAI, batch: Any) -> Any:
    async with asyncio.timeout(60):
        while batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
            await asyncio.sleep(0.05)
            batch = await sdk.batches.retrieve(batch.id)
    return batch


async def results(sdk: openai.AsyncOpenAI, id: str | None) -> dict[str, Any]:
    """The lines of a file of results, by their ids."""
    assert id is not None
    content = await sdk.files.content(id)
    assert (await sdk.files.retrieve(id)).bytes == len(content.content)
    lines = [json.loads(each) for each in content.text.splitlines()]
    assert len({each["custom_id"] for each in lines}) == len(lines)
    return {each["custom_id"]: each for each in lines}
