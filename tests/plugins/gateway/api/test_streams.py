"""Streams with partial images: OpenAI's events, one paid call, whatever its caller does."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from impasto import Artifact, Partial
from impasto.registry import OPERATIONS
from impasto_plugins.gateway.calls.streamed_answers import MAX_PARTIAL_IMAGES, PartialImages
from impasto_plugins.gateway.http.memory_budget import MemoryBudget, MemoryReservation
from tests.distributions import install
from tests.images import padded, png
from tests.node import find_node, run_node_tests
from tests.plugins.gateway.conftest import MASTER, Answer, Running, Start, config, entry
from tests.reliability.servers import Answer as ProviderAnswer, Server
from tests.streams import END, FINAL, HEAD, PREVIEWS, chunk, completed, failed, preview, stream, whole

MODULE = "from tests.streams import PAINT, RETOUCH\n"
POINTS = {"acme/paint": "acme_streams:PAINT", "acme/retouch": "acme_streams:RETOUCH"}
BODY: dict[str, Any] = {"model": "paint", "prompt": "a kite", "stream": True, "partial_images": 3}


@pytest.fixture
async def acme(start: Start, provider: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    install(tmp_path / "site", "acme-streams", {OPERATIONS: POINTS}, {"acme_streams": MODULE})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    entries = entry("paint", "acme/paint", provider.url) + entry("retouch", "acme/retouch", provider.url)
    return await start(config("", entries=entries))


def parsed(answer: Answer) -> list[tuple[str, dict[str, Any]]]:
    """The events of a whole answer, without the last, which is [DONE]."""
    *events, last, rest = answer.body.decode().split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    names = [each.split("\n") for each in events if not each.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in names]


def decoded(events: list[Any]) -> list[bytes]:
    return [base64.b64decode(each.b64_json, validate=True) for each in events]


def answer_in_two_parts(before: bytes, after: bytes) -> tuple[ProviderAnswer, asyncio.Event]:
    """An answer that stops in the middle, until the event is set."""
    go_on = asyncio.Event()

    async def answer(request: Any, wire: Any) -> None:
        await wire.send(HEAD + chunk(before))
        await go_on.wait()
        await wire.send(chunk(after) + END)

    return answer, go_on


async def test_partial_images_come_as_openais_events(acme: Running, provider: Server) -> None:
    provider.posts = [stream(preview(0), preview(1), preview(2), completed())]
    events = [each async for each in await acme.sdk.images.generate(**BODY)]
    assert [each.type for each in events] == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert decoded(events) == [*PREVIEWS, FINAL]
    assert [each.partial_image_index for each in events[:3]] == [0, 1, 2]
    assert events[3].usage.total_tokens == 12
    [sent] = provider.paid
    assert json.loads(sent.body) == {"prompt": "a kite", "partial_images": 3, "stream": True}


async def test_partial_images_of_an_edit(acme: Running, provider: Server) -> None:
    provider.posts = [stream(preview(0, kind="image_edit"), completed(kind="image_edit"))]
    response = await acme.sdk.images.edit(model="retouch", image=png(8, 8), prompt="p", stream=True, partial_images=1)
    events = [each async for each in response]
    assert [each.type for each in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert decoded(events) == [PREVIEWS[0], FINAL]


async def test_a_partial_image_is_sent_on_before_the_rest_comes(acme: Running, provider: Server) -> None:
    answer, go_on = answer_in_two_parts(preview(0), completed())
    provider.posts = [answer]
    events = await acme.sdk.images.generate(**BODY)
    assert (await asyncio.wait_for(anext(events), 10)).type == "image_generation.partial_image"
    go_on.set()
    assert [each.type async for each in events] == ["image_generation.completed"]


async def test_without_stream_the_provider_is_asked_for_none(acme: Running, provider: Server) -> None:
    provider.posts = [whole()]
    response = await acme.sdk.images.generate(model="paint", prompt="p")
    assert response.data is not None
    assert "stream" not in json.loads(provider.paid[0].body)


async def test_a_provider_that_does_not_stream_sends_its_image_as_an_event(acme: Running, provider: Server) -> None:
    provider.posts = [whole()]
    events = [each async for each in await acme.sdk.images.generate(**BODY)]
    assert [each.type for each in events] == ["image_generation.completed"]
    assert decoded(events) == [FINAL]


async def test_several_streamed_images_have_no_partial_ones(acme: Running, provider: Server) -> None:
    provider.posts = [whole()]
    answer = await acme.generate(**{**BODY, "n": 2, "partial_images": 0})
    assert [name for name, _ in parsed(answer)] == ["image_generation.completed"] * 2
    assert ["stream" in json.loads(each.body) for each in provider.paid] == [False, False]


@pytest.mark.parametrize("change", [{"n": 2}, {"stream": False}, {"stream": None}], ids=str)
async def test_partial_images_need_a_stream_of_one_image(
    acme: Running, provider: Server, change: dict[str, object]
) -> None:
    answer = await acme.generate(**{**BODY, **change})
    assert (answer.status, answer.error["param"], provider.paid) == (400, "partial_images", [])
    assert answer.error["message"] == "partial_images: needs stream and n=1; leave it out (nothing was sent)"


async def test_an_error_after_partial_images_is_an_event(acme: Running, provider: Server) -> None:
    provider.posts = [stream(preview(0), 0.1, failed("moderation_blocked"))]
    events = await acme.sdk.images.generate(**BODY)
    assert (await anext(events)).type == "image_generation.partial_image"
    with pytest.raises(openai.APIError) as caught:
        _ = [each async for each in events]
    assert caught.value.code == "moderation_blocked"
    assert len(provider.paid) == 1


async def test_a_stream_that_breaks_off_may_have_been_charged(acme: Running, provider: Server) -> None:
    provider.posts = [stream(preview(0), 0.1, last=b"", end="reset")]
    events = await acme.sdk.images.generate(**BODY)
    with pytest.raises(openai.APIError) as caught:
        _ = [each async for each in events]
    assert caught.value.code == "charge_unknown"
    assert len(provider.paid) == 1
    [path] = re.findall(r"/v1/images/files/\S+", caught.value.message)
    assert (await acme.ask("GET", path)).body == PREVIEWS[0]


async def test_a_call_whose_caller_leaves_runs_on_and_is_replayed(acme: Running, provider: Server) -> None:
    answer, go_on = answer_in_two_parts(preview(0), preview(1) + completed())
    provider.posts = [answer]
    headers = {"authorization": "Bearer sk-1234", "idempotency-key": "one"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{acme.url}/v1/images/generations", json=BODY) as response:
            assert b"partial_image" in await response.content.readline()
            response.close()
        go_on.set()
        await acme.idle()
        async with session.post(f"{acme.url}/v1/images/generations", json=BODY) as response:
            again = Answer(response.status, response.headers, await response.read())
    [(name, event)] = parsed(again)
    assert name == "image_generation.completed"
    assert base64.b64decode(event["b64_json"]) == FINAL
    assert len(provider.paid) == 1


async def test_a_repeat_during_the_call_gets_its_result(acme: Running, provider: Server) -> None:
    answer, go_on = answer_in_two_parts(preview(0), completed())
    provider.posts = [answer]
    headers = {"idempotency-key": "two"}
    events = await acme.sdk.images.generate(**BODY, extra_headers=headers)
    assert (await anext(events)).type == "image_generation.partial_image"
    repeat = asyncio.create_task(acme.ask("POST", "/v1/images/generations", json=BODY, headers=headers))
    await asyncio.sleep(0.05)
    go_on.set()
    assert [each.type async for each in events] == ["image_generation.completed"]
    assert parsed(await repeat)[-1][0] == "image_generation.completed"
    assert len(provider.paid) == 1


async def test_a_slow_caller_misses_older_partial_images_and_holds_up_nothing(acme: Running, provider: Server) -> None:
    large, was_sent = chunk(preview(0, padded(1 << 20))), asyncio.Event()

    async def answer(request: Any, wire: Any) -> None:
        await wire.send(HEAD)
        for _ in range(30):
            await wire.send(large)
        await wire.send(chunk(completed()) + END)
        was_sent.set()

    provider.posts = [answer]
    async with acme.session.post(f"{acme.url}/v1/images/generations", json=BODY) as response:
        await asyncio.wait_for(was_sent.wait(), 30)  # nobody has read anything
        names = [name for name, _ in parsed(Answer(200, {}, await response.read()))]
    assert names[-1] == "image_generation.completed"
    assert 0 < names.count("image_generation.partial_image") < 30


async def test_openais_javascript_sdk_reads_the_events(acme: Running, provider: Server) -> None:
    provider.posts = [stream(preview(0), preview(1), completed())]
    script = Path(__file__).with_name("streams.test.cjs")
    await run_node_tests(find_node("openai"), script, GATEWAY=acme.url, KEY=MASTER)
    assert len(provider.paid) == 1


def test_partial_images_that_wait_are_bounded() -> None:
    async def fill() -> list[int]:
        memory = MemoryBudget(10 << 20)
        waiting = PartialImages(MemoryReservation(memory))
        for index in range(100):
            waiting.add(Partial(Artifact(data=b"x", media_type="image/png"), index))
        few = [each.index for each in waiting.take()]
        for index in range(3):
            waiting.add(Partial(Artifact(data=bytes(5 << 20), media_type="image/png"), index))
        assert memory.used_bytes == 5 << 20
        with MemoryReservation(memory) as others:
            others.reserve(5 << 20)
            waiting.add(Partial(Artifact(data=bytes(6 << 20), media_type="image/png"), 3))  # it waits for no memory
        assert [*waiting.take()] == []
        waiting.add(Partial(Artifact(data=bytes(5 << 20), media_type="image/png"), 2))
        few += [each.index for each in waiting.take()]
        assert memory.used_bytes == 0
        return few

    assert asyncio.run(fill()) == [*range(100 - MAX_PARTIAL_IMAGES, 100), 2]


async def test_a_job_is_not_streamed(acme: Running, provider: Server) -> None:
    answer = await acme.ask("POST", "/v1/images/generations", json=BODY, headers={"prefer": "respond-async"})
    assert (answer.status, answer.error["param"], provider.paid) == (400, "stream", [])
