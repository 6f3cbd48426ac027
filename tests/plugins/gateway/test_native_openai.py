"""OpenAI's image models behind the gateway: several images in one request, paid by tokens, before their stand-in."""

from __future__ import annotations

import importlib
import io
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.sources import ROOT
from tests.distributions import install
from tests.images import drawn
from tests.plugins.gateway.api.test_jobs import begin, finished_job
from tests.plugins.gateway.batches.conftest import finish, line, results, submit
from tests.plugins.gateway.conftest import Running, Start, config, entry, key_entry
from tests.plugins.gateway.records import database
from tests.plugins.gateway.telemetry.test_metrics import scrape

EXAMPLE = ROOT / "examples" / "impasto-openai"
OTHER = "sk-other-" + "k" * 24
LOW_TOKENS = 272
"""Output tokens of a square image of low quality."""


def paid(images: int, words: int, pictures_in: int = 0) -> float:
    """Return the USD of a call of gpt-image-1 in low quality, by OpenAI's prices of a million tokens: 5, 10 and 40."""
    return (5 * words + 10 * 323 * pictures_in + 40 * LOW_TOKENS * images) / 1e6


@pytest.fixture
async def openai_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    points = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    install(tmp_path / "site", "impasto-openai", points, {})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    async with importlib.import_module("impasto_openai.stand_in").serving("sk-openai") as stand_in:
        yield stand_in
    for name in [each for each in sys.modules if each.partition(".")[0] == "impasto_openai"]:
        del sys.modules[name]  # other tests take it for an installed package


def text(stand_in: Any, more: str = "") -> str:
    models = {"gpt": "gpt-image-1", "either": "gpt-image-1", "mini": "gpt-image-1-mini"}
    entries = [entry(name, f"openai/{model}", stand_in.url, "sk-openai") for name, model in models.items()]
    entries.append(entry("either", "openai/gpt-image-1-mini", stand_in.url, "sk-openai"))
    return config("", entries="".join(entries), more=more)


@pytest.fixture
async def gpt(start: Start, openai_stand_in: Any) -> Running:
    return await start(text(openai_stand_in))


async def test_three_images_are_one_request_with_its_usage_and_its_true_cost(
    gpt: Running, openai_stand_in: Any
) -> None:
    response = await gpt.sdk.images.with_raw_response.generate(
        model="gpt", prompt="a red fox", n=3, quality="low", size="1024x1024"
    )
    images = response.parse()
    assert len(images.data or []) == openai_stand_in.charges == 3
    assert images.usage is not None
    assert (images.usage.input_tokens, images.usage.output_tokens) == (3, 3 * LOW_TOKENS)
    assert float(response.headers["x-impasto-cost-usd"]) == pytest.approx(paid(3, words=3))
    assert "x-impasto-warnings" not in response.headers
    assert [fields["n"] for _, fields in openai_stand_in.requests] == [3]
    now = await scrape(gpt)
    assert now("cost_usd_total", model="gpt") == pytest.approx(paid(3, words=3))
    assert now("pictures_total", model="gpt") == 3
    assert now("upstream_requests_total", model="gpt", kind="call") == 1


async def test_an_edit_of_two_images_makes_two_in_one_form(gpt: Running, openai_stand_in: Any) -> None:
    files = [(f"{i}.png", io.BytesIO(drawn("PNG", size=(64, 64)))) for i in range(2)]
    response = await gpt.sdk.images.edit(model="gpt", prompt="combine them", image=list(files), n=2, quality="low")
    assert len(response.data or []) == 2
    ((path, fields),) = openai_stand_in.requests
    assert (path, fields["n"]) == ("/v1/images/edits", 2)
    now = await scrape(gpt)
    assert now("cost_usd_total", model="gpt") == pytest.approx(paid(2, words=2, pictures_in=2))


async def test_a_budget_is_reserved_by_the_estimate_and_settled_by_the_tokens(
    start: Start, openai_stand_in: Any
) -> None:
    gateway = await start(text(openai_stand_in, "keys:\n" + key_entry("other", OTHER, usd_per_month=0.2)))
    gateway.session.headers["authorization"] = f"Bearer {OTHER}"

    async def ask(n: int) -> int:
        body = {"model": "gpt", "prompt": "a fox", "n": n, "quality": "low"}
        return (await gateway.ask("POST", "/v1/images/generations", json=body)).status

    assert await ask(10) == 200  # 0.16 are reserved, 0.10881 are spent
    assert await ask(6) == 429  # 0.096 for 0.09119
    assert await ask(5) == 200
    used: Any = await database(gateway).write(
        lambda db: db.execute("SELECT SUM(amount) FROM budgets WHERE what = 'nano_usd'").fetchone()
    )
    assert used[0] == pytest.approx((paid(10, words=2) + paid(5, words=2)) * 1e9)
    assert openai_stand_in.charges == 15


async def test_an_image_that_lacks_is_told_also_to_those_who_repeat(gpt: Running, openai_stand_in: Any) -> None:
    body = {"model": "gpt", "prompt": "one-fewer please", "n": 4, "quality": "low"}
    for _ in range(2):
        answer = await gpt.ask("POST", "/v1/images/generations", json=body, headers={"idempotency-key": "k"})
        assert len(answer.json["data"]) == 3
        assert [(each["index"], each["code"]) for each in answer.json["errors"]] == [(3, "unusable_result")]
        assert float(answer.headers["x-impasto-cost-usd"]) == pytest.approx(paid(3, words=2))
        assert answer.json["usage"]["output_tokens"] == 3 * LOW_TOKENS
    assert (len(openai_stand_in.requests), openai_stand_in.charges) == (1, 3)


async def test_several_images_are_streamed_as_they_are_and_one_with_partial_images(
    gpt: Running, openai_stand_in: Any
) -> None:
    two = await gpt.sdk.images.generate(model="gpt", prompt="a fox", n=2, quality="low", stream=True)
    events = [each async for each in two]
    assert [each.type for each in events] == ["image_generation.completed"] * 2
    assert events[-1].usage.output_tokens == 2 * LOW_TOKENS  # type: ignore[union-attr]  # it is a completed one
    assert "stream" not in openai_stand_in.requests[0][1]
    one = await gpt.sdk.images.generate(model="gpt", prompt="a fox", quality="low", stream=True, partial_images=2)
    assert [each.type.partition(".")[2] async for each in one] == ["partial_image", "partial_image", "completed"]
    assert openai_stand_in.charges == 3


async def test_a_job_of_four(gpt: Running, openai_stand_in: Any) -> None:
    done = await finished_job(gpt, await begin(gpt, model="gpt", prompt="a fox", n=4, quality="low"))
    assert (done.json["status"], len(done.json["data"])) == ("completed", 4)
    assert float(done.headers["x-impasto-cost-usd"]) == pytest.approx(paid(4, words=2))
    assert (len(openai_stand_in.requests), openai_stand_in.charges) == (1, 4)


async def test_a_line_of_a_batch_is_one_request_also_if_another_deployment_makes_it(
    gpt: Running, openai_stand_in: Any
) -> None:
    openai_stand_in.busy = 1
    lines = [line("a", model="either", prompt="a fox", n=10, quality="low")]
    batch = await finish(gpt.sdk, await submit(gpt.sdk, lines))
    body = (await results(gpt.sdk, batch.output_file_id))["a"]["response"]["body"]
    assert len(body["data"]) == openai_stand_in.charges == 10
    assert [fields["n"] for _, fields in openai_stand_in.requests] == [10, 10]
    refusing, making = (fields["model"] for _, fields in openai_stand_in.requests)
    assert {refusing, making} == {"gpt-image-1", "gpt-image-1-mini"}
    assert body["usage"]["output_tokens"] == 10 * LOW_TOKENS
    by_model = {"gpt-image-1": paid(10, words=2), "gpt-image-1-mini": (2 * 2 + 8 * 10 * LOW_TOKENS) / 1e6}
    assert body["cost_usd"] == pytest.approx(by_model[making])
