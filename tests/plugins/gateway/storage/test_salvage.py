"""What was paid for and can't be used: its bytes are kept, and the error says how they are had."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from impasto import WireResponse
from impasto.dialects import images_from_base64
from impasto.ext import combined_error
from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.storage.local import LocalStore
from impasto_plugins.gateway.storage.salvage import SalvageStore, save_unusable
from impasto_plugins.images.completeness import is_complete
from tests.images import png
from tests.plugins.gateway.conftest import Running, Start, config
from tests.reliability.servers import (
    PICTURE_HEADERS,
    Answer,
    Server,
    head,
    in_json,
    page,
    picture,
    raw,
    refused,
)

WHOLE = png(256, 256)
BLURRED = png(128, 128)


def answered(body: bytes, *, cut: int = 0, kind: str = "image/png", reason: str = "SUCCESS") -> Answer:
    headers = {**PICTURE_HEADERS, "finish-reason": reason, "content-type": kind, "content-length": str(len(body))}
    return raw(head(200, headers), body[: len(body) - cut], end="close" if cut else "")


@pytest.fixture
async def gateway(start: Start, provider: Server) -> Running:
    return await start(config(provider.url))


def path_in(message: str | None) -> str:
    """Where the bytes are, as a message says it: nothing else in it is a path."""
    (path,) = paths_in(message)
    return path


def paths_in(message: str | None) -> list[str]:
    """Return the paths of all stored files in a message; nothing else in it may be a path."""
    pattern = r"GET (/v1/images/files/[\w-]{43}\.\w+) has [^;]*, for 24 hours"
    assert "/" not in re.sub(pattern, "", message or "").replace("text/html", "")
    return re.findall(pattern, message or "")


UNUSABLE = {
    "a picture without its end": (answered(WHOLE[:-20]), WHOLE[:-20], "image/png"),
    "no picture": (answered(b"<html>not a picture</html>"), b"<html>not a picture</html>", "application/octet-stream"),
    "JSON that says nothing": (in_json({"x": 1}), b'{"x": 1}', "application/octet-stream"),
    "a picture that broke off": (answered(WHOLE, cut=30), WHOLE[:-30], "image/png"),
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_its_bytes_are_kept(gateway: Running, provider: Server, name: str) -> None:
    answer, came, media_type = UNUSABLE[name]
    provider.posts = [answer]
    refused = await gateway.generate()
    assert refused.status == 502
    assert refused.error["code"] == ("charge_unknown" if "broke" in name else "unusable_result")
    what = "the image" if media_type == "image/png" else "the answer, which is not a usable image"
    assert f" has {what}, as the provider sent it" in (refused.error["message"] or "")
    gateway.session.headers.pop("authorization")  # whoever knows the name may have it
    path = await gateway.ask("GET", path_in(refused.error["message"]))
    assert (path.status, path.body, path.headers["content-type"]) == (200, came, media_type)
    assert path.headers["x-content-type-options"] == "nosniff"
    assert ("content-disposition" in path.headers) is (media_type == "application/octet-stream")
    assert len(provider.paid) == 1


async def test_a_page_of_somebodys_proxy_is_not(gateway: Running, provider: Server, state: Path) -> None:
    for answer in (page(502), page(200), answered(b"", cut=0)):
        provider.posts = [answer]
        assert "GET /v1/images/files" not in ((await gateway.generate()).error["message"] or "")
    assert not (state / "unread").exists()


async def test_of_several_pictures_the_one_that_can_not_be_used(gateway: Running, provider: Server) -> None:
    provider.posts = [picture(), answered(WHOLE[:-20]), picture()]
    answer = await gateway.generate(n=3)
    (failure,) = answer.json["errors"]
    assert (len(answer.json["data"]), failure["billed"]) == (2, "yes")
    assert (await gateway.ask("GET", path_in(failure["message"]))).body == WHOLE[:-20]


async def test_a_repetition_is_told_the_same(gateway: Running, provider: Server) -> None:
    provider.posts = [answered(WHOLE[:-20])]
    headers = {"idempotency-key": "k"}
    body = {"model": "sd3", "prompt": "p"}
    answers = [await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers) for _ in range(2)]
    first, again = (path_in(answer.error["message"]) for answer in answers)
    assert first == again
    assert len(provider.paid) == 1


async def test_the_salvaged_answer_of_a_job(gateway: Running, provider: Server) -> None:
    provider.posts = [answered(WHOLE[:-20])]
    body, headers = {"model": "sd3", "prompt": "p"}, {"prefer": "respond-async"}
    job = await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)
    payload: Any = {"status": "in_progress"}
    while payload["status"] == "in_progress":
        await asyncio.sleep(0.02)
        payload = (await gateway.ask("GET", job.headers["location"])).json
    assert (await gateway.ask("GET", path_in(payload["error"]["message"]))).body == WHOLE[:-20]


async def test_the_error_is_unchanged_if_its_answer_can_not_be_salvaged(
    gateway: Running, provider: Server, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state / "unread").touch()
    provider.posts = [answered(WHOLE[:-20])]
    refused = await gateway.generate()
    assert (refused.status, refused.error["code"]) == (502, "unusable_result")
    assert "GET" not in (refused.error["message"] or "")
    assert "could not be stored" in caplog.text


async def test_a_blurred_image_of_the_emulator_is_kept(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start()
    blocked = await gateway.generate(model="core", prompt="[content_filtered]")
    assert (blocked.status, blocked.error["code"]) == (400, "moderation_blocked")
    assert [charge.credits for charge in impasto_emulator.charges] == [3]
    image = await gateway.ask("GET", path_in(blocked.error["message"]))
    assert (image.status, image.headers["content-type"], image.body[:4]) == (200, "image/png", b"\x89PNG")


async def test_a_blurred_image_is_kept_as_it_came(gateway: Running, provider: Server) -> None:
    provider.posts = [answered(BLURRED, reason="CONTENT_FILTERED")]
    blocked = await gateway.generate()
    assert (blocked.status, blocked.error["code"]) == (400, "moderation_blocked")
    assert blocked.headers["x-should-retry"] == "false"
    image = await gateway.ask("GET", path_in(blocked.error["message"]))
    assert (image.status, image.body, image.headers["content-type"]) == (200, BLURRED, "image/png")


async def test_a_refusal_without_an_image_names_no_file(gateway: Running, provider: Server, state: Path) -> None:
    provider.posts = [refused(403, "content_moderation")]
    blocked = await gateway.generate()
    assert (blocked.status, blocked.error["code"]) == (400, "moderation_blocked")
    assert not paths_in(blocked.error["message"])
    assert not (state / "unread").exists()


async def test_a_blurred_image_beside_good_ones_is_kept(gateway: Running, provider: Server) -> None:
    provider.posts = [picture(), answered(BLURRED, reason="CONTENT_FILTERED"), picture()]
    answer = await gateway.generate(n=3)
    (failure,) = answer.json["errors"]
    assert (len(answer.json["data"]), failure["code"], failure["billed"]) == (2, "moderation_blocked", "unknown")
    assert (await gateway.ask("GET", path_in(failure["message"]))).body == BLURRED


async def test_a_blurred_image_of_a_job_is_kept(gateway: Running, provider: Server) -> None:
    provider.posts = [answered(BLURRED, reason="CONTENT_FILTERED")]
    body, headers = {"model": "sd3", "prompt": "p"}, {"prefer": "respond-async"}
    answer = await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers)
    job: Any = {"status": "in_progress"}
    while job["status"] == "in_progress":
        await asyncio.sleep(0.02)
        job = (await gateway.ask("GET", answer.headers["location"])).json
    assert job["error"]["code"] == "moderation_blocked"
    assert (await gateway.ask("GET", path_in(job["error"]["message"]))).body == BLURRED


async def _bodies(gateway: Running, paths: list[str]) -> list[bytes]:
    return sorted([(await gateway.ask("GET", path)).body for path in paths])


async def test_if_no_image_can_be_used_the_error_names_the_file_of_each(gateway: Running, provider: Server) -> None:
    answers = [WHOLE[:-20], WHOLE[:-30], b"<html>not a picture</html>"]
    provider.posts = [answered(each) for each in answers]
    failure = await gateway.generate(n=3)
    assert (failure.status, failure.error["code"]) == (502, "unusable_result")
    paths = paths_in(failure.error["message"])
    assert await _bodies(gateway, paths) == sorted(answers)


async def test_if_every_image_is_blurred_the_error_names_the_file_of_each(gateway: Running, provider: Server) -> None:
    answers = [BLURRED, WHOLE]
    provider.posts = [answered(each, reason="CONTENT_FILTERED") for each in answers]
    failure = await gateway.generate(n=2)
    assert (failure.status, failure.error["code"]) == (400, "moderation_blocked")
    assert await _bodies(gateway, paths_in(failure.error["message"])) == sorted(answers)


async def test_a_retry_gets_the_names_of_all_files(gateway: Running, provider: Server) -> None:
    provider.posts = [answered(WHOLE[:-20]), answered(BLURRED, reason="CONTENT_FILTERED")]
    body, headers = {"model": "sd3", "prompt": "p", "n": 2}, {"idempotency-key": "k"}
    first, second = [await gateway.ask("POST", "/v1/images/generations", json=body, headers=headers) for _ in range(2)]
    assert second.headers["idempotent-replayed"] == "true"
    assert paths_in(second.error["message"]) == paths_in(first.error["message"])
    assert await _bodies(gateway, paths_in(first.error["message"])) == sorted([WHOLE[:-20], BLURRED])
    assert len(provider.paid) == 2


async def test_a_file_of_another_image_is_named_if_the_first_was_refused(gateway: Running, provider: Server) -> None:
    provider.posts = [refused(400, "bad_request"), answered(WHOLE[:-20])]
    failure = await gateway.generate(n=2)
    assert (failure.status, failure.error["code"]) == (502, "charge_unknown")
    assert await _bodies(gateway, paths_in(failure.error["message"])) == [WHOLE[:-20]]


async def test_one_answer_with_several_damaged_images_is_stored_once(tmp_path: Path) -> None:
    texts = [b64encode(WHOLE[:size]).decode() for size in (90, 80, 70)] + [b64encode(WHOLE).decode()]
    response = WireResponse(status=200, headers={"content-type": "application/json"}, body=b'{"data": [...]}')
    errors = [each.error for each in images_from_base64(texts, response, is_complete).errors]
    assert len(errors) == 3
    store = SalvageStore(LocalStore(tmp_path, 24 * 3600))
    await save_unusable(store, *errors, combined_error(errors))
    (name,) = {path.rpartition("/")[2] for error in errors for path in paths_in(error.message)}
    assert [path.name for path in tmp_path.iterdir()] == [name]
