"""Tests of easel/gouache: impasto's conformance suite, and images fetched from a stand-in for Easel."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

import impasto
from impasto.testing import KEY as CANARY, Answer, OperationSuite, Refusal, Requirements, Scenario
from impasto_easel.stand_in import KEY, Easel, paint_image, refusal, serving

MODEL = "easel/gouache"
IMAGE = paint_image("a lighthouse", 7)
JSON = {"content-type": "application/json"}


def answer(status: int, body: object) -> Answer:
    """Return an answer of Easel."""
    return Answer(status=status, headers=JSON, body=json.dumps(body).encode())


def refused(status: int, code: str, error: type[impasto.ImpastoError]) -> Refusal:
    """Return a refusal of Easel, with the error that it must become."""
    return Refusal(answer=answer(status, {"error": {"code": code, "message": "no"}}), error=error)


class TestGouache(OperationSuite):
    """The conformance suite."""

    model = MODEL
    minimal = {"prompt": "a lighthouse"}
    others = {"size": "1536x1024", "quality": "draft", "seed": 1_234_567, "response_format": "b64_json"}
    endpoint = "https://api.easel.example/v1/images/generations"
    auth = {"header:authorization": f"Bearer {CANARY}"}
    constants = {"model": "gouache"}
    limits = {"prompt": (1, 4_000), "seed": (0, 2**31 - 1)}
    choices = {
        "size": ("1024x1024", "1536x1024", "1024x1536"),
        "quality": ("draft", "fine"),
        "response_format": ("url", "b64_json"),
    }
    defaults = {"size": "1024x1024", "quality": "fine", "response_format": "url"}
    reports = {"seed": 7, "usd": 0.04}
    requirements = Requirements(several_images=False)
    success = answer(200, {"data": [{"b64_json": base64.b64encode(IMAGE).decode(), "seed": 7}]})
    refusals = (
        refused(400, "invalid_request_error", impasto.BadRequest),
        refused(401, "invalid_api_key", impasto.Unauthorized),
        refused(402, "insufficient_quota", impasto.PaymentRequired),
        refused(403, "moderation_blocked", impasto.ContentFiltered),
        refused(429, "rate_limit_exceeded", impasto.RateLimited),
        refused(500, "server_error", impasto.ProviderFault),
    )


class TestGouacheByAddress(TestGouache):
    """The same if the answer is an address, and a second answer has the image."""

    golden = "golden/by_address"
    poll_interval = 1.0
    first_poll = 0.0
    result_ttl = 3600.0
    reports = {"usd": 0.04}
    scenarios = {
        "the image is gone": Scenario(
            answers=(
                answer(200, {"data": [{"url": "{url}/v1/files/0123456789abcdef.png"}]}),
                answer(404, {"error": {"code": "not_found", "message": "no such image"}}),
            ),
            error=impasto.ChargeUnknown,
        )
    }

    job_accepted = answer(200, {"data": [{"url": "{url}/v1/files/0123456789abcdef.png"}]})
    success = Answer(headers={"content-type": "image/png"}, body=IMAGE)


Act = Callable[[Easel, impasto.Client], Awaitable[Any]]


def act(do: Act, **settings: Any) -> Any:
    """Return the result of ``do``, called with Easel and a client."""

    async def run() -> Any:
        async with serving() as easel:
            reach = {"easel": {"api_base": easel.url, "api_key": KEY}}
            async with impasto.Client(providers=reach, poll_interval=0.05, **settings) as client:
                return await do(easel, client)

    return asyncio.run(run())


@pytest.mark.parametrize("form", [None, "url", "b64_json"])
def test_an_image_comes_in_either_form_for_one_charge(form: str | None) -> None:
    async def do(easel: Easel, client: impasto.Client) -> None:
        result = await client.run(MODEL, prompt="a lighthouse", seed=7, response_format=form)
        assert result.artifacts[0].data == IMAGE
        assert result.cost is not None
        assert result.cost.usd == 0.04
        assert easel.charges == 1
        assert easel.fetch_keys == ([] if form == "b64_json" else [f"Bearer {KEY}"])

    act(do)


def test_an_image_is_there_at_once_and_not_after_an_interval() -> None:
    async def do(easel: Easel, client: impasto.Client) -> None:
        await client.with_options(poll_interval=1e6).run(MODEL, prompt="a lighthouse")

    act(do)


def test_fetching_is_tried_again_and_never_paid_again() -> None:
    async def do(easel: Easel, client: impasto.Client) -> None:
        easel.fetches = [
            web.Response(status=503, text="a proxy's page"),
            refusal(500, "server_error", "later"),
            web.Response(body=IMAGE[:50], content_type="image/png"),
        ]
        result = await client.run(MODEL, prompt="a lighthouse", seed=7)
        assert result.artifacts[0].data == IMAGE
        assert (easel.charges, len(easel.fetch_keys)) == (1, 4)

    act(do)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1/files/0123456789abcdef.png", "/v1/../secret.png", "//x/y"])
def test_an_address_on_another_host_is_not_followed(address: str) -> None:
    async def do(easel: Easel, client: impasto.Client) -> None:
        easel.address = address
        with pytest.raises(
            impasto.UnusableResult, match="has an address that is not an image .*: nothing was fetched"
        ) as caught:
            await client.run(MODEL, prompt="a lighthouse")
        assert address.encode() in caught.value.raw
        assert (easel.charges, easel.fetch_keys) == (1, [])

    act(do)


def test_a_redirect_is_not_followed() -> None:
    async def do(easel: Easel, client: impasto.Client) -> None:
        easel.fetches = [web.Response(status=302, headers={"location": "http://127.0.0.1:9/"}) for _ in range(1000)]
        with pytest.raises(impasto.ChargeUnknown) as caught:
            await client.run(MODEL, prompt="a lighthouse", seed=7, timeout=0.5)
        easel.fetches = []
        assert caught.value.id is not None
        result = await client.resume(MODEL, caught.value.id)
        assert result.artifacts[0].data == IMAGE
        assert easel.charges == 1

    act(do)


def test_a_missing_image_may_have_been_charged() -> None:
    async def do(easel: Easel, client: impasto.Client) -> None:
        # A new image may be missing for a moment: it is asked for three times.
        easel.fetches = [refusal(404, "not_found", "no such image") for _ in range(3)]
        with pytest.raises(impasto.ChargeUnknown, match="could not be fetched: no such image") as caught:
            await client.run(MODEL, prompt="a lighthouse")
        assert caught.value.billed == "unknown"
        assert (await client.resume(MODEL, caught.value.id or "")).artifacts
        assert easel.charges == 1
        with pytest.raises(impasto.InvalidRequest, match="must be the path of an image"):
            await client.resume(MODEL, "/v1/keys")

    act(do)


def test_a_refusal_costs_nothing() -> None:
    async def do(easel: Easel, client: impasto.Client) -> None:
        with pytest.raises(impasto.ContentFiltered, match="not this"):
            await client.run(MODEL, prompt="forbidden")
        assert easel.charges == 0

    act(do)
