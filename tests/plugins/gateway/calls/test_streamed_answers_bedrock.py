"""Bedrock's answers that are too large for memory: a picture in JSON waits on disk, and goes out from there."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from impasto_plugins.gateway.calls import streamed_answers as large_module
from impasto_plugins.gateway.http.spool import SpoolFile
from tests.bedrock import ACCESS_KEY, REGION, SECRET_KEY
from tests.plugins.gateway.conftest import Running, Start, config
from tests.reliability.servers import Answer, Server, head, raw, serving

from .test_streamed_answers import MIB, large, settled


def answered(body: bytes, *, cut: int = 0) -> Answer:
    """An answer in JSON, without its last bytes."""
    promised = head(200, {"content-type": "application/json", "content-length": str(len(body))})
    whole = body[: len(body) - cut]
    pieces = (whole[at : at + MIB] for at in range(0, len(whole), MIB))
    return raw(promised, *pieces, end="close" if cut else "")


def answer_body(*pictures: bytes) -> bytes:
    """As Bedrock writes it."""
    n = len(pictures)
    images = [base64.b64encode(picture).decode() for picture in pictures]
    body = {"seeds": list(range(7, 7 + n)), "finish_reasons": [None] * n, "images": images}
    return json.dumps(body, separators=(",", ":")).encode()


@pytest.fixture(autouse=True)
def little_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_MEMORY_BYTES", "IMAGE_BYTES"):
        monkeypatch.setattr(large_module, name, MIB)


@pytest.fixture
async def provider() -> AsyncIterator[Server]:
    async with serving() as server:
        server.posts = [answered(answer_body(large()))]
        yield server


@pytest.fixture
async def gateway(start: Start, provider: Server) -> Running:
    reach = {
        "model": "bedrock/stability.sd3-5-large-v1:0",
        "aws_region_name": REGION,
        "aws_access_key_id": ACCESS_KEY,
        "aws_secret_access_key": f'"{SECRET_KEY}"',
        "aws_bedrock_runtime_endpoint": provider.url,
    }
    lines = "".join(f"      {name}: {value}\n" for name, value in reach.items())
    return await start(config("", entries=f"  - model_name: sd3\n    litellm_params:\n{lines}"))


def pictures(answer: Any) -> list[bytes]:
    return [base64.b64decode(each["b64_json"], validate=True) for each in answer.json["data"]]


@pytest.mark.parametrize("stream", [False, True])
async def test_it_comes_whole(gateway: Running, provider: Server, stream: bool) -> None:
    answer = await gateway.generate(stream=stream)
    if stream:
        event = json.loads(answer.body.partition(b"data: ")[2].partition(b"\n")[0])
        assert base64.b64decode(event["b64_json"]) == large()
    else:
        assert pictures(answer) == [large()]
        assert (answer.json["data"][0]["seed"], answer.json["size"]) == (7, "64x64")
        assert int(answer.headers["content-length"]) == len(answer.body)
    assert len(provider.paid) == 1
    assert settled(gateway)


ODD = {
    "two pictures": (answer_body(large(), large(3 * MIB)), [large(), large(3 * MIB)]),
    "slashes as JSON may write them": (answer_body(large()).replace(b"/", b"\\/"), [large()]),
    "a picture that is small and much beside it": (
        answer_body(large(900))[:-1] + b',"more":"' + b"x" * 2 * MIB + b'"}',
        [large(900)],
    ),
    "the picture last": (
        b'{"more":"' + b"x" * 2 * MIB + b'",' + answer_body(large())[1:],
        [large()],
    ),
}


@pytest.mark.parametrize("name", ODD)
async def test_it_may_be_written_in_other_ways(gateway: Running, provider: Server, name: str) -> None:
    body, expected = ODD[name]
    provider.posts = [answered(body)]
    assert pictures(await gateway.generate()) == expected


UNUSABLE = {
    "damaged": answer_body(large()).replace(b"AAAA", b"A!AA", 1),
    "a picture cut short": answer_body(large()[:-20]),
    "no picture": answer_body(b"x" * 2 * MIB),
    "JSON cut short": answer_body(large())[:-2],
    "no JSON": b"x" * 2 * MIB,
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_an_unusable_answer_is_reported_as_paid(gateway: Running, provider: Server, name: str) -> None:
    provider.posts = [answered(UNUSABLE[name])]
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"]) == (502, "unusable_result")
    assert answer.headers["x-should-retry"] == "false"
    assert len(provider.paid) == 1
    assert settled(gateway)


async def test_an_answer_that_broke_off_may_have_been_charged(gateway: Running, provider: Server) -> None:
    provider.posts = [answered(answer_body(large()), cut=100)]
    answer = await gateway.generate()
    assert (answer.status, answer.error["code"]) == (502, "charge_unknown")
    assert settled(gateway)


@pytest.mark.parametrize("fits", [0, 3 * MIB])
async def test_an_answer_is_delivered_although_the_disk_is_full(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    append = SpoolFile._append

    def full(self: SpoolFile, piece: bytes) -> None:
        if self.size + len(piece) > fits:
            raise OSError(28, "No space left on device")
        append(self, piece)

    monkeypatch.setattr(SpoolFile, "_append", full)
    assert pictures(await gateway.generate()) == [large()]
    assert settled(gateway)


async def test_memory_does_not_grow_with_the_picture(
    gateway: Running, provider: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.posts = [answered(answer_body(large(30 * MIB)))]
    await gateway.ask("GET", "/v1/models")  # imports
    tracemalloc.start()
    try:
        body = {"model": "sd3", "prompt": "p"}
        async with gateway.session.post(f"{gateway.url}/v1/images/generations", json=body) as answer:
            size = 0
            async for piece in answer.content.iter_chunked(1 << 16):
                size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 40 * MIB
    assert peak < 16 * MIB
