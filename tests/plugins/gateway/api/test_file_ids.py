"""``file_id``: an image that was uploaded with ``POST /v1/files`` is used in an edit and in a batch's lines."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.gateway.batches.conftest import EDIT, finish, line, results, submit
from tests.plugins.gateway.conftest import MASTER, Answer, Running, Start, config, key_entry, sdk_client

OTHER = "sk-other-" + "0" * 24
IMAGE = png(96, 96)
USED = ("core", "erase", "inpaint", "style-transfer")


@pytest.fixture
async def gateway(start: Start, impasto_emulator: Emulator) -> Running:
    """A gateway with two keys."""
    return await start(config(impasto_emulator.url, models=USED, more="keys:\n" + key_entry("other", OTHER)))


async def uploaded(gateway: Running, content: bytes = IMAGE, purpose: Any = "vision", key: str = MASTER) -> str:
    """The id of a file that a key has uploaded."""
    async with sdk_client(gateway.url, key) as client:
        file = await client.files.create(file=("cat.png", content), purpose=purpose)
        assert (file.purpose, file.filename) == (purpose, "cat.png")
        return file.id


async def edit(gateway: Running, **body: object) -> Answer:
    return await gateway.ask("POST", "/v1/images/edits", json={"model": "inpaint", "prompt": "a boat", **body})


@pytest.mark.parametrize("purpose", ["vision", "batch"])
@pytest.mark.parametrize("word", ["image", "images"])
async def test_an_uploaded_image_is_edited(
    gateway: Running, impasto_emulator: Emulator, purpose: str, word: str
) -> None:
    image, mask = {"file_id": await uploaded(gateway, purpose=purpose)}, {"file_id": await uploaded(gateway)}
    answer = await edit(gateway, **{word: image if word == "image" else [image]}, mask={**mask, "image_url": None})
    assert answer.status == 200, answer.body
    assert impasto_emulator.requests[0].files["image"].sha256 == sha256(IMAGE).hexdigest()
    assert "mask" in impasto_emulator.requests[0].files


async def test_two_uploaded_images_are_used_in_their_order(gateway: Running, impasto_emulator: Emulator) -> None:
    style = png(128, 64)
    ids = [await uploaded(gateway), await uploaded(gateway, style)]
    answer = await edit(gateway, model="style-transfer", images=[{"file_id": id} for id in ids])
    assert answer.status == 200, answer.body
    files = impasto_emulator.requests[0].files
    assert files["init_image"].sha256 == sha256(IMAGE).hexdigest()
    assert files["style_image"].sha256 == sha256(style).hexdigest()


async def test_a_file_can_be_read_again_as_an_image(gateway: Running) -> None:
    content = await gateway.sdk.files.content(await uploaded(gateway))
    assert content.content == IMAGE
    assert content.response.headers["content-type"] == "application/octet-stream"
    assert [each.purpose for each in (await gateway.sdk.files.list(purpose="vision")).data] == ["vision"]


async def test_a_repeated_request_is_the_same_by_its_files_content(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    headers = {"idempotency-key": "once"}
    for _ in range(2):
        body = {"model": "erase", "image": {"file_id": await uploaded(gateway)}}
        answer = await gateway.ask("POST", "/v1/images/edits", json=body, headers=headers)
        assert answer.status == 200
    assert len(impasto_emulator.charges) == 1


NOTHING = "file-" + "0" * 32
REFUSED: dict[str, tuple[object, int, str]] = {
    "an id that nobody has": ({"file_id": NOTHING}, 404, "not_found"),
    "what is no id": ({"file_id": "../../etc/passwd"}, 400, "invalid_image"),
    "an empty id": ({"file_id": ""}, 400, "invalid_image"),
    "a number": ({"file_id": 7}, 400, "invalid_image"),
    "both": ({"file_id": NOTHING, "image_url": "data:image/png;base64,AAAA"}, 400, "invalid_image"),
    "too many": ([{"file_id": f"file-{i:032x}"} for i in range(21)], 400, "invalid_image"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_an_invalid_file_id_is_refused(gateway: Running, impasto_emulator: Emulator, name: str) -> None:
    image, status, code = REFUSED[name]
    answer = await edit(gateway, image=image)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, "image"), answer.body
    assert "passwd" not in (answer.error["message"] or "")
    assert not impasto_emulator.requests


async def test_a_key_uses_its_own_files_alone(gateway: Running, impasto_emulator: Emulator) -> None:
    id = await uploaded(gateway, key=OTHER)
    answer = await edit(gateway, image={"file_id": id})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "not_found", "image")
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [_line("a", id)], EDIT))
    assert (batch.status, batch.errors.data[0].code, batch.errors.data[0].line) == ("failed", "not_found", 1)
    assert not impasto_emulator.requests


async def test_a_file_that_is_no_image_is_refused_before_anything_is_sent(
    gateway: Running, impasto_emulator: Emulator
) -> None:
    answer = await edit(gateway, image={"file_id": await uploaded(gateway, b"no image")})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_image", "image")
    assert not impasto_emulator.requests


async def test_a_deleted_file_is_gone_and_no_message_shows_a_path(gateway: Running, state: Path) -> None:
    id = await uploaded(gateway)
    (state / "batches" / "files" / id).unlink()
    answer = await edit(gateway, image={"file_id": id})
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert str(state) not in (answer.error["message"] or "")
    await gateway.sdk.files.delete(id)
    assert (await edit(gateway, image={"file_id": id})).status == 404


def _line(id: str, file: str, **body: object) -> dict[str, object]:
    return line(id, EDIT, model="erase", images=[{"file_id": file}], **body)


async def test_a_batch_uses_files_which_may_be_deleted_once_it_runs(
    gateway: Running, impasto_emulator: Emulator, state: Path
) -> None:
    id = await uploaded(gateway)
    impasto_emulator.fault("delay", seconds=0.3)
    batch = await submit(gateway.sdk, [_line("a", id), _line("b", id, mask={"file_id": id}), _line("c", id, n=2)], EDIT)
    while batch.status == "validating":
        batch = await gateway.sdk.batches.retrieve(batch.id)
    await gateway.sdk.files.delete(id)
    batch = await finish(gateway.sdk, batch)
    assert (batch.status, batch.request_counts.completed) == ("completed", 3)
    assert set(await results(gateway.sdk, batch.output_file_id)) == {"a", "b", "c"}
    sent = [each.files["image"].sha256 for each in impasto_emulator.requests]
    assert sent == [sha256(IMAGE).hexdigest()] * 4
    assert not [name for _, _, names in os.walk(state / "batches" / "runs") for name in names if name == id]


async def test_a_batch_is_refused_whole_if_a_file_is_missing(gateway: Running, impasto_emulator: Emulator) -> None:
    lines = [_line("a", await uploaded(gateway)), _line("b", NOTHING), _line("c", "x")]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines, EDIT))
    assert batch.status == "failed"
    found = [(each.line, each.code, each.param) for each in batch.errors.data]
    assert found == [(2, "not_found", "image"), (3, "invalid_image", "image")]
    assert not impasto_emulator.requests


async def test_a_batchs_own_results_are_no_images(gateway: Running) -> None:
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a")]))
    answer = await edit(gateway, image={"file_id": batch.output_file_id})
    assert (answer.status, answer.error["param"]) == (400, "image")
    assert "purpose" in (answer.error["message"] or "")


async def test_without_files_an_id_is_refused(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, models=USED, more="batches: {enabled: false}\n"))
    answer = await edit(gateway, image={"file_id": NOTHING})
    assert (answer.status, answer.error["param"]) == (400, "image")
    assert "batches.enabled" in (answer.error["message"] or "")
