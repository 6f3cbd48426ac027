"""A model that makes several images in one request: the images of a line share requests, and each is stored alone."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any

import pytest

from impasto_plugins.gateway.batches import job
from tests.plugins.gateway.conftest import Running, Serve, Start, config, entry, key_entry, sdk_client
from tests.plugins.gateway.native import KEY, USD, Vendor, image
from tests.plugins.gateway.records import database
from tests.plugins.gateway.telemetry.test_metrics import scrape

from .conftest import finish, line, results, submit

OTHER = "sk-other-" + "k" * 24


def text(vendor: Vendor, *models: tuple[str, str], more: str = "") -> str:
    """A configuration of models by public names; one may have several deployments."""
    models = models or (("fine", "fine"),)
    return config(
        "", entries="".join(entry(name, f"acme/{model}", vendor.url, KEY) for name, model in models), more=more
    )


def pictures(output: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(each["b64_json"]) for each in output["response"]["body"]["data"]]


async def test_the_images_of_a_line_share_requests(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor))
    lines = [line("six", model="fine", n=6, seed=10), line("one", model="fine", seed=50)]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines))
    assert (batch.status, batch.request_counts.completed) == ("completed", 2)
    assert sorted((post["seed"], post["samples"]) for post in vendor.posts) == [(10, 4), (14, 2), (50, 1)]
    outputs = await results(gateway.sdk, batch.output_file_id)
    assert pictures(outputs["six"]) == [image(10 + i) for i in range(6)]
    body = outputs["six"]["response"]["body"]
    assert body["cost_usd"] == pytest.approx(6 * USD)
    assert (body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (20, 150)
    assert "warnings" not in body
    now, labels = await scrape(gateway), {"model": "fine", "deployment": "acme/fine"}
    assert now("upstream_requests_total", **labels, kind="call", outcome="ok") == 3
    assert now("pictures_total", **labels) == 7
    assert now("cost_usd_total", **labels) == pytest.approx(7 * USD)


async def test_the_least_maximum_of_several_deployments_counts(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor, ("m", "fine"), ("m", "three"), ("mixed", "fine"), ("mixed", "one")))
    lines = [line("a", model="m", n=7, seed=1), line("b", model="mixed", n=3, seed=20)]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines))
    requests = sorted((post["seed"], post.get("samples", 1)) for post in vendor.posts)
    assert requests == [(1, 3), (4, 3), (7, 1), (20, 1), (21, 1), (22, 1)]
    outputs = await results(gateway.sdk, batch.output_file_id)
    assert pictures(outputs["a"]) == [image(1 + i) for i in range(7)]
    assert pictures(outputs["b"]) == [image(20 + i) for i in range(3)]


async def test_a_deployment_stands_in_for_all_images_of_a_request(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor, ("m", "fine"), ("m", "three")))
    vendor.busy = 1
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", model="m", n=3, seed=1)]))
    assert [post["samples"] for post in vendor.posts] == [3, 3]
    assert len({post["path"] for post in vendor.posts}) == 2
    assert pictures((await results(gateway.sdk, batch.output_file_id))["a"]) == [image(1 + i) for i in range(3)]
    assert vendor.charged_images == 3


@pytest.mark.parametrize("model", ["unseeded", "unseeded_one"])
async def test_images_of_a_provider_that_draws_their_seeds_have_no_warning(
    start: Start, vendor: Vendor, model: str
) -> None:
    gateway = await start(text(vendor, ("m", model)))
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", model="m", n=3)]))
    body = (await results(gateway.sdk, batch.output_file_id))["a"]["response"]["body"]
    assert len(body["data"]) == 3
    assert not body.get("warnings")


@pytest.mark.parametrize(
    ("word", "came", "failure"),
    [
        ("fewer", [0, 1], (2, "unusable_result", "unknown")),
        ("filtered", [1, 2], (0, "moderation_blocked", "no")),
    ],
)
async def test_an_image_that_did_not_come_fails_alone(
    start: Start, vendor: Vendor, word: str, came: list[int], failure: tuple[int, str, str]
) -> None:
    gateway = await start(text(vendor))
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", model="fine", prompt=word, n=3, seed=1)]))
    lines = (await results(gateway.sdk, batch.output_file_id))["a"]
    assert pictures(lines) == [image(1 + i) for i in came]
    (error,) = lines["response"]["body"]["errors"]
    assert (error["index"], error["code"], error["billed"]) == failure
    assert len(vendor.posts) == 1


async def test_images_beyond_those_asked_for_are_delivered(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor))
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", model="fine", prompt="more", n=3, seed=1)]))
    lines = (await results(gateway.sdk, batch.output_file_id))["a"]
    assert pictures(lines) == [image(1 + i) for i in range(4)]
    assert lines["response"]["body"]["cost_usd"] == pytest.approx(4 * USD)


async def test_a_request_that_breaks_off_may_have_charged_each_image(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor, more="keys:\n" + key_entry("other", OTHER, images_per_day=10, usd_per_month=5)))
    with_key = gateway.sdk.with_options(api_key=OTHER)
    batch = await finish(with_key, await submit(with_key, [line("a", model="fine", prompt="breaks", n=4)]))
    failed = (await results(with_key, batch.error_file_id))["a"]
    assert (failed["error"]["code"], failed["error"]["billed"]) == ("charge_unknown", "unknown")
    assert len(vendor.posts) == 1
    rows = await database(gateway).write(
        lambda db: dict(db.execute("SELECT what, SUM(amount) FROM budgets GROUP BY what").fetchall())
    )
    assert rows == {"images": 4, "nano_usd": 160_000_000}
    assert (await scrape(gateway))("charges_unknown_total", model="fine") == 4


async def test_an_answer_that_can_not_be_read_is_named_once(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor))
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", model="fine", prompt="garbled", n=3)]))
    failed = (await results(gateway.sdk, batch.error_file_id))["a"]
    assert (failed["error"]["code"], failed["error"]["billed"]) == ("unusable_result", "yes")
    (name,) = re.findall(r"GET /v1/images/files/([\w-]+\.bin) has the answer", failed["error"]["message"])
    assert b"pictures" in (await gateway.ask("GET", f"/v1/images/files/{name}")).body
    assert len(vendor.posts) == 1


async def test_a_key_pays_the_true_cost_of_a_line_once(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor, more="keys:\n" + key_entry("other", OTHER, images_per_day=8, usd_per_month=5)))
    with_key = gateway.sdk.with_options(api_key=OTHER)
    batch = await finish(with_key, await submit(with_key, [line("a", model="fine", prompt="true", n=6)]))
    lines = (await results(with_key, batch.output_file_id))["a"]
    assert lines["response"]["body"]["cost_usd"] == pytest.approx(0.09)
    rows = await database(gateway).write(
        lambda db: dict(db.execute("SELECT what, SUM(amount) FROM budgets GROUP BY what").fetchall())
    )
    assert rows == {"images": 6, "nano_usd": 90_000_000}


async def test_a_job_of_four_is_fetched_by_the_next_start(
    serve: Serve, vendor: Vendor, native_environment: dict[str, str]
) -> None:
    vendor.has_results.clear()
    process, url = await asyncio.to_thread(
        serve, text(vendor, ("other", "one"), ("fine", "fine")), **native_environment
    )
    async with sdk_client(url) as client:
        batch = await submit(client, [line("a", model="fine", prompt="a job", n=4, seed=1)])
    async with asyncio.timeout(60):
        while not vendor.polls:  # the job's id is in the ledger before the first
            await asyncio.sleep(0.01)
    process.kill()
    await asyncio.to_thread(process.wait, 60)
    vendor.has_results.set()
    _, url = await asyncio.to_thread(serve, text(vendor, ("other", "one"), ("fine", "fine")), **native_environment)
    async with sdk_client(url) as client:
        batch = await finish(client, batch)
        lines = (await results(client, batch.output_file_id))["a"]
    assert pictures(lines) == [image(1 + i) for i in range(4)]
    body = lines["response"]["body"]
    assert body["cost_usd"] == pytest.approx(4 * USD)
    assert "warnings" not in body
    assert (len(vendor.posts), vendor.charged_images) == (1, 4)


async def test_a_kill_in_the_middle_of_a_request_pays_nothing_twice(
    serve: Serve, vendor: Vendor, native_environment: dict[str, str]
) -> None:
    process, url = await asyncio.to_thread(serve, text(vendor), **native_environment)
    async with sdk_client(url) as client:
        batch = await submit(client, [line("a", model="fine", prompt="held", n=4)])
    await asyncio.to_thread(vendor.wait_for, 1)
    process.kill()
    await asyncio.to_thread(process.wait, 60)
    vendor.release.set()
    _, url = await asyncio.to_thread(serve, text(vendor), **native_environment)
    async with sdk_client(url) as client:
        batch = await finish(client, batch)
        failed = (await results(client, batch.error_file_id))["a"]
    assert (failed["error"]["code"], failed["error"]["billed"]) == ("charge_unknown", "unknown")
    assert (len(vendor.posts), vendor.charged_images) == (1, 4)


async def test_a_running_gateway_with_little_memory_makes_ten_images(start: Start, vendor: Vendor) -> None:
    gateway: Running = await start(
        config("", entries=entry("fine", "acme/fine", vendor.url, KEY), general="  max_bytes_in_flight: 16777216\n")
    )
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", model="fine", n=10)]))
    assert batch.request_counts.completed == 1
    assert vendor.charged_images == 10


async def test_charged_images_that_their_host_refuses_are_fetched_later(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "RETRY_SECONDS", 0.05)
    gateway = await start(text(vendor))
    vendor.refused = {8}
    batch = await submit(gateway.sdk, [line("a", model="fine", prompt="signed", seed=7, n=3)])
    async with asyncio.timeout(30):
        while len(vendor.polls) < 10:  # in the second try
            await asyncio.sleep(0.02)
    vendor.refused.clear()
    batch = await finish(gateway.sdk, batch)
    body = (await results(gateway.sdk, batch.output_file_id))["a"]["response"]["body"]
    assert ([each["seed"] for each in body["data"]], "errors" in body) == ([7, 8, 9], False)
    assert len(vendor.posts) == 1


async def test_a_batch_that_ends_before_says_that_they_were_charged(start: Start, vendor: Vendor) -> None:
    gateway = await start(text(vendor))
    vendor.refused = {8}
    batch = await submit(gateway.sdk, [line("a", model="fine", prompt="signed", seed=8)])
    async with asyncio.timeout(30):
        while len(vendor.polls) < 3:
            await asyncio.sleep(0.02)
    await gateway.sdk.batches.cancel(batch.id)
    batch = await finish(gateway.sdk, batch)
    failure = (await results(gateway.sdk, batch.error_file_id))["a"]["error"]
    assert (failure["code"], failure["billed"]) == ("charge_unknown", "yes")
    assert failure["message"] == "image 1 could not be fetched: HTTP 403; it was charged"
