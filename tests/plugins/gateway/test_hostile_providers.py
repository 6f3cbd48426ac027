"""A hostile provider behind the gateway: one clear error for the caller, and its key is in no answer, file or log."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from impasto import UnusableResult
from impasto_plugins.gateway.http.memory_budget import MemoryReservation
from impasto_plugins.gateway.idempotency.in_flight import SLOTS
from impasto_plugins.gateway.telemetry import access_log
from tests.distributions import OPERATIONS, install
from tests.images import padded
from tests.plugins.gateway.conftest import Answer, Running, Start, config, entry
from tests.reliability.hostile import IMAGE, KEY, MODEL, PICTURE, event, images, job
from tests.reliability.servers import Answer as ProviderAnswer, Server, head, http, in_json, raw

PLUGIN = "from tests.reliability.hostile import operation\n\npaint = operation()\n"
ECHO = f"you sent {KEY}"
NOT_YET = in_json({"poll": "/status"})


@pytest.fixture
def settings(provider: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install the plugin and return the configuration of its model."""
    install(tmp_path / "site", "impasto-villain", {OPERATIONS: {MODEL: "impasto_villain:paint"}}, {})
    (tmp_path / "site" / "impasto_villain.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return config(provider.url, entries=entry("paint", MODEL, provider.url, key=KEY))


@pytest.fixture
async def villain(start: Start, settings: str) -> Running:
    return await start(settings + "  timeout: 1\n")


ECHOES: dict[str, ProviderAnswer] = {
    "an unusable answer": http(200, ECHO.encode(), content_type="text/plain", x_request_id=ECHO),
    "an image with a request id": http(200, b"no image", content_type="image/png", x_request_id=ECHO),
    "a refusal": in_json({"error": {"message": ECHO, "code": ECHO}}, 400, x_request_id=ECHO),
    "a job's id": job(id=ECHO),
    "an address": in_json({"url": f"https://{KEY}.example/{KEY}", "id": ECHO}),
    "a stream that is cut": raw(
        head(200, {"content-type": "text/event-stream"}) + event({"failed": 1}) + f"data: {KEY}\n\n".encode(),
        end="close",
    ),
}


@pytest.mark.parametrize("name", ECHOES)
async def test_a_key_that_the_provider_repeats_is_in_no_answer_file_or_log(
    villain: Running, provider: Server, state: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    access_log.access_logger.setLevel(logging.DEBUG)
    provider.posts, provider.polls = [ECHOES[name]], [NOT_YET]
    answer = await villain.ask(
        "POST",
        "/v1/images/generations",
        json={"model": "paint", "prompt": "p"},
        headers={"idempotency-key": "one"},
    )
    files = re.findall(r"/v1/images/files/[\w-]+\.\w+", str(answer.error["message"]))
    stored = [(await villain.ask("GET", path)).body for path in files]
    assert len(provider.paid) == 1
    texts = [str(answer), answer.body, *stored, (await villain.ask("GET", "/metrics")).body, caplog.text]
    texts += [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    assert [text[:200] for text in texts if KEY[:12] in str(text)] == []
    assert '"provider_request_ids"' in caplog.text


async def finished_job(gateway: Running, location: str) -> Answer:
    """Return the job's state once it is over."""
    async with asyncio.timeout(60):
        while (answer := await gateway.ask("GET", location)).json.get("status") == "in_progress":
            await asyncio.sleep(0.02)
    return answer


@pytest.mark.parametrize("key", [{}, {"idempotency-key": "one"}], ids=["no key", "key"])
async def test_a_job_that_takes_longer_than_its_call_is_fetched_later(
    villain: Running, provider: Server, key: dict[str, str]
) -> None:
    provider.posts, provider.polls = [job()], [NOT_YET]
    call: dict[str, Any] = {"json": {"model": "paint", "prompt": "p"}, "headers": key}
    late = await villain.ask("POST", "/v1/images/generations", **call)
    assert (late.status, late.error["code"], late.headers["x-should-retry"]) == (504, "job_in_progress", "false")
    location = late.headers["location"]
    assert f"GET {location} has its images" in str(late.error["message"])
    assert (await villain.ask("GET", location)).json["status"] == "in_progress"
    provider.polls = [PICTURE]
    done = await finished_job(villain, location)
    assert (done.json["status"], b64decode(done.json["data"][0]["b64_json"])) == ("completed", IMAGE)
    if key:
        again = await villain.ask("POST", "/v1/images/generations", **call)
        assert (again.status, b64decode(again.json["data"][0]["b64_json"])) == (200, IMAGE)
    assert len(provider.paid) == 1


async def test_a_job_that_the_provider_no_longer_knows_is_not_fetched_again(villain: Running, provider: Server) -> None:
    provider.posts = [job()]
    provider.polls = [in_json({"error": {"message": "no such job", "code": "none"}}, 404)]
    answer = await villain.generate(model="paint")
    assert (answer.status, answer.error["code"]) == (502, "charge_unknown")
    assert "location" not in answer.headers


async def test_a_job_that_takes_longer_than_its_call_and_fails_says_so(villain: Running, provider: Server) -> None:
    provider.posts, provider.polls = [job()], [NOT_YET]
    late = await villain.generate(model="paint")
    provider.polls = [in_json({"failed": "no"})]
    failed = await finished_job(villain, late.headers["location"])
    assert (failed.json["status"], failed.json["error"]["message"]) == ("failed", "the job failed")


@pytest.mark.parametrize("key", [{}, {"idempotency-key": "one"}], ids=["no key", "key"])
async def test_jobs_that_never_end_leave_half_of_the_room_for_new_calls(
    villain: Running, provider: Server, key: dict[str, str]
) -> None:
    provider.posts, provider.polls = [job()], [NOT_YET]
    table = villain.gateway._idempotency.in_flight
    others = [table.begin(bytes(32), None, has_key=True) for _ in range(SLOTS // 2)]
    late = await villain.ask("POST", "/v1/images/generations", json={"model": "paint", "prompt": "p"}, headers=key)
    assert (late.status, late.error["code"], late.headers["x-should-retry"]) == (504, "charge_unknown", "false")
    assert "location" not in late.headers
    for each in others:
        table.finish(each)
    await villain.idle()


async def test_large_answers_of_json_wait_on_disk_for_memory(start: Start, settings: str, provider: Server) -> None:
    """Each is 12 MiB of text, and takes twice as much; all requests may take 64 MiB, and one of them goes beyond."""
    large = padded(9 << 20)
    provider.posts = [in_json(images(large))]
    villain = await start(settings)
    memory = villain.gateway._app.memory
    memory.max_bytes = 64 << 20
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, memory.used_bytes)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*(villain.generate(model="paint") for _ in range(6)))
    watching.cancel()
    assert [b64decode(each.json["data"][0]["b64_json"]) == large for each in answers] == [True] * 6
    assert 24 << 20 < most < (64 + 25) << 20
    await villain.idle()
    assert memory.used_bytes == 0


async def test_an_answer_that_waits_for_memory_too_long_is_stored(villain: Running, provider: Server) -> None:
    large = padded(9 << 20)
    provider.posts = [http(200, large, content_type="image/png")]
    memory = villain.gateway._app.memory
    with MemoryReservation(memory) as others:
        others.reserve(memory.max_bytes - (12 << 20))
        memory.beyond = others
        late = await villain.generate(model="paint")
    assert (late.status, late.error["code"]) == (502, "charge_unknown")
    [path] = re.findall(r"/v1/images/files/[\w-]+\.png", str(late.error["message"]))
    assert (await villain.ask("GET", path)).body == large
    assert len(provider.paid) == 1


async def test_an_unusable_answer_is_released_with_its_response(villain: Running, provider: Server) -> None:
    """A cycle of references would hold answers of hundreds of MiB until the garbage is collected."""
    provider.posts = [in_json({"images": ["no image"]})]
    await villain.generate(model="paint")
    gc.collect()
    gc.disable()
    try:
        assert (await villain.generate(model="paint")).error["code"] == "unusable_result"
        await villain.idle()
        assert [each for each in gc.get_objects() if isinstance(each, UnusableResult)] == []
    finally:
        gc.enable()
