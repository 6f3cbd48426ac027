"""Answers that come compressed although nobody asked for that: what was paid for is delivered all the same."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

import impasto
from impasto_plugins.transports.content_coding import DamagedCoding, decompress
from tests.bedrock import KEYS, PICTURE, pictured
from tests.conftest import KEY
from tests.images import png
from tests.recorder import Answer, Recorder, in_json, picture

CORE = "stability/stable-image-core"
ON_BEDROCK = "bedrock/stability.stable-image-core-v1:1"
FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
}
FAST = impasto.Retry(base=0.001, cap=0.002)


def coded(answer: Answer, coding: str) -> Answer:
    """The same answer as a proxy compresses it."""
    return Answer(
        status=answer.status,
        headers={**answer.headers, "content-encoding": coding},
        body=FORMATS[coding](answer.body),
    )


async def run(recorder: Recorder, answer: Answer, model: str = CORE) -> impasto.Result:
    recorder.answer = lambda _: answer
    settings: dict[str, Any] = {"api_key": KEY, "api_base": recorder.url}
    if model == ON_BEDROCK:
        settings = {**KEYS, "bedrock_endpoint": recorder.url}
    async with impasto.Client(retry=FAST, **settings) as client:
        return await client.run(model, prompt="p")


@pytest.mark.parametrize("coding", FORMATS)
async def test_a_compressed_image_is_delivered(recorder: Recorder, coding: str) -> None:
    image = png(64, 64)
    result = await run(recorder, coded(picture(image), coding))
    assert [each.data for each in result.artifacts] == [image]


@pytest.mark.parametrize("coding", FORMATS)
async def test_a_compressed_image_in_json_is_delivered(recorder: Recorder, coding: str) -> None:
    answer = in_json({"image": base64.b64encode(PICTURE).decode(), "finish_reason": "SUCCESS", "seed": 7})
    for body, model in ((answer, CORE), (pictured(), ON_BEDROCK)):
        result = await run(recorder, coded(body, coding), model)
        assert [(each.data, each.seed) for each in result.artifacts] == [(PICTURE, 7)]


@pytest.mark.parametrize("coding", FORMATS)
async def test_a_compressed_refusal_is_a_refusal(recorder: Recorder, coding: str) -> None:
    refusal = in_json({"id": "a", "name": "rate_limit_exceeded", "errors": ["slow down"]}, status=429)
    refusal.headers["retry-after"] = "0"
    with pytest.raises(impasto.RateLimited, match="slow down") as caught:
        await run(recorder, coded(refusal, coding))
    assert caught.value.billed == "no"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity", "x", "gzip, gzip"])
async def test_an_image_that_is_not_compressed_after_all_is_delivered(recorder: Recorder, coding: str) -> None:
    """Some proxies decompress a body and leave the header."""
    answer = picture()
    answer.headers["content-encoding"] = coding
    assert [each.data for each in (await run(recorder, answer)).artifacts] == [answer.body]


@pytest.mark.parametrize("damage", ["cut", "changed"])
async def test_a_damaged_one_is_kept(recorder: Recorder, damage: str) -> None:
    image = png(64, 64) + bytes(range(256)) * 64
    answer = coded(picture(image), "gzip")
    body = answer.body[:-9] if damage == "cut" else answer.body[:-5] + b"damag"
    headers = {**answer.headers, "content-length": str(len(body))}
    with pytest.raises(impasto.ChargeUnknown, match="the compressed answer is") as caught:
        await run(recorder, Answer(headers=headers, body=body))
    assert caught.value.raw.startswith(image[:64] if damage == "cut" else body)
    assert len(recorder.posts) == 1


async def test_a_coding_that_is_not_known_keeps_the_bytes(recorder: Recorder) -> None:
    body = b"\x28\xb5\x2f\xfd" + bytes(20)  # Zstandard
    headers = {"content-type": "image/png", "content-encoding": "zstd"}
    with pytest.raises(impasto.UnusableResult) as caught:
        await run(recorder, Answer(headers=headers, body=body))
    assert (caught.value.raw, caught.value.billed) == (body, "yes")


async def test_a_bomb_ends_at_the_bound_on_answers(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto_plugins.transports.https.MAX_BYTES", 2**20)
    with pytest.raises(impasto.ChargeUnknown, match="larger than 1,048,576 bytes") as caught:
        await run(recorder, coded(picture(PICTURE + bytes(64 * 2**20)), "gzip"))
    assert len(caught.value.raw) < 2 * 2**20


async def decode(data: bytes, cuts: list[int]) -> bytes:
    async def chunks() -> AsyncIterator[bytes]:
        edges = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
        for start, end in itertools.pairwise(edges):
            yield data[start:end]

    return b"".join([piece async for piece in decompress(chunks())])


@given(
    members=st.lists(st.binary(max_size=200), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
    padding=st.integers(0, 3),
)
async def test_it_is_read_alike_however_it_is_cut(members: list[bytes], cuts: list[int], padding: int) -> None:
    data = b"".join(map(gzip.compress, members)) + bytes(padding)
    assert await decode(data, cuts) == b"".join(members)


@pytest.mark.parametrize("size", [2**18 - 1, 2**18, 2**18 + 1, 2**20])
async def test_none_of_a_large_one_is_left_behind(size: int) -> None:
    data = bytes(size)
    assert await decode(gzip.compress(data), [len(gzip.compress(data)) - 1]) == data
    with pytest.raises(DamagedCoding):
        await decode(gzip.compress(data)[:-1], [])


def test_json_begins_like_no_compressed_answer() -> None:
    assert not json.dumps({"image": ""}).encode().startswith((b"\x1f", b"\x78"))


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"\x89PNG \x1f \x78", b"\x89PNG \x1f \x78"),  # announced as compressed, and not compressed
        (gzip.compress(b" \x1f \x78", compresslevel=0, mtime=0), b" \x1f \x78"),
    ],
)
async def test_the_first_byte_alone_says_if_an_answer_is_compressed(data: bytes, content: bytes) -> None:
    """Later pieces may begin with the same byte."""
    for byte in (b"\x1f", b"\x78"):
        assert await decode(data, [data.rindex(byte)]) == content
