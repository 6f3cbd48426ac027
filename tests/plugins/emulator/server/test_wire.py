"""What goes over the wire: forms, the order of checks, the shape of refusals, the forms of an answer."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.images import chunk, png
from tests.plugins.emulator.conftest import (
    CREATIVE,
    GENERATE,
    INPAINT,
    KEY,
    SD3,
    Wire,
    form,
    open_image,
    plain,
    started,
)

RATIOS = ("21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21")
PROMPT = {"prompt": "a lighthouse"}


def errors(answer: tuple[int, object, bytes]) -> list[str]:
    body = json.loads(answer[2])
    assert body.keys() == {"id", "name", "errors"}
    return list(body["errors"])


async def test_bytes_come_with_seed_and_finish_reason_in_headers(wire: Wire) -> None:
    status, headers, body = await wire.post(GENERATE, {**PROMPT, "seed": 7})
    assert (status, headers["content-type"]) == (200, "image/png")
    assert (headers["finish-reason"], headers["seed"]) == ("SUCCESS", "7")
    assert len(headers["x-request-id"]) == 32
    assert open_image(body).format == "PNG"


async def test_json_has_what_the_headers_have_otherwise(wire: Wire) -> None:
    status, headers, body = await wire.post(GENERATE, {**PROMPT, "seed": 7}, accept="application/json")
    assert status == 200
    assert headers["content-type"] == "application/json; type=image/png"
    assert "seed" not in headers
    assert "finish-reason" not in headers
    payload = json.loads(body)
    assert payload.keys() == {"image", "seed", "finish_reason"}
    assert (payload["seed"], payload["finish_reason"]) == (7, "SUCCESS")
    assert open_image(base64.b64decode(payload["image"], validate=True)).format == "PNG"


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_output_format_decides_the_encoding(wire: Wire, format: str) -> None:
    _, headers, body = await wire.post(GENERATE, {**PROMPT, "output_format": format})
    assert headers["content-type"] == f"image/{format}"
    assert open_image(body).format == format.upper()


async def test_a_request_without_a_body_is_refused(wire: Wire) -> None:
    status, headers, body = await wire.send("POST", GENERATE, skip_auto_headers=["content-type"])
    assert status == 400
    assert json.loads(body)["name"] == "bad_request"
    assert errors((status, headers, body)) == ["content-type: required"]


@pytest.mark.parametrize("options", [{"data": {"prompt": "x"}}, {"json": {"prompt": "x"}}, {"data": b"prompt=x"}])
async def test_another_content_type_is_refused(wire: Wire, options: dict[str, Any]) -> None:
    answer = await wire.send("POST", GENERATE, **options)
    assert answer[0] == 400
    assert errors(answer) == ["content-type: must be multipart/form-data"]


@pytest.mark.parametrize(
    "body",
    [b"", b"no form", b"--b\r\n\r\nx", b"--b\r\ncontent-disposition: form-data; name=prompt\r\n\r\ncut", b"--b"],
)
async def test_a_damaged_form_is_refused(wire: Wire, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await asyncio.wait_for(wire.send("POST", GENERATE, data=body, headers=headers), 60)
    assert answer[0] == 400
    assert errors(answer)


@pytest.mark.parametrize(
    ("fields", "entries"),
    [
        ({}, ["prompt: required"]),
        ({"prompt": ""}, ["prompt: required"]),
        ({"prompt": "x", "mode": "image-to-image", "image": plain(), "strength": 1, "aspect_ratio": "1:1"},
         ["aspect_ratio: not allowed when 'mode' is set to 'image-to-image'"]),
        ({"prompt": "x", "mode": "image-to-image"}, ["image: required", "strength: required"]),
        ({"prompt": "x", "aspect_ratio": "7:3"},
         ["aspect_ratio: invalid enum value. Expected " + " | ".join(f"'{ratio}'" for ratio in RATIOS)]),
        ({"prompt": "x", "seed": "1.0"}, ["seed: must be a whole number in decimal digits"]),
        ({"prompt": "x", "seed": "1e3"}, ["seed: must be a whole number in decimal digits"]),
        ({"prompt": "x", "cfg_scale": "NaN"}, ["cfg_scale: must be a number in decimal digits"]),
        ({"prompt": "x", "cfg_scale": "٤"}, ["cfg_scale: must be a number in decimal digits"]),
        ({"prompt": "x", "cfg_scale": " 4"}, ["cfg_scale: must be a number in decimal digits"]),
        ({"prompt": "x", "cfg_scale": "10.1"}, ["cfg_scale: must be a number from 1 to 10, not 10.1"]),
        ({"prompt": "x", "seed": "4294967295"}, ["seed: must be a whole number from 0 to 4294967294, not 4294967295"]),
        ({"prompt": "x", "image": "text", "mode": "image-to-image", "strength": 1}, ["image: must be a file"]),
        ({"prompt": b"file"}, ["prompt: must be a field, not a file"]),
    ],
)  # fmt: skip
async def test_a_wrong_form_names_each_field(wire: Wire, fields: dict[str, object], entries: list[str]) -> None:
    answer = await wire.post(SD3, fields)
    assert answer[0] == 400
    assert errors(answer) == entries
    assert wire.emulator.charges == []


async def test_all_problems_come_at_once(wire: Wire) -> None:
    answer = await wire.post(INPAINT, {"image": b"no picture", "seed": "-1", "grow_mask": "101"})
    assert sorted(entry.partition(":")[0] for entry in errors(answer)) == ["grow_mask", "image", "prompt", "seed"]


async def test_the_dummy_part_of_the_vendors_samples_is_accepted(wire: Wire) -> None:
    assert (await wire.post(GENERATE, {**PROMPT, "none": b""}))[0] == 200
    async with started(strict=True) as strict:
        assert (await strict.post(GENERATE, {**PROMPT, "none": b""}, accept="image/*"))[0] == 200


async def test_unknown_fields_are_dropped_unless_strict(wire: Wire) -> None:
    fields = {**PROMPT, "promt": "x", "bottom": 3}
    assert (await wire.post(GENERATE, fields))[0] == 200
    async with started(strict=True) as strict:
        answer = await strict.post(GENERATE, fields, accept="image/*")
        assert answer[0] == 400
        assert errors(answer) == ["bottom: unknown field", "promt: unknown field"]
        assert (await strict.post(GENERATE, PROMPT, accept="text/plain"))[0] == 400
        assert (await strict.post(GENERATE, PROMPT, accept="image/*"))[0] == 200


async def test_the_last_of_a_repeated_field_counts(wire: Wire) -> None:
    fields = [("prompt", "x"), ("seed", 1), ("seed", 2)]
    _, headers, _ = await wire.send("POST", GENERATE, data=form(fields))
    assert headers["seed"] == "2"


async def test_parameters_are_checked_before_the_key() -> None:
    async with started(keys=(KEY,)) as wire:
        for key in ("wrong", None):
            assert (await wire.post(GENERATE, {}, key=key))[0] == 400
            status, headers, body = await wire.post(GENERATE, PROMPT, key=key)
            assert (status, json.loads(body)["name"]) == (401, "unauthorized")
            assert errors((status, headers, body)) == ["authorization: invalid or missing header value"]
        bare = await wire.send("POST", GENERATE, key=None, data=form(PROMPT.items()), headers={"authorization": KEY})
        assert bare[0] == 401
        assert (await wire.post(GENERATE, PROMPT))[0] == 200
        assert len(wire.emulator.charges) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_ten_mebibytes_is_413(wire: Wire, chunked: bool) -> None:
    body = form([("prompt", "x"), ("image", bytes(10 * 2**20))])()

    async def pieces() -> AsyncIterator[bytes]:
        yield await body.as_bytes()

    headers = {"content-type": body.content_type}
    data = pieces() if chunked else body
    status, _, answer = await wire.send("POST", INPAINT, data=data, headers=headers)
    assert (status, json.loads(answer)["name"]) == (413, "payload_too_large")
    assert json.loads(answer)["errors"][0].startswith("body: ")


async def test_a_body_just_under_the_limit_passes(wire: Wire) -> None:
    image = plain()
    padding = bytes(10 * 2**20 - len(image) - 1000)
    status, _, _ = await wire.post(INPAINT, {**PROMPT, "image": image + padding})
    assert status == 200
    assert wire.emulator.requests[0].files["image"].bytes == len(image) + len(padding)


async def test_too_many_parts_are_refused(wire: Wire) -> None:
    answer = await wire.post(GENERATE, {**PROMPT, **{f"x{i}": 1 for i in range(100)}})
    assert errors(answer) == ["body: more than 64 parts"]


@pytest.mark.parametrize("model", ["sd3.5-large", "sd3.5-flash", "sd3-medium"])
async def test_the_model_field_chooses_the_price(wire: Wire, model: str) -> None:
    assert (await wire.post(SD3, {**PROMPT, "model": model}))[0] == 200
    assert wire.emulator.charges[0].operation == f"stability/{model}"
    assert wire.emulator.credits == {"sd3.5-large": 6.5, "sd3.5-flash": 2.5, "sd3-medium": 3.5}[model]


async def test_the_refusal_of_an_unknown_model_names_the_known_ones(wire: Wire) -> None:
    (entry,) = errors(await wire.post(SD3, {**PROMPT, "model": "sd4"}))
    assert entry.startswith("model: invalid enum value. Expected ")
    assert "'sd3.5-large'" in entry


async def test_an_image_that_can_not_be_decoded_costs_nothing(wire: Wire) -> None:
    cut = png(640, 640)[:33] + chunk(b"IDAT", b"no pixels") + chunk(b"IEND", b"")
    for path, field in ((INPAINT, "image"), (CREATIVE, "image")):
        answer = await wire.post(path, {**PROMPT, field: cut})
        (entry,) = errors(answer)
        assert entry.startswith(f"{field}: ")
        assert "damaged PNG" in entry
    assert wire.emulator.charges == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods_and_paths_are_not_found(wire: Wire, method: str) -> None:
    for path in (GENERATE, "/v2beta/image-to-video", "/"):
        status, _, body = await wire.send(method, path)
        assert (status, json.loads(body)["name"]) == (404, "not_found")


async def test_an_unknown_path_of_v1_needs_a_key(wire: Wire) -> None:
    for key, status in ((None, 401), (KEY, 404)):
        answered, _, body = await wire.get("/v1/nothing", key=key)
        assert answered == status
        assert json.loads(body).keys() == {"id", "name", "message"}
