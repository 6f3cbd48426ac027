"""Batches within the limits of the key that began them."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.batches import scheduler
from tests.plugins.gateway.conftest import Running, Start, config, key_entry, sdk_client

from .conftest import finish, line, results, submit

KEY, OTHER = "sk-studio-" + "0" * 24, "sk-other-" + "0" * 24
CORE_USD = 0.03


async def limited(start: Start, base: str, **limits: Any) -> Running:
    """A gateway whose SDK has a key with these limits."""
    keys = "keys:\n" + key_entry("studio", KEY, **limits) + key_entry("other", OTHER)
    gateway = await start(config(base, more=keys))
    gateway.sdk.api_key = KEY
    return gateway


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"images_per_day": 5}, "5 images a day"), ({"usd_per_month": 5 * CORE_USD}, "may spend 0.15 a month")],
    ids=["images_per_day", "usd_per_month"],
)
async def test_a_batch_that_would_pass_a_limit_is_refused_whole(
    start: Start, impasto_emulator: Emulator, limits: dict[str, Any], message: str
) -> None:
    gateway = await limited(start, impasto_emulator.url, **limits)
    lines = [line("a", n=2), line("b", n=3), line("c")]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines))
    assert batch.status == "failed"
    (error,) = batch.errors.data
    assert error.code == "insufficient_quota"
    assert message in error.message
    assert impasto_emulator.requests == []
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines[:2]))
    assert (batch.status, batch.request_counts.completed) == ("completed", 2)
    with pytest.raises(openai.RateLimitError):  # it is used up, exactly
        await gateway.sdk.images.generate(model="core", prompt="p")
    assert len(impasto_emulator.charges) == 5


async def test_reservations_without_a_charge_are_returned(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url, images_per_day=4)
    impasto_emulator.fault("status", status=422, times=2)
    impasto_emulator.fault("truncate", times=1)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line(str(i)) for i in range(4)]))
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 3)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line(str(i)) for i in range(3)]))
    assert "2 are left" in batch.errors.data[0].message


async def test_two_batches_that_share_a_limit_keep_to_it(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await limited(start, impasto_emulator.url, images_per_day=10)
    impasto_emulator.fault("delay", seconds=0.05)
    first = await submit(gateway.sdk, [line(str(i)) for i in range(8)])
    second = await submit(gateway.sdk, [line(str(i)) for i in range(8)])
    found = [await finish(gateway.sdk, each) for each in (first, second)]
    assert len(impasto_emulator.charges) <= 10
    completed = sum(batch.request_counts.completed for batch in found)
    assert completed == len(impasto_emulator.charges) >= 8
    for batch in found:
        if batch.status == "completed" and batch.error_file_id is not None:
            failed = await results(gateway.sdk, batch.error_file_id)
            assert {each["response"]["status_code"] for each in failed.values()} == {429}
            assert {each["error"]["code"] for each in failed.values()} == {"insufficient_quota"}


async def test_lines_are_no_requests_of_a_minute(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url, rpm=1)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line(str(i)) for i in range(5)]))
    assert batch.request_counts.completed == 5


async def test_a_key_has_its_models_alone(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url, models="[core]")
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a"), line("b", model="sd3")]))
    (error,) = batch.errors.data
    assert (batch.status, error.line, error.code, error.param) == ("failed", 2, "model_not_found", "model")


async def test_a_key_sees_its_own_batches_alone(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await limited(start, impasto_emulator.url)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))
    for key in (OTHER, "sk-1234"):  # nor does the master's
        async with sdk_client(gateway.url, key) as other:
            assert (await other.batches.list()).data == []
            for attempt in (other.batches.retrieve, other.batches.cancel):
                with pytest.raises(openai.NotFoundError):
                    await attempt(batch.id)
            with pytest.raises(openai.NotFoundError):
                await other.files.content(batch.output_file_id)
            with pytest.raises(openai.NotFoundError):
                await other.batches.create(
                    input_file_id=batch.input_file_id, endpoint="/v1/images/generations", completion_window="24h"
                )


async def test_a_key_that_is_taken_away_ends_its_batch(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await limited(start, impasto_emulator.url)
    monkeypatch.setattr(scheduler, "MAX_RUNNING", 0)
    await submit(gateway.sdk, [line("a")])
    await gateway.gateway.reload((await start(config(impasto_emulator.url))).gateway._config)
    monkeypatch.setattr(scheduler, "MAX_RUNNING", 4)
    app: Any = gateway.gateway._app
    (batch,) = await app.batches.store.active()
    while batch.status == "validating":
        batch = await app.batches.store.batch(batch.id, batch.owner)
    assert batch.status == "failed"
    assert batch.to_openai()["errors"]["data"][0]["code"] == "invalid_api_key"
    assert impasto_emulator.requests == []
