"""``stream=True`` of the drop-in functions: OpenAI's events, with partial images or without."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import impasto
from impasto import ChargeUnknown, InvalidRequest
from impasto.registry import OPERATIONS
from impasto_plugins.openai_compat import background
from tests.conftest import KEY
from tests.distributions import install
from tests.images import png
from tests.reliability.servers import Server, serving
from tests.streams import FINAL, HEAD, PREVIEWS, chunk, completed, preview, stream, whole

MODULE = "from tests.streams import PAINT, RETOUCH\n"
POINTS = {"acme/paint": "acme_streamed:PAINT", "acme/retouch": "acme_streamed:RETOUCH"}


@pytest.fixture(autouse=True)
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme-streamed", {OPERATIONS: POINTS}, {"acme_streamed": MODULE})
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A loop of its own for the blocking functions: that of the process has looked for models before."""
    monkeypatch.setattr(background, "_current", own := background.Background())
    yield
    own.close()


@pytest.fixture
async def provider() -> AsyncIterator[Server]:
    async with serving(Server(posts=[stream(preview(0), preview(1), completed())])) as server:
        yield server


def to(server: Server, **more: Any) -> dict[str, Any]:
    return {"model": "acme/paint", "prompt": "a kite", "api_key": KEY, "api_base": server.url, **more}


def images(events: list[Any]) -> list[bytes]:
    return [base64.b64decode(each.b64_json, validate=True) for each in events]


async def test_partial_images_and_the_completed_one_are_openais_events(provider: Server) -> None:
    events = [each async for each in await impasto.aimage_generation(**to(provider, stream=True, partial_images=2))]
    assert [each.type for each in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert images(events) == [*PREVIEWS[:2], FINAL]
    assert [each["partial_image_index"] for each in events[:2]] == [0, 1]
    assert {"created_at", "size", "quality", "background", "output_format"} < set(events[0].model_dump())
    done = events[2]
    assert (done.size, done.output_format) == ("64x64", "png")
    assert (done.usage.total_tokens, done.cost.usd) == (12, 0.04)
    assert json.loads(provider.paid[0].body) == {"prompt": "a kite", "partial_images": 2, "stream": True}
    assert done.b64_json not in repr(done)


async def test_an_edit_has_its_own_names(provider: Server) -> None:
    provider.posts = [stream(preview(0, kind="image_edit"), completed(kind="image_edit"))]
    response = await impasto.aimage_edit(image=png(8, 8), stream=True, **to(provider, model="acme/retouch"))
    assert [each.type async for each in response] == ["image_edit.partial_image", "image_edit.completed"]


@pytest.mark.usefixtures("loop")
async def test_the_blocking_function_returns_an_iterator(provider: Server) -> None:
    events = await asyncio.to_thread(lambda: [*impasto.image_generation(**to(provider, stream=True))])
    assert images(events) == [*PREVIEWS[:2], FINAL]


@pytest.mark.usefixtures("loop")
async def test_a_blocking_iterator_that_is_left_cancels_the_call(provider: Server) -> None:
    leave = asyncio.Event()

    async def answer(request: Any, wire: Any) -> None:
        await wire.send(HEAD + chunk(preview(0)))
        await wire.reader.read()
        leave.set()

    def first() -> object:
        events = impasto.image_generation(**to(provider, stream=True))
        for event in events:
            return event.type
        return ""

    provider.posts = [answer]
    assert await asyncio.to_thread(first) == "image_generation.partial_image"
    await asyncio.wait_for(leave.wait(), 10)
    assert len(provider.paid) == 1


async def test_a_provider_that_does_not_stream_completes_once(provider: Server) -> None:
    provider.posts = [whole()]
    events = [each async for each in await impasto.aimage_generation(**to(provider, stream=True))]
    assert ([each.type for each in events], images(events)) == (["image_generation.completed"], [FINAL])


async def test_a_stream_that_breaks_off_may_have_been_charged(provider: Server) -> None:
    provider.posts = [stream(preview(0), 0.05, last=b"", end="reset")]
    events = await impasto.aimage_generation(**to(provider, stream=True))
    with pytest.raises(ChargeUnknown):
        _ = [each async for each in events]
    assert len(provider.paid) == 1


@pytest.mark.parametrize(
    ("words", "param"),
    [
        ({"stream": True, "n": 2}, "n"),
        ({"stream": True, "response_format": "url"}, "response_format"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"extra_body": {"stream": True}}, "stream"),
        ({"partial_images": 2}, "partial_images"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
    ],
    ids=str,
)
async def test_an_option_that_can_not_be_streamed_is_refused_by_name(
    provider: Server, words: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_generation(**to(provider, **words))
    assert [each.field for each in caught.value.problems] == [param]
    assert provider.paid == []


@pytest.mark.parametrize("value", [False, None])
async def test_without_stream_the_answer_is_whole(provider: Server, value: bool | None) -> None:
    provider.posts = [whole()]
    response = await impasto.aimage_generation(**to(provider, stream=value))
    assert base64.b64decode(response.data[0].b64_json or "") == FINAL
