"""Tests of openai/gpt-image-1: impasto's conformance suite, and calls against the stand-in."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

import pytest
from impasto_openai.stand_in import StandIn, paint, serving
from PIL import Image

import impasto
from impasto.testing import KEY, Answer, OperationSuite, Refusal, Requirements, Scenario, Stream

MODEL = "openai/gpt-image-1"
IMAGE, OTHER, MASK = (paint("a lighthouse", number) for number in range(3))
JSON = {"content-type": "application/json", "x-request-id": "req_1"}
USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 272,
    "total_tokens": 322,
}


def answer(*images: bytes, status: int = 200, **body: object) -> Answer:
    """Return an answer in JSON."""
    data = {"data": [{"b64_json": base64.b64encode(each).decode()} for each in images]} if images else {}
    return Answer(status=status, headers=JSON, body=json.dumps({**data, **body}).encode())


def refused(status: int, code: str | None, error: type[impasto.ImpastoError], **headers: str) -> Refusal:
    """Return a refusal of OpenAI, with the error that it must become."""
    body = {"message": "no", "type": "invalid_request_error", "param": None, "code": code}
    return Refusal(answer=answer(status=status, error=body).with_headers(**headers), error=error)


def event(kind: str, image: bytes | None = None, **body: object) -> str:
    """Return an event of a stream."""
    name = f"image_generation.{kind}" if image is not None else kind
    data = {"type": name, **body, **({"b64_json": base64.b64encode(image).decode()} if image is not None else {})}
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def failure(code: str | None) -> str:
    """Return the event that reports an error."""
    return event("error", error={"message": "no", "type": "server_error", "param": None, "code": code})


def events(*several: str) -> Answer:
    """Return a stream of events."""
    return Answer(headers={**JSON, "content-type": "text/event-stream"}, body="".join(several).encode())


FIRST = event("partial_image", paint("a lighthouse", 2), partial_image_index=0)
SECOND = event("partial_image", paint("a lighthouse", 3), partial_image_index=1)


class TestGPTImage(OperationSuite):
    """The conformance suite."""

    model = MODEL
    minimal = {"prompt": "a lighthouse"}
    others = {
        "size": "1536x1024",
        "quality": "low",
        "background": "transparent",
        "output_format": "webp",
        "output_compression": 70,
        "partial_images": 2,
        "moderation": "low",
        "image": [IMAGE, OTHER],
        "mask": MASK,
        "input_fidelity": "high",
    }
    along_with = {"mask": {"image": [IMAGE]}, "input_fidelity": {"image": [IMAGE]}}
    names = {"image": "image[]"}
    native_n = ("n", 10)
    endpoint = "https://api.openai.com/v1/images/generations"
    endpoints = {"image": "https://api.openai.com/v1/images/edits"}
    auth = {"header:authorization": f"Bearer {KEY}"}
    constants = {"model": "gpt-image-1"}
    user = "user"
    limits = {
        "prompt": (1, 32_000),
        "n": (1, 10),
        "output_compression": (0, 100),
        "partial_images": (0, 3),
        "image": (1, 16),
    }
    choices = {
        "size": ("auto", "1024x1024", "1536x1024", "1024x1536"),
        "quality": ("auto", "low", "medium", "high"),
        "background": ("auto", "transparent", "opaque"),
        "output_format": ("png", "jpeg", "webp"),
        "moderation": ("auto", "low"),
        "input_fidelity": ("low", "high"),
    }
    defaults = {
        "n": 1,
        "size": "auto",
        "quality": "auto",
        "background": "auto",
        "output_format": "png",
        "output_compression": 100,
        "partial_images": 0,
        "moderation": "auto",
        "input_fidelity": "low",
    }
    encoding = "json"
    roles = {"prompt": "prompt", "image": "image", "mask": "mask"}
    mask_area = "transparent"
    success = answer(IMAGE, usage=USAGE)
    estimates = (({}, 0.25), ({"quality": "low"}, 0.016), ({"quality": "medium"}, 0.063))
    reports = {
        "usage": impasto.Usage(input_tokens=50, output_tokens=272, input_text_tokens=10, input_image_tokens=40),
        "usd": 0.01133,  # 10 tokens of text at 5 USD, 40 of images at 10 USD, 272 of output at 40 USD a million
    }
    requirements = Requirements(partial_results=False)
    refusals = (
        refused(400, "invalid_value", impasto.BadRequest),
        refused(400, "moderation_blocked", impasto.ContentFiltered),
        refused(401, "invalid_api_key", impasto.Unauthorized),
        refused(403, "unsupported_country", impasto.PermissionDenied),
        refused(404, "model_not_found", impasto.NotFound),
        refused(429, "rate_limit_exceeded", impasto.RateLimited, retry_after="3"),
        refused(429, "insufficient_quota", impasto.PaymentRequired),
        refused(500, None, impasto.ProviderFault),
        refused(503, None, impasto.ProviderFault),
    )
    stream = Stream(
        params={"partial_images": 2},
        answer=events(FIRST, SECOND, event("completed", IMAGE, usage=USAGE)),
        sends={"stream": True},
        partials=((0, paint("a lighthouse", 2)), (1, paint("a lighthouse", 3))),
        images=(IMAGE,),
        failures=tuple(
            Refusal(answer=events(FIRST, failure(code)), error=error, billed="unknown")
            for code, error in {"moderation_blocked": impasto.ContentFiltered, None: impasto.ProviderFault}.items()
        ),
    )
    scenarios = {
        "several images": Scenario(answers=(answer(IMAGE, OTHER, usage=USAGE),), images=(IMAGE, OTHER)),
        "one image of two is damaged": Scenario(
            answers=(answer(IMAGE, OTHER[:50]),), images=(IMAGE,), errors={1: impasto.UnusableResult}
        ),
        "moderated": Scenario(
            answers=(answer(status=400, error={"message": "no", "type": "x", "code": "moderation_blocked"}),),
            error=impasto.ContentFiltered,
            billed="no",
        ),
    }

    def requests(self) -> Iterator[Mapping[str, object]]:
        """Return the calls of the golden file: a generation and an edit, which take different fields."""
        edit = {"image", "mask", "input_fidelity"}
        yield {**self.minimal, **{name: value for name, value in self.others.items() if name not in edit}}
        yield {**self.minimal, **{name: value for name, value in self.others.items() if name != "moderation"}}


Act = Callable[[StandIn, impasto.Client], Awaitable[None]]


def act(do: Act, key: str = "any-key", **settings: Any) -> None:
    """Call ``do`` with a stand-in and a client."""

    async def run() -> None:
        async with serving("any-key") as openai:
            reach = {"openai": {"api_base": openai.url, "api_key": key}}
            async with impasto.Client(providers=reach, **settings) as client:
                await do(openai, client)

    asyncio.run(run())


def test_n_is_one_request_and_tokens_are_its_price() -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        result = await client.run(MODEL, prompt="a lighthouse", n=3, quality="low", size="1024x1024")
        assert [each.data for each in result.artifacts] == [paint("a lighthouse", index) for index in range(3)]
        assert (len(openai.requests), openai.charges) == (1, 3)
        assert openai.requests[0][1]["n"] == 3
        assert result.usage == impasto.Usage(
            input_tokens=2, output_tokens=816, input_text_tokens=2, input_image_tokens=0
        )
        assert result.cost is not None
        assert result.cost.usd == pytest.approx(2 * 5e-6 + 816 * 40e-6)
        estimate = await client.estimate(MODEL, n=3, prompt="a lighthouse", quality="low", size="1024x1024")
        assert estimate is not None
        assert estimate.usd == pytest.approx(0.048)

    act(do)


@pytest.mark.parametrize("images", [0, 2])
def test_partial_images_come_before_the_result(images: int) -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        image: dict[str, Any] = {"image": [IMAGE] * images} if images else {}
        outcomes = [
            each async for each in client.stream(MODEL, prompt="a boat", quality="low", partial_images=2, **image)
        ]
        *partial, result = outcomes
        assert [each.index for each in partial if isinstance(each, impasto.Partial)] == [0, 1]
        assert isinstance(result, impasto.Result)
        assert result.usage is not None
        assert (result.usage.output_tokens, openai.charges) == (272, 1)
        assert result.cost is not None

    act(do)


def test_an_edit_is_a_form_with_all_its_images_in_their_order() -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        result = await client.run(
            MODEL, prompt="combine them", image=[IMAGE, OTHER], mask=IMAGE, input_fidelity="high", output_compression=90
        )
        assert openai.images == [("image[]", IMAGE), ("image[]", OTHER), ("mask", IMAGE)]
        path, fields = openai.requests[0]
        assert path == "/v1/images/edits"
        assert fields == {
            "model": "gpt-image-1",
            "prompt": "combine them",
            "n": 1,
            "output_compression": 90,
            "input_fidelity": "high",
        }
        assert result.usage is not None
        assert result.usage.input_image_tokens == 3 * 323

    act(do)


def test_a_mask_needs_an_image() -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        with pytest.raises(impasto.InvalidRequest, match="mask"):
            await client.run(MODEL, prompt="a lighthouse", mask=IMAGE)
        assert openai.requests == []

    act(do)


def test_fewer_images_than_asked_for_are_reported() -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        result = await client.run(MODEL, prompt="a lighthouse one-fewer", n=3)
        assert (len(result.artifacts), [each.index for each in result.errors]) == (2, [2])

    act(do)


@pytest.mark.parametrize(
    ("word", "error", "billed"),
    [
        ("forbidden", impasto.ContentFiltered, "no"),
        ("no-quota", impasto.PaymentRequired, "no"),
        ("breaks", impasto.ProviderFault, "no"),
    ],
)
def test_an_outcome_is_an_error_with_its_bill(word: str, error: type[impasto.ImpastoError], billed: str) -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        with pytest.raises(error) as caught:
            await client.run(MODEL, prompt=f"a lighthouse {word}")
        assert (caught.value.billed, openai.charges) == (billed, 0)

    act(do, retry=impasto.Retry(attempts=1, refused=0))


def test_a_wrong_key_is_refused_and_never_shown() -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        with pytest.raises(impasto.Unauthorized, match="check OPENAI_API_KEY") as caught:
            await client.run(MODEL, prompt="a lighthouse")
        assert "wrong-key" not in str(caught.value)

    act(do, key="wrong-key")


def test_a_429_is_waited_for() -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        openai.busy = 1
        assert (await client.run(MODEL, prompt="a lighthouse")).artifacts
        assert (openai.charges, len(openai.requests)) == (1, 2)

    act(do)


def test_a_model_without_a_known_price_works() -> None:
    async def do(openai: StandIn, client: impasto.Client) -> None:
        result = await client.run("openai/gpt-image-1.5", prompt="a lighthouse")
        assert result.cost is None
        assert result.usage is not None

    act(do)


def test_a_mask_of_openais_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    file = BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(file, "png")
    mask = file.getvalue()

    async def do(openai: StandIn, client: impasto.Client) -> None:
        monkeypatch.setenv("OPENAI_API_BASE", openai.url)
        monkeypatch.setenv("OPENAI_API_KEY", "any-key")
        await impasto.aimage_edit(IMAGE, MODEL, "a window", mask=mask)
        assert dict(openai.images)["mask"] == mask

    act(do)
