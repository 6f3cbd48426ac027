"""OpenAI's Batch API with OpenAI's own SDK: a file goes up, a batch runs, its results come down."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import socket
import time
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.auth import ANONYMOUS
from impasto_plugins.gateway.batches import job, scheduler
from impasto_plugins.gateway.batches.execution import is_reachable_again
from impasto_plugins.gateway.batches.input_lines import InputLine, LineFiles, create_tasks
from impasto_plugins.gateway.batches.output import ResultsFile
from impasto_plugins.gateway.batches.store import FileRow
from tests.images import drawn
from tests.plugins.gateway.conftest import Running, Start, config, entry
from tests.plugins.gateway.records import database

from .conftest import EDIT, MAKE, finish, jsonl, line, results, submit


@pytest.fixture
async def gateway(start: Start) -> Running:
    return await start(models=("core", "sd3", "ultra", "outpaint"))


async def test_a_batch_from_its_file_to_its_results(gateway: Running, impasto_emulator: Emulator) -> None:
    lines = [line("one", seed=7), line("two", n=2), line("three", prompt="a hare", model="sd3")]
    batch = await submit(gateway.sdk, lines, metadata={"for": "a test"})
    assert (batch.object, batch.status, batch.endpoint, batch.completion_window) == ("batch", "validating", MAKE, "24h")
    assert batch.metadata == {"for": "a test"}
    assert batch.expires_at == batch.created_at + 24 * 3600
    batch = await finish(gateway.sdk, batch)
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 3, 0)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.error_file_id is None
    outputs = await results(gateway.sdk, batch.output_file_id)
    assert list(outputs) == ["one", "two", "three"]
    for id, number in (("one", 1), ("two", 2), ("three", 1)):
        assert set(outputs[id]) == {"id", "custom_id", "response", "error"}
        assert outputs[id]["error"] is None
        assert outputs[id]["response"]["status_code"] == 200
        assert outputs[id]["response"]["request_id"]
        data = outputs[id]["response"]["body"]["data"]
        assert len(data) == number
        for each in data:
            picture = base64.b64decode(each["b64_json"], validate=True)
            assert picture.startswith(b"\x89PNG")
            assert picture.endswith(b"IEND\xaeB`\x82")
            assert len(picture) == each["bytes"]
    assert outputs["one"]["response"]["body"]["data"][0]["seed"] == 7
    assert outputs["three"]["response"]["body"]["cost_usd"] == 0.065
    assert len(impasto_emulator.charges) == 4


async def test_edits_take_their_pictures_as_data_uris(gateway: Running, impasto_emulator: Emulator) -> None:
    uri = "data:image/png;base64," + base64.b64encode(drawn("PNG", size=(128, 128))).decode()
    edit = line("e", EDIT, model="outpaint", images=[{"image_url": uri}], left=64)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [edit], EDIT))
    assert batch.status == "completed", batch.errors
    assert list(await results(gateway.sdk, batch.output_file_id)) == ["e"]
    (sent,) = impasto_emulator.requests
    assert sent.fields["left"] == "64"


async def test_the_synchronous_sdk(gateway: Running) -> None:
    def blocking() -> int:
        with openai.OpenAI(api_key=gateway.sdk.api_key, base_url=gateway.sdk.base_url, max_retries=0) as sdk:
            file = sdk.files.create(file=("in.jsonl", jsonl([line("a")])), purpose="batch")
            batch = sdk.batches.create(
                input_file_id=file.id, endpoint="/v1/images/generations", completion_window="24h"
            )
            while batch.status not in ("completed", "failed"):
                batch = sdk.batches.retrieve(batch.id)
            return len(sdk.files.content(batch.output_file_id or "").text.splitlines())

    assert await asyncio.to_thread(blocking) == 1


async def test_pictures_at_urls_are_good_when_the_batch_is_through(gateway: Running) -> None:
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("u", response_format="url", n=2), line("b")]))
    lines = await results(gateway.sdk, batch.output_file_id)
    data = lines["u"]["response"]["body"]["data"]
    async with aiohttp.ClientSession() as anyone:
        for each in data:
            assert "b64_json" not in each
            async with anyone.get(each["url"]) as answer:
                assert len(await answer.read()) == each["bytes"]
    assert "b64_json" in lines["b"]["response"]["body"]["data"][0]


async def test_a_failure_stands_in_the_error_file_as_the_path_would_answer(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault(
        "status", status=403, name="content_moderation", times=1, target="/v2beta/stable-image/generate/ultra"
    )
    impasto_emulator.fault("truncate", times=1, target="/v2beta/stable-image/generate/sd3")
    lines = [line("good"), line("filtered", model="ultra"), line("unknown", model="sd3")]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines))
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (3, 1, 2)
    assert list(await results(gateway.sdk, batch.output_file_id)) == ["good"]
    failed = await results(gateway.sdk, batch.error_file_id)
    assert list(failed) == ["filtered", "unknown"]
    for id, status, code, billed in (
        ("filtered", 400, "moderation_blocked", "no"),
        ("unknown", 502, "charge_unknown", "unknown"),
    ):
        response = failed[id]["response"]
        assert response["status_code"] == status
        assert response["body"]["error"]["code"] == code
        assert set(response["body"]["error"]) == {"message", "type", "param", "code"}
        assert (failed[id]["error"]["code"], failed[id]["error"]["billed"]) == (code, billed)


async def test_of_several_pictures_of_a_line_some_may_be_lost(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=422, times=1)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", n=3)]))
    body = (await results(gateway.sdk, batch.output_file_id))["a"]["response"]["body"]
    assert len(body["data"]) == 2
    (failure,) = body["errors"]
    assert (failure["code"], failure["billed"]) == ("provider_refused", "no")
    assert batch.request_counts.completed == 1


async def test_a_deployment_stands_in_for_another(start: Start, impasto_emulator: Emulator, second: Emulator) -> None:
    models = entry("core", "stability/stable-image-core", impasto_emulator.url)
    models += entry("core", "stability/stable-image-core", second.url)
    gateway = await start(config(impasto_emulator.url, entries=models))
    impasto_emulator.fault("status", status=401)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line(str(i)) for i in range(6)]))
    assert batch.request_counts.completed == 6
    assert (len(impasto_emulator.charges), len(second.charges)) == (0, 6)


async def test_a_batch_is_cancelled(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("delay", seconds=0.3)
    batch = await submit(gateway.sdk, [line(str(i)) for i in range(60)])
    while not impasto_emulator.requests:
        await asyncio.sleep(0.02)
    assert (await gateway.sdk.batches.cancel(batch.id)).status == "cancelling"
    batch = await finish(gateway.sdk, batch)
    assert batch.status == "cancelled"
    assert batch.cancelling_at <= batch.cancelled_at
    counts = batch.request_counts
    assert 0 < counts.completed < 60
    assert counts.completed + counts.failed == counts.total == 60
    assert len(impasto_emulator.charges) == counts.completed
    failed = await results(gateway.sdk, batch.error_file_id)
    assert {(each["response"], each["error"]["code"]) for each in failed.values()} == {(None, "batch_cancelled")}
    assert len(failed) == counts.failed
    with pytest.raises(openai.ConflictError):
        await gateway.sdk.batches.cancel(batch.id)


async def test_an_outage_is_waited_out(
    gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    impasto_emulator.fault("status", status=402, times=8)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line(str(i)) for i in range(12)]))
    assert batch.status == "completed"
    assert batch.request_counts.completed == 12
    assert len(impasto_emulator.charges) == 12


async def test_a_provider_that_is_back_is_found_by_a_free_request(start: Start, impasto_emulator: Emulator) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        model = "stability/stable-image-core"
        models = entry("down", model, nobody) + entry("half", model, nobody)
        gateway = await start(config("", entries=models + entry("half", model, impasto_emulator.url)))
        setup = gateway.gateway._app.runtime
        for name, answer in (("down", False), ("half", True)):
            input_line = InputLine(number=1, id="a", body={"model": name, "prompt": "p"})
            (unit,) = create_tasks(input_line, MAKE, setup, ANONYMOUS, LineFiles(Path(), lambda *_: False))
            assert await is_reachable_again(unit) is answer
    assert {sent.method for sent in impasto_emulator.requests} == {"GET"}
    assert impasto_emulator.charges == []


async def test_a_line_without_time_in_the_window_expires(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto_plugins.gateway.batches.batches_api.WINDOW_SECONDS", 1)
    gateway = await start()
    impasto_emulator.fault("status", status=402)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a"), line("b")]))
    assert batch.status == "expired"
    assert batch.expired_at is not None
    assert batch.output_file_id is None
    failed = await results(gateway.sdk, batch.error_file_id)
    assert [each["error"]["billed"] for each in failed.values()] == ["no", "no"]
    assert impasto_emulator.charges == []


async def test_lists_have_cursors(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MAX_RUNNING", 0)  # they wait
    batches = [(await submit(gateway.sdk, [line("a")])).id for _ in range(3)]
    assert [batch.id async for batch in gateway.sdk.batches.list(limit=2)] == batches[::-1]
    page = await gateway.sdk.batches.list(after=batches[2], limit=1)
    assert [batch.id for batch in page.data] == [batches[1]]
    assert page.has_more


async def test_the_input_may_be_deleted_while_it_runs(
    gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    impasto_emulator.fault("delay", seconds=0.2)
    batch = await submit(gateway.sdk, [line(str(i)) for i in range(20)])
    await gateway.sdk.files.delete(batch.input_file_id)
    assert (await finish(gateway.sdk, batch)).request_counts.completed == 20


async def test_a_repeated_request_begins_nothing_new(gateway: Running) -> None:
    file = await gateway.sdk.files.create(file=("in.jsonl", jsonl([line("a")])), purpose="batch")
    payload = {"input_file_id": file.id, "endpoint": MAKE, "completion_window": "24h"}

    async def create(**headers: str) -> Any:
        answer = await gateway.ask("POST", "/v1/batches", json=payload, headers=headers)
        assert answer.status == 200
        return answer.json["id"], "idempotent-replayed" in answer.headers

    first, _ = await create(**{"x-stainless-retry-count": "0"})
    assert await create(**{"x-stainless-retry-count": "1"}) == (first, True)
    other, _ = await create(**{"x-stainless-retry-count": "0"})
    assert other != first
    keyed, _ = await create(**{"idempotency-key": "k"})
    assert await create(**{"idempotency-key": "k"}) == (keyed, True)


async def test_files_of_results_go_with_their_pictures(gateway: Running, state: Any) -> None:
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))
    folder = state / "batches" / "runs" / batch.id
    assert list(folder.glob("*.png"))
    await gateway.sdk.files.delete(batch.output_file_id)
    assert not folder.exists()
    with pytest.raises(openai.NotFoundError):
        await gateway.sdk.files.content(batch.output_file_id)
    assert (await gateway.sdk.batches.retrieve(batch.id)).status == "completed"


async def test_a_disk_that_fails_at_the_end_costs_nothing_again(
    gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.1)
    finish_file, failed = ResultsFile.finish, list[ResultsFile]()

    def fails_once(writing: ResultsFile) -> bool:
        if not failed:
            failed.append(writing)
            raise OSError(errno.ENOSPC, "No space left on device")
        return finish_file(writing)

    monkeypatch.setattr(ResultsFile, "finish", fails_once)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a"), line("b", response_format="url")]))
    assert failed
    assert batch.status == "completed"
    assert list(await results(gateway.sdk, batch.output_file_id)) == ["a", "b"]
    assert len(impasto_emulator.charges) == 2


async def test_expired_files_leave_the_disk(gateway: Running, state: Path) -> None:
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))
    app = gateway.gateway._app
    database(gateway).clock = lambda: time.time() + 29 * 24 * 3600
    await app.batches.remove_expired()
    assert len(await results(gateway.sdk, batch.output_file_id)) == 1
    database(gateway).clock = lambda: time.time() + 32 * 24 * 3600
    await app.batches.remove_expired()
    for id in (batch.output_file_id, batch.input_file_id):
        with pytest.raises(openai.NotFoundError):
            await gateway.sdk.files.retrieve(id)
    with pytest.raises(openai.NotFoundError):
        await gateway.sdk.batches.retrieve(batch.id)
    left = [path for path in (state / "batches").rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize(("days", "stays"), [(0, True), (29, True), (31, False)])
async def test_a_folder_without_a_record_stays_as_long_as_results_do(
    days: int, stays: bool, gateway: Running, state: Path
) -> None:
    """Its record may be on its way, or was lost: then the images were paid for."""
    strays = [state / "batches" / "files" / "file-stray", state / "batches" / "runs" / "batch_stray" / "input.jsonl"]
    age = time.time() - days * 24 * 3600
    for stray in strays:
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"x")
        for each in (stray, stray.parent):
            os.utime(each, (age, age))
    await gateway.gateway._app.batches.remove_expired()
    assert [stray.exists() for stray in strays] == [stays, stays]


async def test_an_upload_that_a_crash_cut_off_takes_no_room_for_long(gateway: Running) -> None:
    app = gateway.gateway._app
    records, limits = app.batches.store, app.runtime.config.batches
    file = FileRow(
        id="file-" + "0" * 32,
        owner=b"o",
        purpose="batch",
        filename="",
        size=limits.max_bytes,
        path="files/x",
        ready=False,
        created=time.time(),
        expires=time.time() + 30 * 24 * 3600,
    )
    await records.reserve(file, limits)
    with pytest.raises(openai.RateLimitError):
        await submit(gateway.sdk, [line("a")])
    database(gateway).clock = lambda: time.time() + 25 * 3600
    await app.batches.remove_expired()
    assert (await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))).status == "completed"


async def test_a_head_that_is_refused_is_answered_without_its_body(gateway: Running) -> None:
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))
    for path in (f"/v1/files/{batch.output_file_id}/content", f"/v1/files/{batch.output_file_id}", "/v1/batches"):
        got, head = [await gateway.ask(method, path) for method in ("GET", "HEAD")]
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(got.body))


async def test_pictures_that_are_larger_than_was_thought_take_no_more_of_the_disk_than_they_may(
    start: Start, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "IMAGE_BYTES", 1)
    monkeypatch.setattr(job, "_ROOM_STEP_BYTES", 1)
    gateway = await start(config(impasto_emulator.url, more=f"batches: {{max_bytes: {1 << 20}, concurrency: 1}}\n"))
    lines, size = jsonl([line(str(i)) for i in range(40)]), len((await gateway.generate(model="core")).body)
    filling = bytes((1 << 20) - len(lines) - 1_000 - 6 * size)
    await gateway.sdk.files.create(file=("filling", filling), purpose="batch")
    impasto_emulator.fault("delay", seconds=0.02)
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines))
    assert batch.status == "completed"
    assert 0 < batch.request_counts.completed < 40
    failed = await results(gateway.sdk, batch.error_file_id)
    assert {(each["error"]["code"], each["error"]["billed"]) for each in failed.values()} == {
        ("insufficient_quota", "no")
    }
    assert len(impasto_emulator.charges) == 1 + batch.request_counts.completed


async def test_batches_that_wait_for_their_provider_hold_nobody_up(
    gateway: Running, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "MAX_RUNNING", 1)
    monkeypatch.setattr(job, "RETRY_SECONDS", 60)
    impasto_emulator.fault("status", status=402, target="/v2beta/stable-image/generate/ultra")
    waiting = await submit(gateway.sdk, [line("a", model="ultra")])
    while not impasto_emulator.requests:
        await asyncio.sleep(0.02)
    assert (await finish(gateway.sdk, await submit(gateway.sdk, [line("b")]))).status == "completed"
    assert (await gateway.sdk.batches.retrieve(waiting.id)).status == "in_progress"
    await gateway.sdk.batches.cancel(waiting.id)
    assert (await finish(gateway.sdk, waiting)).status == "cancelled"


async def test_a_batchs_images_go_to_the_deployment_whose_key_is_not_held_back(
    start: Start, impasto_emulator: Emulator, second: Emulator
) -> None:
    entries = entry("core", "stability/stable-image-core", impasto_emulator.url, "sk-held-back-in-a-batch")
    entries += entry("core", "stability/stable-image-core", second.url, "sk-free-in-a-batch")
    gateway = await start(config(impasto_emulator.url, entries=entries))
    impasto_emulator.fault("status", status=429)
    async with asyncio.timeout(30):
        batch = await finish(gateway.sdk, await submit(gateway.sdk, [line(f"a{i}", prompt=f"p{i}") for i in range(4)]))
    assert (batch.status, batch.request_counts.completed) == ("completed", 4)
    assert len(second.charges) == 4
