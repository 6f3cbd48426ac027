"""Calls of impasto's emulator, which counts charges."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import impasto
from impasto.testing import MiddlewareSuite
from impasto_cache.middleware import Cache

MODEL = "stability/stable-image-core"
PARAMS = {"prompt": "a lighthouse", "seed": 7}

Act = Callable[[impasto.Client], Awaitable[Any]]


@pytest.fixture
def act(impasto_emulator: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that calls its argument with a client. ``settings`` are the cache's."""

    def act(do: Act, key: str = "any-key", **settings: Any) -> Any:
        cache = {"cache": {"folder": tmp_path / "cache", **settings}}

        async def run() -> Any:
            async with impasto.Client(
                middleware=["cache"], providers=cache, api_base=impasto_emulator.url, api_key=key, poll_interval=0.05
            ) as client:
                return await do(client)

        return asyncio.run(run())

    return act


def test_the_same_request_again_gets_the_cached_image_and_costs_nothing(act: Any, impasto_emulator: Any) -> None:
    first = act(lambda client: client.run(MODEL, **PARAMS))
    again = act(lambda client: client.run(MODEL, **PARAMS))
    assert again.artifacts == first.artifacts
    assert (first.cost.usd, first.cost.credits) == (0.03, 3)
    assert (again.cost.usd, again.cost.credits) == (0, 0)
    assert len(impasto_emulator.charges) == 1


@pytest.mark.parametrize("other", [{"seed": 8}, {"prompt": "a barn"}, {"output_format": "jpeg"}])
def test_another_request_is_another_image(act: Any, impasto_emulator: Any, other: dict[str, Any]) -> None:
    act(lambda client: client.run(MODEL, **PARAMS))
    act(lambda client: client.run(MODEL, **{**PARAMS, **other}))
    assert len(impasto_emulator.charges) == 2


def test_another_key_has_images_of_its_own(act: Any, impasto_emulator: Any) -> None:
    for key in ("one-key", "another-key"):
        act(lambda client: client.run(MODEL, **PARAMS), key)
    assert len(impasto_emulator.charges) == 2


def test_equal_requests_side_by_side_are_paid_for_once(act: Any, impasto_emulator: Any) -> None:
    async def many(client: impasto.Client) -> list[impasto.Result]:
        return await asyncio.gather(*(client.run(MODEL, **PARAMS) for _ in range(20)))

    results = act(many)
    assert len({result.artifacts[0].data for result in results}) == 1
    assert sorted(result.cost.usd for result in results) == [0.0] * 19 + [0.03]
    assert len(impasto_emulator.charges) == 1


def test_without_a_seed_each_request_is_another_image_unless_configured(act: Any, impasto_emulator: Any) -> None:
    for _ in range(2):
        act(lambda client: client.run(MODEL, prompt="a lighthouse"))
        act(lambda client: client.run(MODEL, prompt="a lighthouse", seed=0))
    assert len(impasto_emulator.charges) == 4
    for _ in range(2):
        act(lambda client: client.run(MODEL, prompt="a lighthouse"), unseeded=[MODEL])
    assert len(impasto_emulator.charges) == 5


def test_a_jobs_image_is_cached_by_the_content_of_its_upload(act: Any, impasto_emulator: Any) -> None:
    def image(colour: str) -> bytes:
        png = io.BytesIO()
        Image.new("RGB", (64, 64), colour).save(png, "PNG")
        return png.getvalue()

    def upscaled(colour: str) -> impasto.Result:
        params = {"image": image(colour), "prompt": "a lighthouse", "seed": 3}
        result: impasto.Result = act(lambda client: client.run("stability/upscale-creative", **params))
        return result

    first, polls = upscaled("teal"), len(impasto_emulator.requests)
    again = upscaled("teal")
    assert again.artifacts == first.artifacts
    assert len(impasto_emulator.requests) == polls
    assert upscaled("navy").artifacts != first.artifacts
    assert len(impasto_emulator.charges) == 2


@pytest.mark.parametrize("kind", ["status", "truncate"])
def test_a_failure_is_not_cached_and_waiting_calls_send_their_own_request(
    act: Any, impasto_emulator: Any, kind: str
) -> None:
    async def two(client: impasto.Client) -> list[Any]:
        impasto_emulator.fault(kind, times=1, **({"status": 400} if kind == "status" else {}))
        return await asyncio.gather(*(client.run(MODEL, **PARAMS) for _ in range(2)), return_exceptions=True)

    failed, came = sorted(act(two), key=lambda each: isinstance(each, impasto.Result))
    assert isinstance(failed, impasto.ImpastoError)
    assert isinstance(came, impasto.Result)
    assert act(lambda client: client.run(MODEL, **PARAMS)).cost.usd == 0


def test_a_cancelled_call_does_not_end_those_who_wait(act: Any, impasto_emulator: Any) -> None:
    async def leaving(client: impasto.Client) -> impasto.Result:
        impasto_emulator.fault("delay", seconds=30, times=1)
        first = asyncio.create_task(client.run(MODEL, **PARAMS))
        while not impasto_emulator.requests:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(client.run(MODEL, **PARAMS))
        third = client.run(MODEL, **PARAMS, timeout=0.2)
        with pytest.raises(impasto.NotSent, match=r"no result within 0.2 s; nothing was sent"):
            await third
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert act(leaving).artifacts


def test_a_damaged_file_is_not_used(act: Any, impasto_emulator: Any, tmp_path: Path) -> None:
    act(lambda client: client.run(MODEL, **PARAMS))
    [stored] = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    stored.write_bytes(stored.read_bytes()[:-1])
    assert act(lambda client: client.run(MODEL, **PARAMS)).cost.usd == 0.03
    assert act(lambda client: client.run(MODEL, **PARAMS)).cost.usd == 0


def test_it_does_not_grow_past_its_limit_and_deletes_the_least_used(act: Any, tmp_path: Path) -> None:
    act(lambda client: client.run(MODEL, **PARAMS))
    [first] = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    most = 4 * first.stat().st_size

    async def more(client: impasto.Client) -> None:
        for seed in range(100, 110):
            await client.run(MODEL, prompt="a lighthouse", seed=seed)

    act(more, max_bytes=most)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) <= most
    assert act(lambda client: client.run(MODEL, **PARAMS)).cost.usd == 0.03
    assert act(lambda client: client.run(MODEL, prompt="a lighthouse", seed=109)).cost.usd == 0


def test_a_disk_that_can_not_be_written_loses_no_image(act: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert act(lambda client: client.run(MODEL, **PARAMS)).artifacts


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": 0}, {"max_bytes": "many"}, {"folder": 5}, {"unseeded": 7}, {"size": 1}], ids=str
)
def test_invalid_settings_are_reported(act: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(impasto.ConfigError, match="cache"):
        act(lambda client: client.run(MODEL, **PARAMS), **wrong)


def test_it_wraps_only_models_whose_answers_can_be_cached() -> None:
    registry = impasto.Registry()
    cutout = registry.operation("stability/remove-background")
    assert Cache().middleware(operation=registry.operation(MODEL)) is not None
    assert Cache().middleware(operation=cutout) is None


class TestCacheAsMiddleware(MiddlewareSuite):
    """impasto's conformance suite for middleware."""

    middleware = "cache"
    holds_answers = True

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        """Give each test a cache of its own, for the suite's model too, which has no seed."""
        self.provider_settings = {"cache": {"folder": tmp_path / "cache", "unseeded": ["probe/image"]}}  # type: ignore[misc]
