"""Images that were charged, and that their host refuses: the gateway fetches them later, and pays nothing again."""

from __future__ import annotations

import asyncio

import pytest

from impasto_plugins.gateway.api import jobs
from tests.plugins.gateway.conftest import Answer, Start
from tests.plugins.gateway.native import USD, Vendor, image

from .test_jobs import ASYNC, finished_job
from .test_native_jobs import pictures, text


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "k"}, ASYNC], ids=["call", "key", "job"])
async def test_an_image_that_its_host_refuses_is_fetched_later(
    start: Start, vendor: Vendor, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(jobs, "FIRST_PAUSE", 0.05)
    gateway = await start(text(vendor))
    vendor.refused = {7}
    body = {"model": "fine", "prompt": "signed", "seed": 7, "n": 1}
    answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)
    if headers is not ASYNC:
        assert (answer.status, answer.error["code"]) == (504, "job_in_progress")
        message = answer.error["message"] or ""
        assert "was made and charged, and could not be fetched yet" in message
        assert "client." not in message
    async with asyncio.timeout(60):
        while len(vendor.polls) < 7:  # three times in the call, and again in each later try
            state = (await gateway.ask("GET", answer.headers["location"])).json
            assert state["status"] == "in_progress", state["error"]
            await asyncio.sleep(0.01)
    repeats = headers if "idempotency-key" in headers else None
    again = asyncio.create_task(
        gateway.ask("POST", "/v1/images/generations", json=body, headers=repeats)
        if repeats
        else finished_job(gateway, answer)
    )
    await asyncio.sleep(0.05)
    vendor.refused.clear()
    assert pictures((await again).json) == [image(7)]
    done = (await finished_job(gateway, answer)).json
    assert (pictures(done), done["data"][0]["seed"]) == ([image(7)], 7)
    assert len(vendor.posts) == 1


@pytest.mark.parametrize("headers", [{}, ASYNC], ids=["call", "job"])
@pytest.mark.parametrize("response_format", ["b64_json", "url"])
async def test_images_that_came_are_delivered_and_the_others_when_their_host_gives_them(
    start: Start, vendor: Vendor, headers: dict[str, str], response_format: str
) -> None:
    gateway = await start(text(vendor))
    vendor.refused = {8}
    body = {"model": "fine", "prompt": "signed", "seed": 7, "n": 3, "response_format": response_format}

    async def ask() -> list[bytes]:
        keyed = {**headers, "idempotency-key": "k"}
        answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=keyed)
        if headers is ASYNC:
            answer = await finished_job(gateway, answer)
        assert [each["index"] for each in answer.json.get("errors", ())] == ([1] if vendor.refused else [])
        if response_format == "b64_json":
            return pictures(answer.json)
        return [(await gateway.ask("GET", each["url"])).body for each in answer.json["data"]]

    for _ in range(2):
        assert await ask() == [image(7), image(9)]
    vendor.refused.clear()
    for _ in range(2):
        assert await ask() == [image(7), image(8), image(9)]
    assert len(vendor.posts) == 1


@pytest.mark.parametrize("headers", [{}, ASYNC], ids=["call", "job"])
async def test_an_image_that_a_replay_fetched_is_stored_and_not_fetched_again(
    start: Start, vendor: Vendor, headers: dict[str, str]
) -> None:
    gateway = await start(text(vendor))
    vendor.refused = {8, 10}
    body = {"model": "fine", "prompt": "signed", "seed": 7, "n": 4}

    async def ask() -> Answer:
        keyed = {**headers, "idempotency-key": "k"}
        answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=keyed)
        return await finished_job(gateway, answer) if headers is ASYNC else answer

    assert pictures((await ask()).json) == [image(7), image(9)]
    vendor.refused = {7, 9, 10}  # their addresses have expired
    answer = (await ask()).json
    assert pictures(answer) == [image(7), image(8), image(9)]
    assert [each["index"] for each in answer["errors"]] == [3]
    vendor.refused = {7, 8, 9}
    answer = await ask()
    assert pictures(answer.json) == [image(7 + i) for i in range(4)]
    assert "errors" not in answer.json
    assert float(answer.headers["x-impasto-cost-usd"]) == pytest.approx(4 * USD)
    polls = len(vendor.polls)
    vendor.refused = {7, 8, 9, 10}
    assert pictures((await ask()).json) == [image(7 + i) for i in range(4)]
    assert (len(vendor.polls), len(vendor.posts)) == (polls, 1)
