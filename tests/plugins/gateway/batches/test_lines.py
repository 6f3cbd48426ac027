"""Lines that can't be run: all are told by their numbers, before anything is sent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from impasto_plugins.emulator import Emulator
from tests.images import drawn
from tests.plugins.gateway.conftest import Answer, Running, Start, config

from .conftest import EDIT, MAKE, finish, jsonl, line, submit

URI = "data:image/png;base64," + base64.b64encode(drawn("PNG", size=(128, 128))).decode()


def edit(id: str, **body: object) -> dict[str, object]:
    return line(id, EDIT, model="erase", **body)


BAD: list[tuple[Any, str, str | None]] = [
    (b"{not json", "invalid_json_line", None),
    (b"[1]", "invalid_json_line", None),
    (b'{"custom_id": "x", "custom_id": "y"}', "invalid_json_line", None),
    (b"\xff\xfe", "invalid_json_line", None),
    (b"[" * 100_000, "invalid_json_line", None),
    ({"id": "short", "model": "core", "prompt": "p"}, "missing_required_parameter", "custom_id"),
    (line(""), "invalid_value", "custom_id"),
    (line("../x"), "invalid_value", "custom_id"),
    (line("a\x00b"), "invalid_value", "custom_id"),
    (line(7), "invalid_value", "custom_id"),
    ({**line("m"), "method": "GET"}, "invalid_value", "method"),
    ({**line("u"), "url": EDIT}, "invalid_url", "url"),
    ({**line("b"), "body": None}, "invalid_value", "body"),
    ({**line("w"), "path": "/etc/passwd"}, "unknown_parameter", "path"),
    (line("model", model="stability/sd3.5-large"), "model_not_found", "model"),
    (line("none", model=None), "missing_required_parameter", "model"),
    (line("prompt", prompt=""), "invalid_value", "prompt"),
    (line("n", n=11), "invalid_value", "n"),
    (line("stream", stream=True), "invalid_value", "stream"),
    *[
        (line(word, MAKE, **{word: value}), "unknown_parameter", word)
        for word, value in (
            ("api_base", "http://127.0.0.1:1"),
            ("api_key", "sk-x"),
            ("base_model", "core"),
            ("timeout", 5),
            ("retry", 3),
            ("role", "admin"),
        )
    ],
]


async def test_every_bad_line_is_told_with_its_number(gateway: Running, impasto_emulator: Emulator) -> None:
    lines = [each if isinstance(each, bytes) else jsonl([each]).strip() for each, _, _ in BAD]
    content = b"\n".join([jsonl([line("good")]).strip(), b"", *lines])
    batch = await finish(gateway.sdk, await submit(gateway.sdk, content))
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.errors.object == "list"
    payload = {each.line: each for each in batch.errors.data}
    for number, (_, code, param) in enumerate(BAD, 3):
        assert number in payload, lines[number - 3][:60]
        assert (payload[number].code, payload[number].param) == (code, param), payload[number].message
        assert payload[number].message
    assert len(payload) == len(BAD)
    assert impasto_emulator.requests == []


async def test_no_path_is_opened_and_nothing_is_fetched(
    gateway: Running, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "in.png").write_bytes(drawn("PNG", size=(128, 128)))
    lines = [
        edit("path", image=str(tmp_path / "in.png")),
        edit("name", image="in.png"),
        edit("many", image=[URI, str(tmp_path / "in.png")]),
        edit("object", images=[{"image_url": str(tmp_path / "in.png")}]),
        edit("file", image="file://" + str(tmp_path / "in.png")),
        edit("url", image=impasto_emulator.url),
        edit("object-url", images=[{"image_url": "http://169.254.169.254/"}]),
        edit("mask", image=URI, mask=str(tmp_path / "in.png")),
        edit("extra", extra_body={"image": str(tmp_path / "in.png")}),
        edit("id", images=[{"file_id": "file-" + "0" * 32}]),
        edit("number", image=7),
    ]
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines, EDIT))
    assert batch.status == "failed"
    assert [each.line for each in batch.errors.data] == list(range(1, len(lines) + 1))
    for each in batch.errors.data:
        assert each.param in ("image", "mask"), each
        assert str(tmp_path) not in each.message
    assert impasto_emulator.requests == []


async def test_an_id_comes_once(gateway: Running, impasto_emulator: Emulator) -> None:
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a"), line("b"), line("a", prompt="a hare")]))
    (error,) = batch.errors.data
    assert (batch.status, error.line, error.code, error.param) == ("failed", 3, "duplicate_custom_id", "custom_id")
    assert "line 1" in error.message
    assert impasto_emulator.requests == []


@pytest.mark.parametrize(
    ("lines", "code"),
    [(jsonl([line(i) for i in ("a", "b", "c")]), "too_many_requests"), (b"\n \n", "empty_file")],
    ids=["three", "none"],
)
async def test_a_file_has_lines_and_not_too_many(
    start: Start, impasto_emulator: Emulator, lines: bytes, code: str
) -> None:
    gateway = await start(config(impasto_emulator.url, more="batches: {max_requests: 2}\n"))
    batch = await finish(gateway.sdk, await submit(gateway.sdk, lines))
    assert (batch.status, [each.code for each in batch.errors.data]) == ("failed", [code])
    assert impasto_emulator.requests == []


async def test_the_disk_space_of_its_images_is_bounded(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, more=f"batches: {{max_bytes: {8 << 20}}}\n"))
    batch = await finish(gateway.sdk, await submit(gateway.sdk, [line("a", n=10)]))
    assert batch.status == "failed"
    assert "max_bytes" in batch.errors.data[0].message
    assert impasto_emulator.requests == []


async def create(gateway: Running, **more: object) -> Answer:
    file = await gateway.sdk.files.create(file=("in.jsonl", jsonl([line("a")])), purpose="batch")
    payload = {"input_file_id": file.id, "endpoint": MAKE, "completion_window": "24h", **more}
    return await gateway.ask("POST", "/v1/batches", json={k: v for k, v in payload.items() if v != "nothing"})


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ({"input_file_id": "nothing"}, (400, "missing_required_parameter", "input_file_id")),
        ({"input_file_id": 7}, (400, "invalid_value", "input_file_id")),
        ({"input_file_id": "file-" + "0" * 32}, (404, "not_found", "input_file_id")),
        ({"input_file_id": "../x"}, (404, "not_found", "input_file_id")),
        ({"endpoint": "nothing"}, (400, "missing_required_parameter", "endpoint")),
        ({"endpoint": "/v1/chat/completions"}, (400, "invalid_value", "endpoint")),
        ({"endpoint": ["/v1/images/generations"]}, (400, "invalid_value", "endpoint")),
        ({"completion_window": "1h"}, (400, "invalid_value", "completion_window")),
        ({"metadata": {"a": 1}}, (400, "invalid_value", "metadata")),
        ({"metadata": {str(i): "" for i in range(17)}}, (400, "invalid_value", "metadata")),
        ({"output_expires_after": {"anchor": "created_at"}}, (400, "invalid_value", "output_expires_after")),
        ({"output_expires_after": 5}, (400, "invalid_value", "output_expires_after")),
        ({"allowed_routes": ["*"]}, (400, "unknown_parameter", "allowed_routes")),
    ],
    ids=str,
)
async def test_an_invalid_batch_is_refused(
    gateway: Running, more: dict[str, object], answer: tuple[int, str, str]
) -> None:
    refused = await create(gateway, **more)
    assert (refused.status, refused.error["code"], refused.error["param"]) == answer
    assert (await gateway.ask("GET", "/v1/batches")).json["data"] == []
