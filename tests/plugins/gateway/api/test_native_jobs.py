"""Jobs of a model that makes several images in one: all of them arrive, also after a kill, and what lacks is said."""

from __future__ import annotations

import asyncio
import base64
import signal
from typing import Any

import pytest

from tests.plugins.gateway.conftest import Answer, Serve, Start, config, entry, sdk_client
from tests.plugins.gateway.native import KEY, TRUE_USD, USD, Vendor, image
from tests.plugins.gateway.telemetry.test_metrics import scrape

from .test_jobs import ASYNC, begin, finished_job, outcome


def text(vendor: Vendor, *, general: str = "") -> str:
    return config("", entries=entry("fine", "acme/fine", vendor.url, KEY), general=general)


def pictures(payload: Any) -> list[bytes]:
    return [base64.b64decode(each["b64_json"]) for each in payload["data"]]


def usd(answer: Answer) -> float:
    return float(answer.headers["x-impasto-cost-usd"])


async def polled(vendor: Vendor, jobs: int) -> None:
    """Wait until so many jobs were polled: they are recorded by then."""
    async with asyncio.timeout(60):
        while len(set(vendor.polls)) < jobs:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("prompt", ["p", "a job"])
async def test_a_job_of_six_images_is_two_requests(start: Start, vendor: Vendor, prompt: str) -> None:
    gateway = await start(text(vendor))
    done = await finished_job(gateway, await begin(gateway, model="fine", prompt=prompt, n=6, seed=1))
    assert done.json["status"] == "completed"
    assert pictures(done.json) == [image(1 + i) for i in range(6)]
    assert not {"warnings", "errors"} & done.json.keys()
    assert usd(done) == pytest.approx(6 * USD)
    assert (done.json["usage"]["input_tokens"], done.json["usage"]["output_tokens"]) == (20, 150)
    assert sorted(post["samples"] for post in vendor.posts) == [2, 4]
    now = await scrape(gateway)
    assert now("upstream_requests_total", model="fine", kind="call") == 2
    assert now("pictures_total", model="fine") == 6
    assert now("cost_usd_total", model="fine") == pytest.approx(6 * USD)


@pytest.mark.parametrize(
    ("prompt", "came", "cost"),
    [("a job", 4, 4 * USD), ("a true job", 4, 4 * TRUE_USD), ("a job with fewer", 3, 3 * USD)],
)
async def test_a_job_that_takes_longer_than_a_call_brings_all_images(
    start: Start, vendor: Vendor, prompt: str, came: int, cost: float
) -> None:
    gateway = await start(text(vendor, general="  timeout: 1\n"))
    vendor.has_results.clear()
    job = await begin(gateway, model="fine", prompt=prompt, n=4, seed=1)
    async with asyncio.timeout(60):
        while len(vendor.polls) < 25:  # every 0.05 s: the call's time is over
            await asyncio.sleep(0.02)
    vendor.has_results.set()
    done = await finished_job(gateway, job)
    assert pictures(done.json) == [image(1 + i) for i in range(came)]
    assert [(each["index"], each["code"]) for each in done.json.get("errors", ())] == [
        (i, "unusable_result") for i in range(came, 4)
    ]
    assert "warnings" not in done.json
    assert usd(done) == pytest.approx(cost)
    assert done.json["usage"]["input_tokens"] == 10
    assert len(vendor.posts) == 1
    now = await scrape(gateway)
    assert now("pictures_total", model="fine") == came
    assert now("cost_usd_total", model="fine") == pytest.approx(cost)
    assert now("charges_unknown_total", model="fine") == 4 - came


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_job_of_six_is_fetched_by_the_next_start(
    serve: Serve, vendor: Vendor, native_environment: dict[str, str], is_async: bool, how: signal.Signals
) -> None:
    vendor.has_results.clear()
    configured = text(vendor, general="  drain_seconds: 0\n")
    process, url = await asyncio.to_thread(serve, configured, **native_environment)
    headers = {"idempotency-key": "k", **(ASYNC if is_async else {})}
    body = {"model": "fine", "prompt": "a true job", "n": 6, "seed": 1}
    async with sdk_client(url) as sdk:
        task = asyncio.create_task(
            sdk.post("/images/generations", body=body, cast_to=object, options={"headers": headers})
        )
        await polled(vendor, 2)
        process.send_signal(how)
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.to_thread(process.wait, 60)
    vendor.has_results.set()
    _, url = await asyncio.to_thread(serve, configured, **native_environment)
    async with sdk_client(url) as sdk:
        again = sdk.post("/images/generations", body=body, cast_to=object, options={"headers": headers})
        payload: Any = await outcome(sdk, (await again)["id"]) if is_async else await again  # type: ignore[index]
    assert pictures(payload) == [image(1 + i) for i in range(6)]
    assert not {"warnings", "errors"} & payload.keys()
    assert payload["usage"]["input_tokens"] == 20
    assert (len(vendor.posts), vendor.charged_images) == (2, 6)


async def test_after_a_kill_images_of_a_request_without_a_job_are_lost_in_their_places(
    serve: Serve, vendor: Vendor, native_environment: dict[str, str]
) -> None:
    vendor.has_results.clear()
    vendor.held_samples = 4  # the first request is not answered, the second is a job
    process, url = await asyncio.to_thread(serve, text(vendor), **native_environment)
    async with sdk_client(url) as sdk:
        job: Any = await sdk.post(
            "/images/generations",
            body={"model": "fine", "prompt": "a job", "n": 6, "seed": 1},
            cast_to=object,
            options={"headers": ASYNC},
        )
        await polled(vendor, 1)
    process.kill()
    await asyncio.to_thread(process.wait, 60)
    vendor.has_results.set()
    _, url = await asyncio.to_thread(serve, text(vendor), **native_environment)
    async with sdk_client(url) as sdk:
        payload = await outcome(sdk, job["id"])
    assert pictures(payload) == [image(5), image(6)]
    assert [(each["index"], each["code"], each["billed"]) for each in payload["errors"]] == [
        (i, "charge_unknown", "unknown") for i in range(4)
    ]
    assert len(vendor.posts) == 2


async def test_a_job_that_the_provider_lost_may_have_charged_each_image(
    serve: Serve, vendor: Vendor, native_environment: dict[str, str]
) -> None:
    vendor.has_results.clear()
    process, url = await asyncio.to_thread(serve, text(vendor), **native_environment)
    async with sdk_client(url) as sdk:
        body = {"model": "fine", "prompt": "a job", "n": 4}
        job: Any = await sdk.post("/images/generations", body=body, cast_to=object, options={"headers": ASYNC})
        await polled(vendor, 1)
    process.kill()
    await asyncio.to_thread(process.wait, 60)
    vendor.posts.clear()  # the vendor knows nothing of the job any more
    vendor.has_results.set()
    _, url = await asyncio.to_thread(serve, text(vendor), **native_environment)
    async with sdk_client(url) as sdk:
        payload = await outcome(sdk, job["id"])
        metrics = await sdk.get(f"{url}/metrics", cast_to=str)
    assert (payload["status"], payload["error"]["code"]) == ("failed", "charge_unknown")
    assert 'impasto_gateway_charges_unknown_total{deployment="acme/fine",model="fine"} 4.0' in metrics
    assert vendor.posts == []
