"""Asynchronous operations: an id at once, the result later, only for the key that started it."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.plugins.emulator.conftest import CREATIVE, RELIGHT, Answer, Clock, Wire, open_image, plain, started

FIELDS: dict[str, dict[str, object]] = {
    CREATIVE: {"prompt": "x", "image": plain(), "seed": 5},
    RELIGHT: {"subject_image": plain(), "background_prompt": "x"},
}
RESULTS = "/v2beta/results/"


async def finished(wire: Wire, path: str, **options: str) -> Answer:
    for _ in range(100):
        answer = await wire.get(path, **options)
        if answer[0] != 202:
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError("it was never ready")


@pytest.mark.parametrize("path", [CREATIVE, RELIGHT])
async def test_a_job_is_submitted_polled_and_fetched(path: str) -> None:
    async with started(job_seconds=0.6) as wire:
        await _submit_poll_fetch(wire, path)


async def _submit_poll_fetch(wire: Wire, path: str) -> None:
    status, headers, body = await wire.post(path, FIELDS[path], accept="image/*")
    payload = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert payload.keys() == {"id"}
    assert len(payload["id"]) == 64
    assert int(payload["id"], 16)

    status, headers, body = await wire.get(RESULTS + payload["id"], accept="image/*")
    assert (status, headers["content-type"]) == (202, "application/json")
    assert json.loads(body) == {"id": payload["id"], "status": "in-progress"}

    status, headers, body = await finished(wire, RESULTS + payload["id"])
    assert status == 200
    assert open_image(body).format == "PNG"
    assert (await wire.get(RESULTS + payload["id"]))[2] == body, "it may be fetched again"


async def test_a_job_is_charged_once_when_it_is_accepted(wire: Wire) -> None:
    _, _, body = await wire.post(CREATIVE, FIELDS[CREATIVE])
    assert wire.emulator.credits == 60
    for _ in range(2):
        await finished(wire, RESULTS + json.loads(body)["id"])
    assert [charge.seed for charge in wire.emulator.charges] == [5]


async def test_the_result_comes_as_json_too(wire: Wire) -> None:
    _, _, body = await wire.post(CREATIVE, FIELDS[CREATIVE])
    status, headers, body = await finished(wire, RESULTS + json.loads(body)["id"], accept="application/json")
    assert (status, headers["content-type"]) == (200, "application/json; type=image/png")
    assert json.loads(body)["seed"] == 5


async def test_the_creative_upscale_has_a_second_path(wire: Wire) -> None:
    ids = {}
    for path, fields in FIELDS.items():
        _, _, body = await wire.post(path, fields)
        ids[path] = json.loads(body)["id"]
    assert (await finished(wire, f"{CREATIVE}/result/{ids[CREATIVE]}"))[0] == 200
    assert (await wire.get(f"{CREATIVE}/result/{ids[RELIGHT]}"))[0] == 404


async def test_another_key_and_unknown_ids_are_not_found(wire: Wire) -> None:
    _, _, body = await wire.post(CREATIVE, FIELDS[CREATIVE])
    id = json.loads(body)["id"]
    for path, key in ((id, "sk-another"), ("0" * 64, "sk-emulated-0123456789"), (id[:-1], "sk-emulated-0123456789")):
        status, _, body = await wire.get(RESULTS + path, key=key)
        assert (status, json.loads(body)["name"]) == (404, "generation_not_found")
        assert json.loads(body)["errors"][0].startswith("id: ")
    assert (await wire.get(RESULTS + id, key=None))[0] == 401


async def test_a_result_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("impasto_plugins.emulator.state.jobs.time", clock)
    async with started(result_seconds=600, job_seconds=0) as wire:
        _, _, body = await wire.post(CREATIVE, FIELDS[CREATIVE])
        path = RESULTS + json.loads(body)["id"]
        assert (await finished(wire, path))[0] == 200
        clock.ahead = 601
        assert (await wire.get(path))[0] == 404


async def test_closing_waits_for_images_that_are_drawn() -> None:
    async with started(job_seconds=0, image_scale=0.2) as wire:
        assert (await wire.post(CREATIVE, FIELDS[CREATIVE]))[0] == 200
    assert len(asyncio.all_tasks()) == 1
