"""Answers with several addresses of images: each is fetched, and one that fails loses no other."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

import impasto
from impasto import (
    Account,
    ChargeUnknown,
    ContentFiltered,
    Cost,
    Download,
    FlatPrice,
    ImpastoError,
    InvalidRequest,
    Operation,
    Pending,
    Provider,
    Registry,
    Request,
    Result,
    TransportError,
    UnusableResult,
    WireRequest,
    WireResponse,
)
from impasto.dialects import STATUSES, Refusals, image_in_body, images_from_urls, images_of_job, json_object, usage_in
from impasto.ext import result_of_cancelled
from impasto.fields import integer, text
from impasto.registry import OPERATIONS
from impasto.testing import Answer, RecordedRequest, Recorder, recording
from impasto.testing.recorder import HOSTS
from impasto_plugins.images.completeness import is_complete
from tests.images import png

KEY = "sk-canary-downloads-77"
SIZES = [(8, 8 + i) for i in range(10)]
IMAGES = [Answer(headers={"content-type": "image/png"}, body=png(*size)) for size in SIZES]
GONE = Answer(status=404, headers={"content-type": "application/xml"}, body=b"<Error>NoSuchKey</Error>")
BUSY = Answer(status=503, body=b"busy")
refusals = Refusals(STATUSES, message="error.message")


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = text(1, 100, required=True)
    seed: int | None = integer(0, 1000)
    num_outputs: int | None = integer(1, 4)


@attrs.define
class Dialect:
    """``{"urls": [...]}``: an address, or null for an image that was refused; without it a job that runs."""

    images: int = 0
    """Images that it has read."""

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest | Pending:
        if request.job is not None and "://" in request.job:
            return images_of_job(request.job, account, re.compile(r"http://\S+\.png\?sig=\w+"), anonymous=True)
        if request.job is not None:
            return WireRequest(target=f"/jobs/{request.job}", method="GET")
        fields = attrs.asdict(request.params, filter=lambda _, value: value is not None)
        return WireRequest(target="/submit", fields=fields, encoding="json")

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        if response.headers.get("x-broken"):
            raise LookupError("a fault of the plugin")
        if response.headers.get("x-vague"):
            return ChargeUnknown("the answer is not the vendor's")
        is_own = response.status == 200 and response.media_type in ("image/png", "application/json")
        return None if is_own else refusals(response)

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result | Pending:
        if response.headers.get("x-vague-image"):
            raise TransportError("the answer has no image")
        if response.headers.get("x-blocked"):
            raise ContentFiltered("blocked by the host of the images", status=200, billed="no")
        if response.media_type == "image/png":
            self.images += 1
            return image_in_body(response, is_complete)
        body: Any = json_object(response)
        if "urls" not in body:
            return Pending(id="job-1", poll=WireRequest(target="/jobs/job-1", method="GET"), interval=0.01)
        refused = ContentFiltered("refused by the vendor", status=200, billed="no")
        return images_from_urls(
            [refused if url is None else url for url in body["urls"]],
            response,
            anonymous=True,
            seeds=body.get("seeds", ()),
            finish_reasons=body.get("reasons", ()),
            revised_prompts=body.get("prompts", ()),
            cost=Cost(usd=body["usd"], as_of="2026-11-01") if "usd" in body else None,
            usage=usage_in(body.get("usage")),
        )


def says(**body: object) -> Answer:
    return Answer(headers={"content-type": "application/json"}, body=json.dumps(body).encode())


def addresses(count: int) -> list[str]:
    return [f"{{signed_url}}/{i}.png?sig=s{i}" for i in range(count)]


@attrs.define
class Vendor:
    """Accepts a job if ``accepts``, then answers with ``end``; ``images`` by their number, ``busy`` none at first."""

    end: Answer
    accepts: bool = True
    images: dict[int, Answer] = attrs.field(factory=dict[int, Answer])
    together: int = 0
    """So many images must be asked for before any is answered."""
    silent: set[int] = attrs.field(factory=set[int])
    """Images whose answers never come."""
    requests: set[int] = attrs.field(factory=set[int])
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    dialect: Dialect = attrs.field(factory=Dialect)

    async def __call__(self, request: RecordedRequest) -> Answer:
        if request.host != "signed_url":
            return says() if self.accepts and request.method == "POST" else self.end
        number = int(request.target[1:].partition(".")[0])
        self.requests.add(number)
        self.changed.set()
        while len(self.requests) < self.together or number in self.silent:
            self.changed.clear()
            await self.changed.wait()
        return self.images.get(number) or IMAGES[number]


@asynccontextmanager
async def acme(vendor: Vendor, **settings: Any) -> AsyncIterator[tuple[impasto.Client, Recorder]]:
    provider = Provider(name="acme", base_url="https://api.acme.example", key_header="x-key", key_prefix="")
    model = Operation(
        id="acme/x", title="X", params=Params, target="/submit", provider=provider, dialect=vendor.dialect,
        native_n=("num_outputs", 4), price=FlatPrice(cost=Cost(usd=0.02, as_of="2026-11-01")),
    )  # fmt: skip
    registry = Registry()
    registry.add(OPERATIONS, "acme/x", model)
    async with recording(vendor, HOSTS) as recorder:
        where = {"acme": {"api_base": recorder.url, "api_key": KEY}}
        options: dict[str, Any] = {"timeout": 20, "poll_interval": 0.01, **settings}
        async with impasto.Client(registry=registry, providers=where, **options) as client:
            yield client, recorder


def sizes(result: Result) -> list[int]:
    """The heights of the images, which tell one from another."""
    return [int.from_bytes(each.data[20:24], "big") for each in result.artifacts]


@pytest.mark.parametrize("accepts", [True, False], ids=["job", "direct"])
async def test_every_image_is_fetched_side_by_side_and_without_the_key(accepts: bool) -> None:
    end = says(urls=addresses(4), seeds=[5, 6, None, 8], reasons=["ok", None, "ok"], prompts=[None, "a", 7], usd=0.5)
    async with acme(Vendor(end, accepts, together=4)) as (client, recorder):
        result = await client.run("acme/x", prompt="a kite", n=4)
    assert sizes(result) == [8, 9, 10, 11]
    assert [each.seed for each in result.artifacts] == [5, 6, None, 8]
    assert [each.finish_reason for each in result.artifacts] == ["ok", None, "ok", None]
    assert [each.revised_prompt for each in result.artifacts] == [None, "a", None, None]
    assert (result.cost, result.errors, result.warnings) == (Cost(usd=0.5, as_of="2026-11-01"), (), ())
    assert len(recorder.posts) == 1
    fetched = [each for each in recorder.requests if each.host == "signed_url"]
    assert sorted(each.target for each in fetched) == [f"/{i}.png?sig=s{i}" for i in range(4)]
    assert not any(KEY in f"{each.headers}{each.target}{each.body!r}" for each in fetched)


@pytest.mark.parametrize("accepts", [True, False], ids=["job", "direct"])
async def test_the_request_id_is_that_of_the_answer_with_the_addresses(accepts: bool) -> None:
    """The host of the images is often another company's, and its id leads nowhere."""
    end = says(urls=addresses(2)).with_headers(x_request_id="req-of-the-addresses")
    images = {0: IMAGES[0].with_headers(x_amz_request_id="S3"), 1: IMAGES[1]}
    async with acme(Vendor(end, accepts, images=images)) as (client, _):
        result = await client.run("acme/x", prompt="a kite", n=2)
    assert result.request_id == "req-of-the-addresses"


async def test_the_usage_and_the_price_of_fetched_images_are_counted() -> None:
    end = says(urls=addresses(2), usage={"input_tokens": 7, "output_tokens": 90})
    async with acme(Vendor(end)) as (client, _):
        result = await client.run("acme/x", prompt="a kite", n=2)
    assert result.cost == Cost(usd=0.04, as_of="2026-11-01")
    assert result.usage is not None
    assert result.usage.total_tokens == 97


async def test_several_requests_keep_the_order_of_their_images() -> None:
    async with acme(Vendor(says(urls=addresses(4)))) as (client, recorder):
        result = await client.run("acme/x", prompt="a kite", n=8)
    assert sizes(result) == [8, 9, 10, 11] * 2
    assert len(recorder.posts) == 2
    assert [each.index for each in result.errors] == []


async def test_refused_images_are_errors_at_their_places() -> None:
    first, *others = addresses(3)
    async with acme(Vendor(says(urls=[first, None, *others]))) as (client, _):
        result = await client.run("acme/x", prompt="a kite", n=4)
    assert sizes(result) == [8, 9, 10]
    assert [(each.index, type(each.error)) for each in result.errors] == [(1, ContentFiltered)]


async def test_if_all_are_refused_nothing_is_fetched_and_the_refusal_is_raised() -> None:
    async with acme(Vendor(says(urls=[None, None]))) as (client, recorder):
        with pytest.raises(ContentFiltered, match="refused by the vendor") as caught:
            await client.run("acme/x", prompt="a kite", n=2)
    assert [each.host for each in recorder.requests] == ["url", "url"]
    assert caught.value.billed == "no"


@pytest.mark.parametrize(
    ("bad", "kind", "text"),
    [
        (GONE, ChargeUnknown, "404"),
        (Answer(status=403, headers={"content-type": "application/json"}, body=b'{"error": {"message": "expired"}}'),
         ChargeUnknown, "expired"),
        (Answer(status=500, headers={"content-type": "application/json"}, body=b'{"error": {"message": "oh"}}'),
         ChargeUnknown, "oh"),
        (Answer(headers={"content-type": "image/png"}, body=IMAGES[1].body[:40]), UnusableResult, "no complete image"),
        (says(urls=addresses(2)), UnusableResult, "further addresses"),
        (Answer(headers={"x-broken": "1"}), ChargeUnknown, "a fault of the plugin"),
        (GONE.with_headers(x_vague="1"), ChargeUnknown, "not the vendor's"),
        (IMAGES[1].with_headers(x_vague_image="1"), ChargeUnknown, "the answer has no image"),
        (IMAGES[1].with_headers(x_blocked="1"), ContentFiltered, "blocked"),
        (Answer(status=302, headers={"location": "{other_url}/stolen"}), ChargeUnknown, "302"),
        (Answer(headers={"content-type": "application/octet-stream"}, body=b"?"), ChargeUnknown, "HTTP 200"),
    ],
    ids=["gone", "expired", "fault", "cut", "nested", "plugin", "vague", "no image", "blocked", "redirect", "unknown"],
)  # fmt: skip
async def test_an_image_that_cant_be_fetched_fails_alone(bad: Answer, kind: type[ImpastoError], text: str) -> None:
    says_where = says(urls=addresses(3)).with_headers(x_request_id="req-of-the-addresses")
    async with acme(Vendor(says_where, images={1: bad})) as (client, recorder):
        result = await client.run("acme/x", prompt="a kite", n=3)
    assert sizes(result) == [8, 10]
    (failure,) = result.errors
    assert failure.error.billed != "no"
    assert (failure.index, failure.error.id) == (1, "job-1")
    assert isinstance(failure.error, kind)
    assert failure.error.request_id == "req-of-the-addresses"
    assert text in failure.error.message
    assert len(recorder.posts) == 1
    if kind is ChargeUnknown or text == "further addresses":
        assert json.loads(failure.error.raw)["urls"][1].endswith("/1.png?sig=s1"), "a way to the image is left"  # type: ignore[attr-defined]  # of this kind
    assert not [each for each in recorder.requests if each.host == "other_url"]
    if kind is ChargeUnknown:
        assert failure.error.billed == "yes"
        assert "could not be fetched" in failure.error.message
        assert "was charged; client.resume fetches its result" in failure.error.message


async def test_an_address_that_was_not_declared_is_not_asked_and_loses_no_other() -> None:
    urls = [*addresses(2), "https://evil.example/x.png?sig=secret"]
    async with acme(Vendor(says(urls=urls))) as (client, _):
        result = await client.run("acme/x", prompt="a kite", n=3)
    assert sizes(result) == [8, 9]
    (failure,) = result.errors
    assert (failure.index, failure.error.billed) == (2, "yes")
    assert "evil.example is not this machine" in failure.error.message
    assert "secret" not in str(failure.error)


async def test_if_time_is_over_the_images_that_came_are_kept() -> None:
    end = says(urls=addresses(3)).with_headers(x_request_id="req-of-the-addresses")
    images = {0: IMAGES[0].with_headers(x_request_id="req-of-image-0"), 2: BUSY}
    async with acme(Vendor(end, silent={1}, images=images), timeout=1.0) as (client, _):
        result = await client.run("acme/x", prompt="a kite", n=3)
    assert sizes(result) == [8]
    assert [(each.index, type(each.error), each.error.id) for each in result.errors] == [
        (1, ChargeUnknown, "job-1"), (2, ChargeUnknown, "job-1")
    ]  # fmt: skip
    assert {each.error.request_id for each in result.errors} == {"req-of-the-addresses"}


async def test_if_time_is_over_and_nothing_came_the_job_is_named() -> None:
    async with acme(Vendor(says(urls=addresses(2)), silent={0, 1}), timeout=0.5) as (client, _):
        with pytest.raises(ChargeUnknown, match="no result within 0.5 s; the images of job job-1 are at") as caught:
            await client.run("acme/x", prompt="a kite", n=2)
    assert (caught.value.id, caught.value.billed_each) == ("job-1", ("unknown", "unknown"))


async def test_a_busy_host_is_asked_again() -> None:
    vendor = Vendor(says(urls=addresses(2)), images={1: BUSY})
    async with acme(vendor) as (client, recorder):
        task = asyncio.create_task(client.run("acme/x", prompt="a kite", n=2))
        while len([each for each in recorder.requests if each.target.startswith("/1.png")]) < 3:
            await asyncio.sleep(0.01)
        vendor.images.clear()
        assert sizes(await task) == [8, 9]


@pytest.mark.parametrize(("n", "came"), [(3, [8, 10]), (8, [8, 10, 11, 8, 10, 11])])
async def test_a_caller_who_gives_up_gets_the_images_that_came(n: int, came: list[int]) -> None:
    vendor = Vendor(says(urls=addresses(min(n, 4))), silent={1})
    async with acme(vendor) as (client, _):
        task = asyncio.create_task(client.run("acme/x", prompt="a kite", n=n))
        while vendor.dialect.images < len(came):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    result = result_of_cancelled(caught.value)
    assert result is not None
    assert sizes(result) == came
    assert result.cost == Cost(usd=0.02 * len(result.artifacts), as_of="2026-11-01")
    assert [each.index for each in result.errors] == ([1] if n == 3 else [1, 5])
    assert "cancelled; the images of job job-1 are at the provider and may be charged" in str(result.errors[0].error)
    notes = "\n".join(caught.value.__notes__)
    assert f"{len(came)} of {n} images had arrived" in notes
    assert "client.resume fetches its result" in notes


async def test_as_many_images_as_an_answer_may_have_are_fetched() -> None:
    async with acme(Vendor(says(urls=addresses(64)), images=dict.fromkeys(range(64), IMAGES[0]))) as (client, _):
        assert len((await client.run("acme/x", prompt="a kite")).artifacts) == 64


async def test_more_addresses_than_an_answer_may_have_are_refused_unfetched() -> None:
    async with acme(Vendor(says(urls=addresses(65)))) as (client, recorder):
        with pytest.raises(UnusableResult, match="contains 65 artifacts; at most 64") as caught:
            await client.run("acme/x", prompt="a kite")
    assert not [each for each in recorder.requests if each.host == "signed_url"]
    assert caught.value.raw.startswith(b'{"urls"')


async def test_a_job_that_ended_is_resumed_with_all_its_images() -> None:
    async with acme(Vendor(says(urls=addresses(3)))) as (client, recorder):
        result = await client.resume("acme/x", "job-1", n=4)
    assert sizes(result) == [8, 9, 10]
    assert [each.index for each in result.errors] == [3]
    assert not recorder.posts


@pytest.mark.parametrize(
    ("downloads", "text"),
    [
        ((Download(request=WireRequest(target="/paid", method="POST")),), "a plugin polls its job with a POST"),
        (("https://api.acme.example/1.png",), "must be a tuple of Download"),
    ],
    ids=["post", "type"],
)
async def test_a_download_that_is_no_free_request_is_a_fault_of_the_plugin(downloads: Any, text: str) -> None:
    class Wrong(Dialect):
        def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Pending:
            return Pending(id="job-1", downloads=downloads)

    async with acme(Vendor(says(), dialect=Wrong())) as (client, recorder):
        with pytest.raises(UnusableResult, match=text):
            await client.run("acme/x", prompt="a kite")
    assert len(recorder.requests) == 1


async def test_without_a_job_the_addresses_are_the_id_which_is_resumed_without_the_key() -> None:
    vendor = Vendor(says(urls=addresses(3)), accepts=False, silent={0, 1, 2})
    async with acme(vendor, timeout=0.5) as (client, recorder):
        with pytest.raises(ChargeUnknown) as caught:
            await client.run("acme/x", prompt="a kite", n=3)
        urls = [each.format(signed_url=recorder.urls["signed_url"]) for each in addresses(3)]
        assert [each.id for each in (caught.value, *caught.value.errors)] == [" ".join(urls), *urls[1:]]
        assert "sig" not in str(caught.value), "a signature is not shown"
        vendor.silent.clear()
        recorder.requests.clear()
        result = await client.resume("acme/x", " ".join(urls), n=3)
        (other,) = (await client.resume("acme/x", urls[1])).artifacts
    assert sizes(result) == [8, 9, 10]
    assert other == result.artifacts[1]
    assert not recorder.posts
    assert not [each for each in recorder.requests if KEY in f"{each.headers}"]


@pytest.mark.parametrize(
    "id", ["http://evil.example/1.png?sig=a", "{url}/1.png?sig=a http://evil.example/1.png?sig=a", "{url}/x"]
)
async def test_an_id_of_other_addresses_is_refused_and_nothing_is_asked(id: str) -> None:
    async with acme(Vendor(says())) as (client, recorder):
        with pytest.raises(InvalidRequest, match="must be the address of a job, as acme answered it"):
            await client.resume("acme/x", id.format(url=recorder.url))
    assert not recorder.requests


async def test_long_addresses_are_an_id_too() -> None:
    urls = [f"{each}{'a' * 2_000}" for each in addresses(10)]
    async with acme(Vendor(says(urls=urls), accepts=False)) as (client, recorder):
        result = await client.run("acme/x", prompt="a kite", n=4)
        ids = " ".join(each.format(signed_url=recorder.urls["signed_url"]) for each in urls)
        resumed = await client.resume("acme/x", ids)
    assert sizes(result) == sizes(resumed) == [height for _, height in SIZES]
