"""``GET /metrics``: what happened, in numbers that add up, with labels that nobody can multiply."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping

import aiohttp
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
from prometheus_client.parser import text_string_to_metric_families

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.config.test_config import PAGE, STRONG
from tests.plugins.gateway.conftest import MASTER, Running, Serve, Start, config, entry, key_entry
from tests.plugins.gateway.raw import send
from tests.reliability.servers import in_json, picture, refused, serving

SD3 = {"model": "sd3", "deployment": "stability/sd3.5-large"}


class Samples:
    """A scrape's numbers by name and labels."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        assert len({family.name for family in families}) == len(families)
        self.all = [(each.name, each.labels, each.value) for family in families for each in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of those of a name that have these labels."""
        return sum(v for n, has, v in self.all if n == f"impasto_gateway_{name}" and labels.items() <= has.items())

    def has(self, name: str, labels: Mapping[str, str]) -> bool:
        return any(n == f"impasto_gateway_{name}" and labels.items() <= has.items() for n, has, _ in self.all)


async def scrape(gateway: Running) -> Samples:
    answer = await gateway.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Samples(answer.body.decode())


async def test_images_are_counted(gateway: Running, impasto_emulator: Emulator) -> None:
    before = await scrape(gateway)
    assert before.has("charges_unknown_total", SD3)  # a rise is seen only from a number
    assert (await gateway.generate(n=3)).status == 200
    assert (await gateway.generate()).status == 200
    now = await scrape(gateway)
    route = {"route": "/v1/images/generations", "model": "sd3"}
    assert now("requests_total", **route, status="200") == 2
    assert now("request_seconds_count", **route) == now("request_seconds_bucket", **route, le="+Inf") == 2
    assert now("upstream_requests_total", **SD3, kind="call", outcome="ok") == 4
    assert now("upstream_seconds_count", **SD3) == 4
    assert 0 < now("upstream_seconds_sum", **SD3) <= 3 * now("request_seconds_sum", **route)
    assert now("pictures_total", **SD3) == 4
    assert now("cost_credits_total", **SD3) == pytest.approx(impasto_emulator.credits)
    assert now("cost_usd_total", **SD3) == pytest.approx(4 * 0.065)
    assert now("requests_in_flight") == 1  # the scrape's own
    assert now("connections") >= 1
    assert now("retries_total") == now("charges_unknown_total") == now("bytes_in_flight") == 0


async def test_failures_are_counted(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=503, times=1)
    assert (await gateway.generate()).status == 200
    impasto_emulator.fault("truncate", times=1)
    assert (await gateway.generate()).status == 502
    impasto_emulator.fault("truncate", times=2)
    assert (await gateway.generate(n=3)).status == 200
    impasto_emulator.fault("status", status=401, times=1)
    assert (await gateway.generate(model="core")).status == 502
    await gateway.generate(prompt="")
    await send(gateway.url, b"no http\r\n\r\n")
    now = await scrape(gateway)
    assert now("retries_total", **SD3) == 1
    assert now("upstream_requests_total", outcome="ProviderFault") == 1
    assert now("upstream_requests_total", outcome="ChargeUnknown") == 3
    assert now("charges_unknown_total", **SD3) == 3
    assert now("deployment_resting", model="core") == 1
    assert now("deployment_resting", model="sd3") == 0
    assert now("requests_total", model="sd3", status="502") == 1
    assert now("requests_total", model="sd3", status="400") == 1
    assert now("connections_ended_total", why="http") == 1


async def test_an_unusable_answer_that_was_paid_for_is_a_cost(start: Start) -> None:
    async with serving() as provider:
        gateway = await start(config(provider.url))
        provider.posts = [in_json({"x": 1})]
        assert (await gateway.generate()).error["code"] == "unusable_result"
        now = await scrape(gateway)
        assert now("cost_usd_total", **SD3) == pytest.approx(0.065)
        assert now("cost_credits_total", **SD3) == pytest.approx(6.5)
        assert now("charges_unknown_total", **SD3) == now("pictures_total", **SD3) == 0


async def test_each_image_of_a_call_is_a_cost_or_an_unknown_charge_or_free(start: Start) -> None:
    async with serving() as provider:
        gateway = await start(config(provider.url))
        provider.posts = [
            picture(),
            in_json({"x": 1}),
            picture(**{"finish-reason": "CONTENT_FILTERED"}),
            refused(400),
        ]
        assert len((await gateway.generate(n=4)).json["errors"]) == 3
        now = await scrape(gateway)
        assert now("cost_usd_total", **SD3) == pytest.approx(2 * 0.065)
        assert (now("charges_unknown_total", **SD3), now("pictures_total", **SD3)) == (1, 1)


async def test_each_unusable_answer_of_a_call_without_an_image_is_a_cost(start: Start) -> None:
    async with serving() as provider:
        gateway = await start(config(provider.url))
        provider.posts = [in_json({"x": 1}), in_json({"x": 1}), picture(**{"finish-reason": "CONTENT_FILTERED"})]
        assert (await gateway.generate(n=3)).status in (400, 502)
        now = await scrape(gateway)
        assert now("cost_usd_total", **SD3) == pytest.approx(2 * 0.065)
        assert (now("charges_unknown_total", **SD3), now("pictures_total", **SD3)) == (1, 0)


async def test_a_free_failure_before_an_unusable_answer_costs_nothing(start: Start) -> None:
    async with serving() as provider:
        key = key_entry("studio", "sk-studio", images_per_day=2)
        gateway = await start(config(provider.url, more=f"keys:\n{key}"))
        studio = {"authorization": "Bearer sk-studio"}
        provider.posts = [refused(400), in_json({"x": 1}), picture()]
        body = {"model": "sd3", "prompt": "p"}
        failure = await gateway.ask("POST", "/v1/images/generations", json={**body, "n": 2}, headers=studio)
        assert failure.status == 502
        now = await scrape(gateway)
        assert now("cost_usd_total", **SD3) == pytest.approx(0.065)
        assert now("charges_unknown_total", **SD3) == 0
        last = await gateway.ask("POST", "/v1/images/generations", json=body, headers=studio)
        assert last.status == 200, "one of two images a day was charged"


async def test_an_unusable_answer_costs_the_price_in_its_models_entry(start: Start) -> None:
    async with serving() as provider:
        text = entry("sd3", "stability/sd3.5-large", provider.url) + "      input_cost_per_image: 0.5\n"
        gateway = await start(config(provider.url, entries=text))
        provider.posts = [in_json({"x": 1})]
        await gateway.generate()
        assert (await scrape(gateway))("cost_usd_total", **SD3) == pytest.approx(0.5)


async def test_a_job_that_is_polled(gateway: Running, impasto_emulator: Emulator) -> None:
    from tests.images import drawn

    await gateway.sdk.images.edit(model="creative", image=drawn("PNG", size=(128, 128)), prompt="sharper")
    now = await scrape(gateway)
    assert now("upstream_requests_total", model="creative", kind="call", outcome="ok") == 1
    assert now("upstream_requests_total", model="creative", kind="poll", outcome="ok") >= 1
    assert now("pictures_total", model="creative") == 1


async def test_nobody_makes_new_labels(gateway: Running) -> None:
    for number in range(30):
        await gateway.generate(model=f"sk-secret-{number}")
        await gateway.ask("GET", f"/v1/models/sk-secret-{number}")
        await gateway.ask("GET", f"/images/files/sk-secret-{number}")
        await gateway.ask("GET", f"/sk-secret-{number}")
        await gateway.ask("PURGE" if number % 2 else "PATCH", "/v1/models")
    answer = await gateway.ask("GET", "/metrics")
    assert b"sk-secret" not in answer.body
    now = Samples(answer.body.decode())
    assert now("requests_total", model="other", status="404") == 30
    assert now("requests_total", route="unknown", status="404") == 30
    assert len([1 for name, *_ in now.all if name == "impasto_gateway_requests_total"]) < 10


async def test_several_deployments_of_one_model_have_names_of_their_own(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    name = "stability/sd3.5-large"
    entries = entry("sd3", name, impasto_emulator.url) + entry("sd3", name, second.url)
    gateway = await start(config(impasto_emulator.url, entries=entries))
    impasto_emulator.fault("delay", seconds=0.1)
    second.fault("delay", seconds=0.1)
    await asyncio.gather(*(gateway.generate() for _ in range(4)))
    now = await scrape(gateway)
    assert now("pictures_total", deployment=name) == now("pictures_total", deployment=f"{name}#2") == 2


async def test_a_scraper_gets_the_form_it_asks_for(standing: Running) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = await standing.ask("GET", "/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    assert (await standing.ask("POST", "/metrics")).error["code"] == "method_not_allowed"
    assert (await standing.ask("GET", "/metrics", headers={"host": "evil.example"})).status == 421


async def test_the_world_needs_a_key(start: Start, impasto_emulator: Emulator) -> None:
    text = config(impasto_emulator.url, general="  allowed_hosts: [images.example]\n").replace(MASTER, STRONG)
    gateway = await start(text, host="0.0.0.0")
    at = {"host": "images.example", "authorization": "Bearer wrong"}
    assert (await gateway.ask("GET", "/metrics", headers=at)).error["code"] == "invalid_api_key"
    at["authorization"] = f"Bearer {STRONG}"
    assert (await gateway.ask("GET", "/metrics", headers=at)).status == 200


async def test_several_workers_are_one_and_the_dead_still_count(serve: Serve, impasto_emulator: Emulator) -> None:
    process, url = await asyncio.to_thread(serve, PAGE, "--workers", "3")
    body = {"model": "sd3", "prompt": "p"}
    headers = {"authorization": f"Bearer {MASTER}"}

    async def ask(path: str, **options: object) -> str:
        async with (
            aiohttp.ClientSession(headers=headers) as anew,
            anew.request(
                "POST" if options else "GET",
                url + path,
                **options,  # type: ignore[arg-type]  # json
            ) as answer,
        ):
            assert answer.status == 200
            return await answer.text()

    def counted(text: str) -> float:
        return Samples(text)("pictures_total", **SD3)

    await asyncio.gather(*(ask("/v1/images/generations", json=body) for _ in range(24)))
    assert [counted(await ask("/metrics")) for _ in range(6)] == [24] * 6  # whichever worker is asked
    workers = psutil.Process(process.pid).children()
    os.kill(workers[0].pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while len(now := psutil.Process(process.pid).children()) < 3 or workers[0] in now:
            await asyncio.sleep(0.05)
    found = [Samples(await ask("/metrics")) for _ in range(4)]
    assert [each("pictures_total", **SD3) for each in found] == [24] * 4
    assert [each("requests_in_flight") for each in found] == [1] * 4
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0


def test_the_numbers_of_several_workers_leave_nothing_behind(serve: Serve, tmp_path: os.PathLike[str]) -> None:
    process, _ = serve(PAGE, "--workers", "2", TMPDIR=str(tmp_path))
    folder = [name for name in os.listdir(tmp_path) if name.startswith("impasto-gateway-")]
    assert len(folder) == 1
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert not [name for name in os.listdir(tmp_path) if name.startswith("impasto-gateway-")]
