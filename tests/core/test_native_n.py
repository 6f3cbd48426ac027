"""A provider that makes several images in one request: their number, costs, usage, seeds and losses."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

import impasto
from impasto import (
    Account,
    Artifact,
    BadRequest,
    ChargeUnknown,
    ContentFiltered,
    Cost,
    FailedArtifact,
    FlatPrice,
    ImpastoError,
    InvalidRequest,
    Operation,
    Provider,
    Registry,
    Request,
    Result,
    SpendLimitExceeded,
    UnusableResult,
    Usage,
    WireRequest,
    WireResponse,
)
from impasto.fields import integer, text
from impasto.registry import OPERATIONS
from impasto.testing import Answer, RecordedRequest, Recorder, recording
from tests.images import png

MAXIMUM = 4


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True)
    seed: int | None = integer(0, 1000)
    samples: int | None = integer(1, MAXIMUM)


class Dialect:
    """JSON with ``images``: base64, or null for one that was filtered, and ``tokens``."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        fields = attrs.asdict(request.params, filter=lambda _, value: value is not None)
        return WireRequest(target="/make", fields=fields, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        if response.status == 400:
            return BadRequest("no", status=400)
        return None if response.status == 200 else ChargeUnknown(f"HTTP {response.status}", status=response.status)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        body: Any = json.loads(response.body)
        images = [base64.b64decode(each) for each in body["images"] if each is not None]
        errors = [
            FailedArtifact(index=i, error=ContentFiltered("filtered", status=200, billed="no"))
            for i, each in enumerate(body["images"])
            if each is None
        ]
        tokens = body.get("tokens")
        return Result(
            artifacts=tuple(Artifact(data=each, media_type="image/png") for each in images),
            errors=tuple(errors),
            usage=Usage(input_tokens=tokens[0], output_tokens=tokens[1]) if tokens else None,
            cost=Cost(usd=body["usd"], as_of="2026-11-01") if "usd" in body else None,
        )


def bodies(recorder: Recorder) -> list[dict[str, Any]]:
    return sorted((json.loads(each.body) for each in recorder.posts), key=lambda each: each.get("seed", 0))


def makes(request: RecordedRequest, *, lacks: int = 0, filtered: int = 0, more: int = 0, **body: object) -> Answer:
    """As many images as are asked for; none asked for is the vendor's own default of four."""
    count = json.loads(request.body).get("samples", 4)
    images: list[str | None] = [
        base64.b64encode(png(8, 8 + i)).decode() for i in range(count - lacks - filtered + more)
    ]
    images[1:1] = [None] * filtered
    return Answer(headers={"content-type": "application/json"}, body=json.dumps({"images": images, **body}).encode())


@asynccontextmanager
async def acme(
    answer: Callable[[RecordedRequest], Answer] = makes, *, price: float | None = 0.04, **settings: Any
) -> AsyncIterator[tuple[impasto.Client, Recorder]]:
    provider = Provider(name="acme", base_url="https://api.acme.example")
    model = Operation(
        id="acme/four",
        title="Four",
        params=Params,
        target="/make",
        provider=provider,
        dialect=Dialect(),
        native_n=("samples", MAXIMUM),
        price=FlatPrice(cost=Cost(usd=price, as_of="2026-11-01")) if price is not None else None,
    )
    registry = Registry()
    registry.add(OPERATIONS, "acme/four", model)
    async with recording(answer) as recorder:
        where = {"acme": {"api_base": recorder.url, "api_key": "k"}}
        async with impasto.Client(registry=registry, providers=where, **settings) as client:
            yield client, recorder


@pytest.mark.parametrize(
    ("n", "requests"), [(1, [1]), (2, [2]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (9, [4, 4, 1]), (10, [4, 4, 2])]
)
async def test_n_images_take_as_few_requests_as_the_provider_allows(n: int, requests: list[int]) -> None:
    async with acme() as (client, recorder):
        result = await client.run("acme/four", prompt="a kite", n=n)
    assert len(result.artifacts) == n
    assert sorted((each["samples"] for each in bodies(recorder)), reverse=True) == requests
    assert result.cost is not None
    assert result.cost.usd == pytest.approx(0.04 * n)
    assert result.warnings == ()


async def test_seeds_count_on_over_the_requests() -> None:
    async with acme() as (client, recorder):
        await client.run("acme/four", prompt="a kite", n=10, seed=100)
        with pytest.raises(InvalidRequest, match="must be at most 991 with n=10"):
            await client.run("acme/four", prompt="a kite", n=10, seed=995)
    assert [(each["seed"], each["samples"]) for each in bodies(recorder)] == [(100, 4), (104, 4), (108, 2)]


async def test_the_number_is_given_by_n_alone() -> None:
    async with acme() as (client, recorder):
        with pytest.raises(
            InvalidRequest,
            match="samples: is set by n, the number of images .*; client.stream",
        ):
            await client.run("acme/four", prompt="a kite", samples=3)
    assert recorder.requests == []


async def test_fewer_images_than_asked_for_are_reported_by_their_index() -> None:
    async with acme(lambda request: makes(request, lacks=1)) as (client, _):
        result = await client.run("acme/four", prompt="a kite", n=6)
    assert len(result.artifacts) == 4
    assert len(result.errors) == 2
    for each in result.errors:
        assert isinstance(each.error, UnusableResult)
        assert each.error.billed == "unknown"
    assert {each.index for each in result.errors} <= set(range(6))


async def test_filtered_images_are_errors_and_the_others_are_kept() -> None:
    async with acme(lambda request: makes(request, filtered=1)) as (client, _):
        result = await client.run("acme/four", prompt="a kite", n=3)
    assert [type(each.error) for each in result.errors] == [ContentFiltered]
    assert result.errors[0].index == 1
    assert result.cost is not None
    assert result.cost.usd == pytest.approx(0.08)


async def test_if_all_are_filtered_the_call_fails_for_free() -> None:
    async with acme(lambda request: makes(request, filtered=2), spend_limit_usd=0.08) as (client, _):
        for _ in range(2):  # the limit still has room for the second
            with pytest.raises(ContentFiltered) as caught:
                await client.run("acme/four", prompt="a kite", n=2)
            assert (caught.value.billed, caught.value.billed_each) == ("no", ("no", "no"))


@pytest.mark.parametrize(("n", "each"), [(1, ()), (2, ("unknown",) * 2), (4, ("unknown",) * 4)])
async def test_the_error_of_one_request_is_that_of_each_of_its_images(n: int, each: tuple[str, ...]) -> None:
    async with acme(lambda _: Answer(status=502, body=b"<html>")) as (client, _):
        with pytest.raises(ImpastoError) as caught:
            await client.run("acme/four", prompt="a kite", n=n)
    assert (caught.value.billed, caught.value.billed_each) == ("unknown", each)


async def test_more_images_than_asked_for_are_counted_and_said() -> None:
    async with acme(lambda request: makes(request, more=2)) as (client, _):
        result = await client.run("acme/four", prompt="a kite", n=2)
    assert len(result.artifacts) == 4
    assert result.cost is not None
    assert result.cost.usd == pytest.approx(0.16)
    assert result.warnings == ("the provider answered one request for 2 with 4 artifacts: all are counted",)


async def test_a_refused_request_of_several_images_fails_for_each() -> None:
    def answer(request: RecordedRequest) -> Answer:
        return makes(request) if json.loads(request.body)["samples"] == 4 else Answer(status=400)

    async with acme(answer) as (client, _):
        result = await client.run("acme/four", prompt="a kite", n=6)
    assert len(result.artifacts) == 4
    assert [(each.index, type(each.error)) for each in result.errors] == [(4, BadRequest), (5, BadRequest)]
    assert {each.error.count for each in result.errors} == {2}


async def test_the_plugins_cost_and_usage_win_over_the_price() -> None:
    async with acme(lambda request: makes(request, tokens=[10, 1000], usd=0.5)) as (client, _):
        result = await client.run("acme/four", prompt="a kite", n=6)
    assert result.usage == Usage(input_tokens=20, output_tokens=2000)
    assert result.usage is not None
    assert result.usage.total_tokens == 2020
    assert result.cost is not None
    assert result.cost.usd == 1.0


async def test_a_spend_limit_reserves_the_estimate_and_settles_by_the_truth() -> None:
    async with acme(lambda request: makes(request, usd=0.01), spend_limit_usd=0.17) as (client, recorder):
        await client.run("acme/four", prompt="a kite", n=4)  # 0.16 is reserved, 0.01 spent
        await client.run("acme/four", prompt="a kite", n=4)
        with pytest.raises(SpendLimitExceeded, match=r"a call may cost 0.16 USD, only 0.15 of spend_limit_usd=0.17"):
            await client.run("acme/four", prompt="a kite", n=4)
    assert len(recorder.posts) == 2


async def test_an_end_of_call_sees_the_result_that_its_caller_gets() -> None:
    ends: list[Result | None] = []

    async def watch(wire: WireRequest, next: impasto.Handler) -> WireResponse:
        wire.call.on_end = (ends.append,)
        return await next(wire)

    async with acme(lambda request: makes(request, lacks=1), middleware=[watch]) as (client, _):
        result = await client.run("acme/four", prompt="a kite", n=2)
    assert ends == [result]


@pytest.mark.parametrize("n", [0, 11, True, "2"])
async def test_an_invalid_number_of_images_is_neither_requested_nor_fetched(n: int) -> None:
    async with acme() as (client, recorder):
        request = (await client.operation("acme/four")).request("acme/four", {"prompt": "a kite"})
        with pytest.raises(InvalidRequest, match="^acme/four: n: must be a whole number from 1 to 10"):
            await client.invoke("acme/four", request, n=n)
        with pytest.raises(InvalidRequest, match="^acme/four: n: must be a whole number from 1 to 10"):
            await client.resume("acme/four", "a-job", n=n)
    assert recorder.requests == []


async def test_an_estimate_sends_nothing_and_checks_everything() -> None:
    async with acme() as (client, recorder):
        cost = await client.estimate("acme/four", n=6, prompt="a kite")
        assert cost is not None
        assert cost.usd == pytest.approx(0.24)
        with pytest.raises(InvalidRequest, match="prompt: required"):
            await client.estimate("acme/four")
        with pytest.raises(InvalidRequest, match="must be a whole number from 1 to 10"):
            await client.estimate("acme/four", n=11, prompt="a kite")
    assert recorder.requests == []
    async with acme(price=None) as (client, _):
        assert await client.estimate("acme/four", prompt="a kite") is None
