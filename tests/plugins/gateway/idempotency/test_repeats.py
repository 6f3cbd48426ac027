"""Requests that come again: by their Idempotency-Key, and as an SDK's retries. The account says what was charged."""

import asyncio
import base64
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.api import delivery
from tests.images import drawn
from tests.plugins.gateway.conftest import Answer, Running, Start, config, key_entry
from tests.plugins.gateway.raw import answered_unread, until
from tests.plugins.gateway.records import calls_of, database

PATH = "/v1/images/generations"
BODY = {"model": "sd3", "prompt": "p"}
OTHER = "sk-other-" + "k" * 24


async def ask(gateway: Running, *, key: str | None = None, count: int | None = None, **body: object) -> Answer:
    """A generation with an Idempotency-Key, or as the attempt of an SDK that counts."""
    headers = {"idempotency-key": key} if key is not None else {}
    if count is not None:
        headers["x-stainless-retry-count"] = str(count)
    return await gateway.ask("POST", PATH, json={**BODY, **body}, headers=headers)


async def leave(gateway: Running, emulator: Emulator, **options: Any) -> None:
    """Asks, and hangs up when the provider has the call."""
    before = len(emulator.requests)
    emulator.fault("delay", seconds=0.3, times=1)
    call = asyncio.create_task(ask(gateway, **options))
    while len(emulator.requests) == before:
        await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait([call])


async def idle(gateway: Running) -> None:
    await gateway.idle()


def replayed(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


async def test_a_key_is_one_call(gateway: Running, impasto_emulator: Emulator) -> None:
    first = await ask(gateway, key="k-1", n=2, seed=5)
    second = await ask(gateway, key="k-1", n=2, seed=5)
    assert (first.status, replayed(first), replayed(second)) == (200, False, True)
    assert second.body == first.body
    assert len(first.json["data"]) == 2
    for name in ("content-type", "x-impasto-cost-usd"):
        assert second.headers[name] == first.headers[name]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(impasto_emulator.charges) == 2


async def test_the_same_is_the_same_however_it_is_written(gateway: Running, impasto_emulator: Emulator) -> None:
    bodies = (
        b'{"model":"sd3","prompt":"p","seed":5}',
        b'{ "seed": 5, "style_preset": null, "prompt": "\\u0070", "model": "sd3" }',
    )
    headers = {"content-type": "application/json", "idempotency-key": "k"}
    for path, body in ((PATH, bodies[0]), ("/images/generations", bodies[1])):
        assert (await gateway.ask("POST", path, data=body, headers=headers)).status == 200
    assert len(impasto_emulator.charges) == 1


async def test_a_forms_boundary_and_file_names_are_nothing(gateway: Running, impasto_emulator: Emulator) -> None:
    async def edit(picture: bytes, filename: str) -> Answer:
        form = aiohttp.FormData()  # with a boundary of its own
        form.add_field("image", picture, filename=filename, content_type="image/png")
        form.add_field("model", "upscale")
        form.add_field("prompt", "p")
        return await gateway.ask("POST", "/v1/images/edits", data=form, headers={"idempotency-key": "k"})

    small = drawn("PNG", size=(128, 128))
    first, second = await edit(small, "a.png"), await edit(small, "b.png")
    assert (first.status, second.body) == (200, first.body)
    assert (await edit(drawn("PNG", size=(129, 128)), "a.png")).status == 422
    assert len(impasto_emulator.charges) == 1


@pytest.mark.parametrize(
    "other",
    [{"prompt": "q"}, {"n": 2}, {"seed": 1}, {"model": "core"}, {"response_format": "url"}, {"stream": True}],
    ids=str,
)
async def test_a_key_belongs_to_one_request(
    gateway: Running, impasto_emulator: Emulator, other: dict[str, Any]
) -> None:
    assert (await ask(gateway, key="k")).status == 200
    refused = await ask(gateway, key="k", **other)
    assert (refused.status, refused.error["code"]) == (422, "idempotency_key_reused")
    assert refused.error["param"] == "Idempotency-Key"
    assert refused.headers["x-should-retry"] == "false"
    assert len(impasto_emulator.requests) == 1


async def test_a_key_is_its_callers_own(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, more="keys:\n" + key_entry("other", OTHER)))
    await ask(gateway, key="k")
    gateway.session.headers["authorization"] = f"Bearer {OTHER}"
    assert not replayed(await ask(gateway, key="k"))
    assert (await ask(gateway, key="k", prompt="q")).status == 422
    assert len(impasto_emulator.charges) == 2


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "é", "a\tb"], ids=ascii)
async def test_a_key_that_is_none(gateway: Running, impasto_emulator: Emulator, key: str) -> None:
    refused = await ask(gateway, key=key)
    assert (refused.status, refused.error["param"]) == (400, "Idempotency-Key")
    assert not impasto_emulator.requests


async def test_the_longest_key_and_two_of_them(gateway: Running, impasto_emulator: Emulator) -> None:
    assert (await ask(gateway, key="x" * 255)).status == 200
    headers = [("idempotency-key", "a"), ("idempotency-key", "a")]
    assert (await gateway.ask("POST", PATH, json=BODY, headers=headers)).error["param"] == "Idempotency-Key"
    assert len(impasto_emulator.charges) == 1


async def test_a_key_whose_call_runs_is_joined(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("delay", seconds=0.5)
    answers = await asyncio.gather(*(ask(gateway, key="k") for _ in range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    assert len({answer.body for answer in answers}) == 1
    assert sorted(map(replayed, answers)) == [False] + [True] * 7
    assert len(impasto_emulator.charges) == 1


async def test_different_keys_are_different_calls(gateway: Running, impasto_emulator: Emulator) -> None:
    answers = await asyncio.gather(*(ask(gateway, key=f"k-{i}") for i in range(4)))
    assert not any(map(replayed, answers))
    assert len(impasto_emulator.charges) == 4


async def test_a_key_holds_for_a_day(gateway: Running, impasto_emulator: Emulator) -> None:
    data = database(gateway)
    began = data.clock()
    await ask(gateway, key="k")
    data.clock = lambda: began + 24 * 3600 - 1
    assert replayed(await ask(gateway, key="k"))
    data.clock = lambda: began + 24 * 3600 + 60
    assert not replayed(await ask(gateway, key="k"))
    assert len(impasto_emulator.charges) == 2


async def test_a_key_holds_over_a_restart(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start()
    first = await ask(gateway, key="k")
    await gateway.gateway.__aexit__(None, None, None)
    assert (await ask(await start(), key="k")).body == first.body
    assert len(impasto_emulator.charges) == 1


@pytest.mark.parametrize(
    ("fault", "again"),
    [
        ({"kind": "status", "status": 401}, True),
        ({"kind": "status", "status": 422}, True),
        ({"kind": "status", "status": 403, "name": "content_moderation"}, True),
        ({"kind": "truncate"}, False),
        ({"kind": "reset"}, False),
        ({"kind": "status", "status": 502, "body": "html"}, False),
        ({"kind": "status", "status": 200, "body": "empty"}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["key", "retry"])
async def test_only_a_free_failure_runs_again(
    gateway: Running, impasto_emulator: Emulator, way: str, fault: dict[str, Any], again: bool
) -> None:
    impasto_emulator.fault(**fault, times=1)
    options: list[dict[str, Any]] = [{"key": "k"}] * 3 if way == "key" else [{"count": count} for count in range(3)]
    first, second, third = [await ask(gateway, **each) for each in options]
    assert first.status != 200
    if again:
        assert (second.status, replayed(second)) == (200, False)
    else:
        assert (second.status, second.error) == (first.status, first.error)
        assert (third.error, replayed(second)) == (first.error, True)
        assert second.headers["x-should-retry"] == "false"
        assert len(impasto_emulator.requests) == 1


async def test_a_call_that_was_not_sent_runs_again(start: Start, impasto_emulator: Emulator) -> None:
    down = await start(config("http://127.0.0.1:9", general="  timeout: 0.5\n"))
    first = await ask(down, key="k")
    assert (first.status, first.headers["x-should-retry"]) == (503, "true")
    await down.gateway.__aexit__(None, None, None)
    assert (await ask(await start(), key="k")).status == 200


async def test_a_retry_is_given_what_its_first_attempt_came_to(gateway: Running, impasto_emulator: Emulator) -> None:
    await leave(gateway, impasto_emulator, count=0)
    await idle(gateway)
    answer = await ask(gateway, count=1)
    assert (answer.status, replayed(answer)) == (200, True)
    assert base64.b64decode(answer.json["data"][0]["b64_json"]).startswith(b"\x89PNG")
    assert len(impasto_emulator.charges) == 1


async def test_a_retry_joins_the_attempt_that_runs_and_the_next_one_too(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("delay", seconds=1)
    await leave(gateway, impasto_emulator, count=0)
    second = asyncio.create_task(ask(gateway, count=1))
    await asyncio.sleep(0.3)
    second.cancel()
    await asyncio.wait([second])
    answer = await ask(gateway, count=2)
    assert (answer.status, replayed(answer)) == (200, True)
    assert len(impasto_emulator.requests) == len(impasto_emulator.charges) == 1


async def test_each_result_is_one_retrys(gateway: Running, impasto_emulator: Emulator) -> None:
    for _ in range(2):
        await leave(gateway, impasto_emulator, count=0)
    await idle(gateway)
    answers = [await ask(gateway, count=1) for _ in range(3)]
    assert [replayed(answer) for answer in answers] == [True, True, False]
    assert answers[0].json["data"][0]["seed"] != answers[1].json["data"][0]["seed"]
    assert len(impasto_emulator.charges) == 3


async def test_without_a_key_the_same_request_twice_is_two_pictures(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("delay", seconds=0.2)
    answers = await asyncio.gather(*(ask(gateway, count=0) for _ in range(2)), *(ask(gateway) for _ in range(2)))
    assert not any(map(replayed, answers))
    assert len({answer.json["data"][0]["seed"] for answer in answers}) == 4
    await leave(gateway, impasto_emulator)
    assert not replayed(await ask(gateway))  # no retry: it is asked for anew
    assert not replayed(await ask(gateway, count=0))
    assert len(impasto_emulator.charges) == 7


async def test_a_retry_takes_nothing_from_a_call_whose_caller_is_there(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("delay", seconds=0.5)
    running = asyncio.create_task(ask(gateway, count=0))
    await until(lambda: len(impasto_emulator.requests) == 1)
    assert not replayed(await ask(gateway, count=1))  # of another attempt, which was refused perhaps
    assert not replayed(await running)
    assert len(impasto_emulator.charges) == 2


async def test_a_retry_is_another_callers_or_another_requests(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, more="keys:\n" + key_entry("other", OTHER)))
    await leave(gateway, impasto_emulator, count=0)
    await idle(gateway)
    assert not replayed(await ask(gateway, count=1, prompt="q"))
    gateway.session.headers["authorization"] = f"Bearer {OTHER}"
    assert not replayed(await ask(gateway, count=1))
    assert len(impasto_emulator.charges) == 3


@pytest.mark.parametrize(("seconds", "waits"), [(15 * 60 - 5, True), (15 * 60 + 60, False)])
async def test_a_result_waits_a_quarter_of_an_hour_for_its_retry(
    gateway: Running, impasto_emulator: Emulator, seconds: int, waits: bool
) -> None:
    data = database(gateway)
    began = data.clock()
    await leave(gateway, impasto_emulator, count=0)
    await idle(gateway)
    data.clock = lambda: began + seconds
    assert replayed(await ask(gateway, count=1)) == waits
    assert len(impasto_emulator.charges) == (1 if waits else 2)


@pytest.mark.parametrize("count", ["-1", "x", "", "1.5", "9" * 20])
async def test_a_count_that_is_none_is_a_new_request(gateway: Running, impasto_emulator: Emulator, count: str) -> None:
    await leave(gateway, impasto_emulator, count=0)
    await idle(gateway)
    answer = await gateway.ask("POST", PATH, json=BODY, headers={"x-stainless-retry-count": count})
    assert not replayed(answer)


async def test_an_answer_that_its_caller_hung_up_on_is_kept(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("delay", seconds=0.2)
    body = json.dumps(BODY).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {gateway.session.headers['authorization']}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nx-stainless-retry-count: 0\r\n\r\n"
    connection = await asyncio.to_thread(answered_unread, gateway.url, head.encode() + body)
    connection.close()  # the answer came just as the client's patience ended
    assert replayed(await ask(gateway, count=1))
    assert len(impasto_emulator.charges) == 1


async def test_a_delivered_outcome_is_not_stored(gateway: Running, impasto_emulator: Emulator, state: Path) -> None:
    for count in (0, None):
        assert (await ask(gateway, count=count)).status == 200
    await gateway.delivered()
    assert not calls_of(gateway.gateway._idempotency)._calls
    assert not (state / "outcomes").exists()
    assert await database(gateway).write(lambda db: db.execute("SELECT COUNT(*) FROM calls").fetchone()) == (0,)


async def test_a_stream_is_replayed_as_one(gateway: Running, impasto_emulator: Emulator) -> None:
    first = await ask(gateway, key="k", stream=True)
    second = await ask(gateway, key="k", stream=True)
    assert first.body.startswith(b"event: image_generation.completed\n")
    assert (second.body, replayed(second)) == (first.body, True)
    await leave(gateway, impasto_emulator, count=0, stream=True)
    assert replayed(await ask(gateway, count=1, stream=True))
    assert len(impasto_emulator.charges) == 2


async def test_a_url_is_replayed_and_made_anew_where_it_has_expired(
    gateway: Running, impasto_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await ask(gateway, key="k", response_format="url", n=2)
    assert (await ask(gateway, key="k", response_format="url", n=2)).body == first.body
    now = time.time()
    monkeypatch.setattr(delivery, "time", SimpleNamespace(time=lambda: now + 3601))
    for each in (tmp_path / "files").iterdir():
        os.utime(each, (0, 0))
    again = await ask(gateway, key="k", response_format="url", n=2)
    for old, new in zip(first.json["data"], again.json["data"], strict=True):
        assert old["url"] != new["url"]
        assert (await gateway.ask("GET", old["url"])).status == 404
        assert (await gateway.ask("GET", new["url"])).body.startswith(b"\x89PNG")
    assert (await ask(gateway, key="k", response_format="url", n=2)).body == again.body, "they are stored once"
    assert len(impasto_emulator.charges) == 2


async def test_pictures_that_were_lost_are_told_again(gateway: Running, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("truncate", times=1)
    first = await ask(gateway, key="k", n=3, size="100x101")
    second = await ask(gateway, key="k", n=3, size="100x101")
    assert len(first.json["errors"]) == 1
    assert first.json["warnings"]
    assert (second.body, second.headers["x-impasto-warnings"]) == (first.body, first.headers["x-impasto-warnings"])


async def test_an_edit_with_files_is_replayed(gateway: Running, impasto_emulator: Emulator) -> None:
    picture = drawn("PNG", size=(1024, 1024))
    for _ in range(2):
        edited = await gateway.sdk.images.edit(
            model="upscale", image=picture, prompt="p", extra_headers={"Idempotency-Key": "k"}
        )
        assert edited.data
    assert len(impasto_emulator.charges) == 1
