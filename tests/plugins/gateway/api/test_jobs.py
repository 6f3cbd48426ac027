"""Calls as jobs: begun with ``Prefer: respond-async``, asked for by their ids, fetched also after a kill."""

import asyncio
import base64
import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
from openai.types import ImagesResponse

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.api import delivery
from tests.conftest import KEY
from tests.images import drawn
from tests.plugins.gateway.conftest import MASTER, Answer, Running, Serve, Start, config, entry, key_entry, sdk_client
from tests.plugins.gateway.raw import answered_unread
from tests.plugins.gateway.records import database

ASYNC = {"prefer": "respond-async"}
PICTURE = drawn("PNG", size=(128, 128))
URI = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
OTHER = "sk-other-" + "k" * 24


async def begin(gateway: Running, path: str = "generations", headers: Any = None, **body: object) -> Answer:
    payload = {"model": "sd3", "prompt": "p", **body}
    return await gateway.ask("POST", f"/v1/images/{path}", json=payload, headers={**ASYNC, **(headers or {})})


async def finished_job(gateway: Running, job: Answer) -> Answer:
    """What a job came to."""
    async with asyncio.timeout(60):
        while (answer := await gateway.ask("GET", job.headers["location"])).json["status"] == "in_progress":
            await asyncio.sleep(0.05)
    return answer


def posts(emulator: Emulator) -> int:
    return sum(request.method == "POST" for request in emulator.requests)


async def test_a_job_is_begun_told_and_delivered(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("delay", seconds=0.3)
    job = await begin(gateway, seed=5)
    assert job.status == 202
    assert re.fullmatch("[0-9a-f]{64}", job.json["id"])
    assert job.headers["location"] == f"/v1/images/jobs/{job.json['id']}"
    assert job.headers["preference-applied"] == "respond-async"
    assert (job.json["object"], job.json["status"], job.json["model"]) == ("image.job", "in_progress", "sd3")
    assert job.json["expires_at"] - job.json["created_at"] == 24 * 3600
    running = await gateway.ask("GET", job.headers["location"])
    assert (running.status, running.json) == (200, job.json)
    done = await finished_job(gateway, job)
    assert (done.status, done.json["status"], done.headers["x-impasto-cost-usd"]) == (200, "completed", "0.065")
    assert base64.b64decode(done.json["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert done.json["data"][0]["seed"] == 5
    again = await gateway.ask("GET", f"/images/jobs/{job.json['id']}")
    assert again.body == done.body  # however often it is asked for
    sdk = await gateway.sdk.get(job.headers["location"].removeprefix("/v1"), cast_to=ImagesResponse)
    assert len(sdk.data or []) == 1
    assert len(impasto_emulator.charges) == 1


@pytest.mark.parametrize("prefer", ["wait=5, Respond-Async", "respond-async; x=1", "respond-async"])
async def test_a_preference_among_others(gateway: Running, prefer: str) -> None:
    assert (await begin(gateway, headers={"prefer": prefer})).status == 202


async def test_another_preference_is_none(gateway: Running) -> None:
    assert (await begin(gateway, headers={"prefer": "respond-asynchronously, return=minimal"})).status == 200


async def test_an_edit_with_files_and_several_pictures(gateway: Running, impasto_emulator: Emulator) -> None:
    job = await begin(gateway, "edits", model="upscale", images=[{"image_url": URI}], n=3)
    done = await finished_job(gateway, job)
    assert len(done.json["data"]) == len(impasto_emulator.charges) == 3
    assert gateway.gateway._app.memory.used_bytes == 0


async def test_pictures_at_urls(gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await begin(gateway, n=2, response_format="url")
    done = await finished_job(gateway, job)
    assert (await finished_job(gateway, job)).body == done.body
    for each in done.json["data"]:
        assert "b64_json" not in each
        assert (await gateway.ask("GET", each["url"])).body.startswith(b"\x89PNG")
    now = time.time()
    monkeypatch.setattr(delivery, "time", SimpleNamespace(time=lambda: now + 3601))
    later = await finished_job(gateway, job)
    assert {each["url"] for each in later.json["data"]}.isdisjoint(each["url"] for each in done.json["data"])
    assert (await gateway.ask("GET", later.json["data"][0]["url"])).body.startswith(b"\x89PNG")
    assert len(impasto_emulator.charges) == 2


@pytest.mark.parametrize(
    ("body", "param"),
    [({"prompt": ""}, "prompt"), ({"model": "no"}, "model"), ({"n": 0}, "n"), ({"stream": True}, "stream")],
    ids=str,
)
async def test_an_invalid_job_is_refused_at_once(
    gateway: Running, impasto_emulator: Emulator, body: dict[str, Any], param: str
) -> None:
    refused = await begin(gateway, **body)
    assert (refused.status, refused.error["param"]) == (404 if param == "model" else 400, param)
    assert gateway.gateway._app.running_count == 0
    assert not impasto_emulator.requests


async def test_means_that_are_spent_refuse_it_at_once(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, more="keys:\n" + key_entry("other", OTHER, images_per_day=2)))
    gateway.session.headers["authorization"] = f"Bearer {OTHER}"
    assert (await begin(gateway, n=2)).status == 202
    refused = await begin(gateway, headers={"idempotency-key": "k"})
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    rows = await database(gateway).write(lambda db: db.execute("SELECT COUNT(*) FROM calls").fetchone())
    assert rows == (1,)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "status", "status": 403, "name": "content_moderation"}, "moderation_blocked"),
        ({"kind": "status", "status": 422}, "provider_refused"),
        ({"kind": "truncate"}, "charge_unknown"),
        ({"kind": "status", "status": 200, "body": "empty"}, "unusable_result"),
    ],
    ids=str,
)
async def test_a_job_that_fails_says_so(
    gateway: Running, impasto_emulator: Emulator, fault: dict[str, Any], code: str
) -> None:
    impasto_emulator.fault(**fault)
    answer = await finished_job(gateway, await begin(gateway))
    assert (answer.status, answer.json["status"]) == (200, "failed")
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.json["error"]["code"] == code
    assert len(impasto_emulator.requests) == 1


async def test_an_id_that_is_nobodys_or_anothers(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, more="keys:\n" + key_entry("other", OTHER)))
    id = (await begin(gateway)).json["id"]
    await gateway.idle()
    wrong = [id[1:], id + "0", id.upper(), "0" * 64, "g" * 64, "", "..%2f" + id, "%00", id + "%0a", "é" * 64]
    for each in wrong:
        refused = await gateway.ask("GET", f"/v1/images/jobs/{each}")
        assert (refused.status, refused.error["code"]) == (404, "not_found"), each
    gateway.session.headers["authorization"] = f"Bearer {OTHER}"
    assert (await gateway.ask("GET", f"/v1/images/jobs/{id}")).status == 404
    gateway.session.headers["authorization"] = "Bearer no"
    assert (await gateway.ask("GET", f"/v1/images/jobs/{id}")).status == 401
    assert len(impasto_emulator.requests) == 1


async def test_a_job_expires(gateway: Running) -> None:
    job = await begin(gateway)
    await finished_job(gateway, job)
    data = database(gateway)
    now = data.clock()
    data.clock = lambda: now + 24 * 3600 + 1
    assert (await gateway.ask("GET", job.headers["location"])).status == 404


async def test_a_key_is_one_job(gateway: Running, impasto_emulator: Emulator) -> None:
    key = {"idempotency-key": "k"}
    impasto_emulator.fault("delay", seconds=0.3)
    first, second = await begin(gateway, headers=key), await begin(gateway, headers=key)
    assert (second.status, second.json) == (202, first.json)
    assert second.headers["idempotent-replayed"] == "true"
    assert (await begin(gateway, headers=key, prompt="q")).status == 422
    waited = await gateway.ask("POST", "/v1/images/generations", json={"model": "sd3", "prompt": "p"}, headers=key)
    done = await finished_job(gateway, first)
    assert waited.json["data"] == done.json["data"]
    assert (await begin(gateway, headers=key)).json["status"] == "completed"
    assert len(impasto_emulator.charges) == 1


async def test_a_key_whose_job_cost_nothing_begins_another(gateway: Running, impasto_emulator: Emulator) -> None:
    key = {"idempotency-key": "k"}
    impasto_emulator.fault("status", status=403, name="content_moderation", times=1)
    first = await begin(gateway, headers=key)
    assert (await finished_job(gateway, first)).json["status"] == "failed"
    second = await begin(gateway, headers=key)
    assert second.json["id"] != first.json["id"]
    assert (await finished_job(gateway, second)).json["status"] == "completed"
    assert (await finished_job(gateway, first)).json["status"] == "failed"
    assert len(impasto_emulator.charges) == 1


async def test_a_retry_whose_first_answer_was_lost_is_given_the_same_job(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    body = json.dumps({"model": "sd3", "prompt": "p"}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {MASTER}\r\n"
    head += f"Prefer: respond-async\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    request = head.encode() + b"x-stainless-retry-count: 0\r\n\r\n" + body
    connection = await asyncio.to_thread(answered_unread, gateway.url, request)
    connection.close()
    retried = await begin(gateway, headers={"x-stainless-retry-count": "1"})
    assert (retried.status, retried.headers["idempotent-replayed"]) == (202, "true")
    assert (await finished_job(gateway, retried)).json["status"] == "completed"
    assert len(impasto_emulator.charges) == 1
    await gateway.delivered()
    assert "idempotent-replayed" not in (await begin(gateway, headers={"x-stainless-retry-count": "2"})).headers
    await gateway.idle()


async def test_jobs_of_sdks_that_arrived_are_nobody_elses(gateway: Running, impasto_emulator: Emulator) -> None:
    first = await begin(gateway, headers={"x-stainless-retry-count": "0"})
    await gateway.delivered()
    second = await begin(gateway, headers={"x-stainless-retry-count": "1"})  # of another call, that was refused
    assert first.json["id"] != second.json["id"]
    await gateway.idle()


async def test_no_job_starts_if_it_can_not_be_recorded(start: Start, impasto_emulator: Emulator, state: Path) -> None:
    state.parent.mkdir()
    state.touch()  # a file where the folder should be
    gateway = await start()
    refused = await begin(gateway)
    assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
    assert (await gateway.ask("GET", "/v1/images/jobs/" + "0" * 64)).status == 503
    assert not impasto_emulator.requests


async def test_a_providers_job_may_take_longer_than_a_call(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, general="  timeout: 1\n"))
    impasto_emulator.fault("pending", method="GET")
    job = await begin(gateway, "edits", model="creative", images=[{"image_url": URI}])
    await asyncio.sleep(1.5)
    assert (await gateway.ask("GET", job.headers["location"])).json["status"] == "in_progress"
    impasto_emulator.clear_faults()
    done = await finished_job(gateway, job)
    assert (done.json["status"], done.headers["x-impasto-cost-usd"]) == ("completed", "0.6")
    assert len(impasto_emulator.charges) == posts(impasto_emulator) == 1


def text(emulator: Emulator, *, key: str = KEY, general: str = "") -> str:
    entries = entry("sd3", "stability/sd3.5-large", emulator.url, key)
    entries += entry("creative", "stability/upscale-creative", emulator.url, key)
    return config(emulator.url, entries=entries, general=general)


async def post(sdk: openai.AsyncOpenAI, path: str, **body: object) -> str:
    payload: Any = await sdk.post(f"/images/{path}", body=body, cast_to=object, options={"headers": ASYNC})
    return str(payload["id"])


async def outcome(sdk: openai.AsyncOpenAI, id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            payload: Any = await sdk.get(f"/images/jobs/{id}", cast_to=object)
            if payload["status"] != "in_progress":
                return dict(payload)
            await asyncio.sleep(0.05)


async def polled(emulator: Emulator, jobs: int) -> None:
    """Waits until so many of the provider's jobs were asked for: by then it is written down that they were begun."""
    async with asyncio.timeout(60):
        while len({request.target for request in emulator.requests if request.method == "GET"}) < jobs:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_job_is_fetched_after_its_worker_was_killed(
    serve: Serve, impasto_emulator: Emulator, workers: str
) -> None:
    impasto_emulator.fault("pending", method="GET")
    process, url = await asyncio.to_thread(serve, text(impasto_emulator), "--workers", workers)
    async with sdk_client(url) as sdk:
        id = await post(sdk, "edits", model="creative", prompt="p", n=2, images=[{"image_url": URI}])
    await polled(impasto_emulator, 2)
    if workers == "1":
        process.kill()
        await asyncio.to_thread(process.wait, 60)
        _, url = await asyncio.to_thread(serve, text(impasto_emulator))
    else:
        for worker in psutil.Process(process.pid).children():
            os.kill(worker.pid, signal.SIGKILL)
    before = len(impasto_emulator.requests)
    impasto_emulator.clear_faults()
    async with sdk_client(url).with_options(max_retries=20) as sdk:
        payload = await outcome(sdk, id)
    assert (payload["status"], len(payload["data"])) == ("completed", 2)
    assert len(impasto_emulator.requests) > before
    assert posts(impasto_emulator) == len(impasto_emulator.charges) == 2


async def test_a_job_without_an_id_or_a_key_is_told_as_unknown(serve: Serve, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("pending", method="GET")
    process, url = await asyncio.to_thread(serve, text(impasto_emulator))
    async with sdk_client(url) as sdk:
        job = await post(sdk, "edits", model="creative", prompt="p", images=[{"image_url": URI}])
        await polled(impasto_emulator, 1)
        impasto_emulator.fault("delay", seconds=60, method="POST")  # the job stays pending until the process is killed
        answer = await post(sdk, "generations", model="sd3", prompt="p")
    async with asyncio.timeout(60):
        while posts(impasto_emulator) < 2:
            await asyncio.sleep(0.01)
    process.kill()
    await asyncio.to_thread(process.wait, 60)
    _, url = await asyncio.to_thread(serve, text(impasto_emulator, key="sk-" + "rotated-" * 5))
    async with sdk_client(url) as sdk:
        payload = await outcome(sdk, job)
        assert (payload["status"], payload["error"]["code"]) == ("failed", "charge_unknown")
        assert "key" in payload["error"]["message"]
        payload = await outcome(sdk, answer)
        assert (payload["status"], payload["error"]["code"]) == ("failed", "charge_unknown")
    assert posts(impasto_emulator) == 2


async def test_a_job_is_made_to_its_end_before_the_process_ends(serve: Serve, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("delay", seconds=1)
    process, url = await asyncio.to_thread(serve, text(impasto_emulator))
    async with sdk_client(url) as sdk:
        id = await post(sdk, "generations", model="sd3", prompt="p")
    process.terminate()
    assert await asyncio.to_thread(process.wait, 60) == 0
    _, url = await asyncio.to_thread(serve, text(impasto_emulator))
    async with sdk_client(url) as sdk:
        assert (await outcome(sdk, id))["status"] == "completed"
    assert posts(impasto_emulator) == len(impasto_emulator.charges) == 1
