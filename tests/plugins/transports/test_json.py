"""A request that its plugin wants in JSON: numbers as numbers, files in base64, and the same proof of what left."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

import impasto
from impasto import Account, File, InvalidRequest, Operation, Registry, Request, WireRequest
from impasto.registry import OPERATIONS
from impasto_plugins.stability.direct import DirectDialect
from tests.conftest import KEY
from tests.images import png
from tests.recorder import Recorder

ERASE = Registry().operation("stability/erase")
MOST = 10_000


class InJson(DirectDialect):
    """The vendor's dialect, were it JSON."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        return attrs.evolve(super().transform_request(operation, request, account), encoding="json", max_bytes=MOST)


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[impasto.Client]:
    registry = Registry()
    registry.add(OPERATIONS, "stability/erase", attrs.evolve(ERASE, dialect=InJson()))
    async with impasto.Client(registry=registry, api_key=KEY, api_base=recorder.url) as client:
        yield client


async def test_fields_and_files_arrive_in_one_object(
    client: impasto.Client, recorder: Recorder, tmp_path: Path
) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(png(64, 64))
    await client.run("stability/erase", image=png(96, 96), mask=path, grow_mask=7.5, seed=3)
    (post,) = recorder.posts
    assert post.header("content-type") == "application/json"
    assert post.header("authorization") == f"Bearer {KEY}"
    encoded = {name: base64.b64encode(data).decode() for name, data in (("image", png(96, 96)), ("mask", png(64, 64)))}
    assert json.loads(post.body) == {"grow_mask": 7.5, "seed": 3, **encoded}


async def test_a_body_that_is_too_long_is_refused_before_anything_is_sent(
    client: impasto.Client, recorder: Recorder
) -> None:
    large = File.of(png(96, 96) + bytes(MOST))
    with pytest.raises(InvalidRequest, match=r"image: the whole request may have 10,000 bytes and has 13,"):
        await client.run("stability/erase", image=large)
    assert recorder.requests == []
