"""Calls of a model that makes several images in one request: limits, repeats, forms of answers, kills and metrics."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from tests.images import padded
from tests.plugins.gateway.conftest import MASTER, Answer, Running, Serve, Start, config, entry, key_entry, sdk_client
from tests.plugins.gateway.native import KEY, TRUE_USD, USD, Vendor, image
from tests.plugins.gateway.records import database
from tests.plugins.gateway.telemetry.test_metrics import scrape

OTHER = "sk-other-" + "k" * 24
FINE = {"model": "fine", "deployment": "acme/fine"}
NANO = 1_000_000_000


def text(vendor: Vendor, **limits: object) -> str:
    """A configuration of the model ``fine``, and of a key with these limits."""
    more = "keys:\n" + key_entry("other", OTHER, **limits) if limits else ""
    return config("", entries=entry("fine", "acme/fine", vendor.url, KEY), more=more)


@asynccontextmanager
async def limited(start: Start, vendor: Vendor, **limits: object) -> AsyncIterator[Running]:
    """A gateway whose caller has a key with these limits."""
    gateway = await start(text(vendor, **limits))
    gateway.session.headers["authorization"] = f"Bearer {OTHER}"
    yield gateway


async def used(gateway: Running) -> dict[str, int]:
    """Return what the keys have used, by its kind."""
    rows = await database(gateway).write(
        lambda db: db.execute("SELECT what, SUM(amount) FROM budgets GROUP BY what").fetchall()
    )
    return dict(rows)


def pictures(body: Any) -> list[bytes]:
    return [base64.b64decode(each["b64_json"]) for each in body["data"]]


def usd(answer: Answer) -> float:
    return float(answer.headers["x-impasto-cost-usd"])


async def fine(gateway: Running, prompt: str = "p", n: int = 4, **body: object) -> Answer:
    return await gateway.generate(model="fine", prompt=prompt, n=n, seed=1, **body)


async def test_images_of_a_day_are_counted_by_what_came(start: Start, vendor: Vendor) -> None:
    async with limited(start, vendor, images_per_day=12) as gateway:
        assert (await fine(gateway)).status == 200
        assert (await fine(gateway, "fewer")).status == 200  # the fourth may have been charged
        assert (await used(gateway))["images"] == 8
        assert (await fine(gateway, "filtered", 3)).status == 200  # the third is free
        assert (await used(gateway))["images"] == 10
        refused = await fine(gateway, n=3)
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
        assert (await fine(gateway, "refused", 2)).status == 400
        assert (await fine(gateway, "more", 1)).status == 200
        assert (await used(gateway))["images"] == 12
        assert (await fine(gateway, n=1)).status == 429
    assert [post["samples"] for post in vendor.posts] == [4, 4, 3, 2, 1]


async def test_fifty_calls_at_once_never_pay_more_than_the_budget(start: Start, vendor: Vendor) -> None:
    async with limited(start, vendor, usd_per_month=1) as gateway:
        calls = [asyncio.create_task(fine(gateway, "held and true")) for _ in range(50)]
        async with asyncio.timeout(60):
            while sum(call.done() for call in calls) < 44:  # six of 0.16 USD are reserved, the others are refused
                await asyncio.sleep(0.01)
        assert (await used(gateway))["nano_usd"] == 0.96 * NANO
        vendor.release.set()
        answers = await asyncio.gather(*calls)
        assert sorted(each.status for each in answers) == [200] * 6 + [429] * 44
        assert {each.error["code"] for each in answers if each.status == 429} == {"insufficient_quota"}
        assert len(vendor.posts) == 6
        assert (await used(gateway))["nano_usd"] == 0.36 * NANO  # settled by what the vendor said
        while (answer := await fine(gateway, "true")).status == 200:
            assert usd(answer) == pytest.approx(4 * TRUE_USD)
        assert answer.error["code"] == "insufficient_quota"
        assert len(vendor.posts) == 15  # with 0.84 USD spent there is room for a last one of 0.16
        assert (await used(gateway))["nano_usd"] == 0.9 * NANO


async def test_a_request_that_breaks_beside_one_with_a_cost_of_its_own_counts_by_the_price(
    start: Start, vendor: Vendor
) -> None:
    """Four came for 0.06 USD, as the vendor says; the two of the broken request may have cost 0.08."""
    vendor.broken_samples = 2
    async with limited(start, vendor, images_per_day=100, usd_per_month=1) as gateway:
        answer = await fine(gateway, "true", 6)
        assert (answer.status, len(answer.json["data"])) == (200, 4)
        assert [(each["index"], each["code"]) for each in answer.json["errors"]] == [
            (4, "charge_unknown"),
            (5, "charge_unknown"),
        ]
        assert usd(answer) == pytest.approx(4 * TRUE_USD)
        counts = await used(gateway)
        assert (counts["images"], counts["nano_usd"]) == (6, round((4 * TRUE_USD + 2 * USD) * NANO))
        gateway.session.headers["authorization"] = f"Bearer {MASTER}"
        now = await scrape(gateway)
        assert now("charges_unknown_total", **FINE) == 2
        assert now("cost_usd_total", **FINE) == pytest.approx(4 * TRUE_USD)


@pytest.mark.parametrize(("prompt", "cost"), [("p", 6 * USD), ("true", 6 * TRUE_USD)])
async def test_a_repeated_call_gets_all_images_with_their_cost_and_usage(
    start: Start, vendor: Vendor, prompt: str, cost: float
) -> None:
    gateway = await start(text(vendor))
    body = {"model": "fine", "prompt": prompt, "n": 6, "seed": 1}
    headers = {"idempotency-key": "k"}
    requests = [gateway.ask("POST", "/v1/images/generations", json=body, headers=headers) for _ in range(3)]
    answers = [*await asyncio.gather(*requests)]
    answers.append(await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers))
    assert sum("idempotent-replayed" in each.headers for each in answers) == 3
    for each in answers:
        assert pictures(each.json) == [image(1 + i) for i in range(6)]
        assert usd(each) == pytest.approx(cost)
        assert each.json["usage"]["total_tokens"] == 20 + 6 * 25
        assert not {"warnings", "errors"} & each.json.keys()
    assert sorted(post["samples"] for post in vendor.posts) == [2, 4]
    now = await scrape(gateway)
    assert now("pictures_total", **FINE) == 6
    assert now("cost_usd_total", **FINE) == pytest.approx(cost)
    assert now("upstream_requests_total", **FINE, kind="call", outcome="ok") == 2
    assert now("requests_total", model="fine", status="200") == 4


async def test_images_at_urls(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor))
    body = {"model": "fine", "prompt": "fewer", "n": 5, "seed": 1, "response_format": "url"}
    headers = {"idempotency-key": "k"}
    for _ in range(2):
        answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)
        at_urls = [(await gateway.ask("GET", each["url"])).body for each in answer.json["data"]]
        assert at_urls == [image(1), image(2), image(3)]  # of four; of one there came none
        assert [each["index"] for each in answer.json["errors"]] == [3, 4]
    assert len(vendor.posts) == 2


@pytest.mark.parametrize("key", [{}, {"idempotency-key": "k"}])
async def test_an_answer_that_is_too_large_for_memory(start: Start, vendor: Vendor, key: dict[str, str]) -> None:
    gateway = await start(text(vendor))
    body = {"model": "fine", "prompt": "large", "n": 4}
    for _ in range(2 if key else 1):
        answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=key)
        assert answer.status == 200
        assert pictures(answer.json) == [padded(3 << 20, 64, 64 + i) for i in range(4)]
    assert (len(vendor.posts), vendor.charged_images) == (1, 4)
    await gateway.idle()
    assert gateway.gateway._app.memory.used_bytes == 0


async def events(gateway: Running, **body: object) -> list[dict[str, Any]]:
    """Return the events of a stream, each as its JSON."""
    answer = await fine(gateway, stream=True, **body)  # type: ignore[arg-type]  # the prompt and n among them
    assert answer.headers["content-type"] == "text/event-stream"
    blocks = answer.body.decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.partition("\ndata: ")[2]) for block in blocks[:-2]]


async def test_a_stream_has_an_event_for_each_image(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor))
    pieces = await events(gateway, n=6)
    assert [each["type"] for each in pieces] == ["image_generation.completed"] * 6
    assert [base64.b64decode(each["b64_json"]) for each in pieces] == [image(1 + i) for i in range(6)]
    assert [each["usage"]["total_tokens"] for each in pieces] == [0] * 5 + [20 + 6 * 25]
    stream = await gateway.sdk.images.generate(model="fine", prompt="p", n=2, stream=True)
    assert [each.type async for each in stream] == ["image_generation.completed"] * 2  # held to the SDK's types
    assert sorted(post["samples"] for post in vendor.posts) == [2, 2, 4]


async def test_a_stream_tells_in_its_last_event_what_did_not_come(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor))
    pieces = await events(gateway, prompt="fewer", n=3)
    assert [base64.b64decode(each["b64_json"]) for each in pieces] == [image(1), image(2)]
    assert "errors" not in pieces[0]
    assert [(each["index"], each["code"], each["billed"]) for each in pieces[1]["errors"]] == [
        (2, "unusable_result", "unknown")
    ]
    more = await events(gateway, prompt="more", n=1)
    assert len(more) == 2
    assert more[1]["warnings"] == ["the provider answered one request with 2 artifacts: all are counted"]


async def test_the_price_of_an_entry_is_that_of_each_image(start: Start, vendor: Vendor) -> None:
    entries = entry("fine", "acme/fine", vendor.url, KEY) + "      input_cost_per_image: 0.5\n"
    gateway = await start(config("", entries=entries))
    answer = await fine(gateway, "true and fewer", 6)
    assert len(answer.json["data"]) == 4
    assert usd(answer) == pytest.approx(2)
    assert (await scrape(gateway))("cost_usd_total", **FINE) == pytest.approx(2)


async def test_fewer_and_more_images_than_asked_for(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor))
    fewer = await fine(gateway, "fewer")
    assert pictures(fewer.json) == [image(1), image(2), image(3)]
    (error,) = fewer.json["errors"]
    assert (error["index"], error["code"], error["billed"]) == (3, "unusable_result", "unknown")
    assert usd(fewer) == pytest.approx(3 * USD)
    more = await fine(gateway, "more", 2)
    assert pictures(more.json) == [image(1), image(2), image(3)]
    assert more.json["warnings"] == ["the provider answered one request for 2 with 3 artifacts: all are counted"]
    assert usd(more) == pytest.approx(3 * USD)
    now = await scrape(gateway)
    assert now("pictures_total", **FINE) == 6
    assert now("charges_unknown_total", **FINE) == 1
    assert now("cost_usd_total", **FINE) == pytest.approx(6 * USD)


async def test_all_images_that_are_filtered_cost_nothing(start: Start, vendor: Vendor) -> None:
    async with limited(start, vendor, images_per_day=10, usd_per_month=1) as gateway:
        answer = await fine(gateway, "none of them")
        assert (answer.status, answer.error["code"]) == (400, "moderation_blocked")
        assert await used(gateway) == {"requests": 1, "images": 0, "nano_usd": 0}
        mixed = await fine(gateway, "none of the last", 6)  # four came, and two of another request are filtered
        assert [each["index"] for each in mixed.json["errors"]] == [4, 5]
        assert usd(mixed) == pytest.approx(4 * USD)
        assert await used(gateway) == {"requests": 2, "images": 4, "nano_usd": round(4 * USD * NANO)}


async def test_a_killed_call_is_neither_made_again_nor_said_to_be_free(
    serve: Serve, vendor: Vendor, native_environment: dict[str, str]
) -> None:
    configured = text(vendor, images_per_day=8, usd_per_month=1)
    process, url = await asyncio.to_thread(serve, configured, **native_environment)
    headers = {"idempotency-key": "k"}

    async def ask(url: str, **body: Any) -> Any:
        async with sdk_client(url, OTHER) as sdk:
            return await sdk.images.generate(model="fine", **body, extra_headers=headers)

    task = asyncio.create_task(ask(url, prompt="held", n=4))
    await asyncio.to_thread(vendor.wait_for, 1)
    process.kill()
    await asyncio.to_thread(process.wait, 60)
    with pytest.raises(openai.APIConnectionError):
        await task
    vendor.release.set()
    _, url = await asyncio.to_thread(serve, configured, **native_environment)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(url, prompt="held", n=4)
        assert (caught.value.status_code, caught.value.code) == (502, "charge_unknown")
        assert caught.value.response.headers["x-should-retry"] == "false"
    assert (len(vendor.posts), vendor.charged_images) == (1, 4)
    headers = {}
    assert len((await ask(url, prompt="p", n=4)).data) == 4  # the four of before count as spent: eight are the limit
    with pytest.raises(openai.RateLimitError):
        await ask(url, prompt="p", n=1)
