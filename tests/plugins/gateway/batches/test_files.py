"""``/v1/files``: what comes in, what is refused, what is listed and by whom."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.gateway.conftest import Answer, Running, Start, config, key_entry, sdk_client

LINE = (
    b'{"custom_id": "a", "method": "POST", "url": "/v1/images/generations", "body": {"model": "sd3", "prompt": "p"}}\n'
)
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
OTHER = "sk-other-" + "0" * 24


def form(**fields: object) -> aiohttp.FormData:
    """A form with a file, unless it is given as None."""
    result = aiohttp.FormData(default_to_multipart=True)
    for name, value in {"purpose": "batch", "file": LINE, **fields}.items():
        if isinstance(value, bytes):
            result.add_field(name, value, filename="in.jsonl")
        elif value is not None:
            result.add_field(name, str(value))
    return result


async def send(gateway: Running, **fields: object) -> Answer:
    return await gateway.ask("POST", "/v1/files", data=form(**fields))


async def test_a_file_goes_up_and_comes_down(gateway: Running, state: Path) -> None:
    file = await gateway.sdk.files.create(file=("shots.jsonl", LINE * 3), purpose="batch")
    assert (file.object, file.purpose, file.status, file.filename) == ("file", "batch", "processed", "shots.jsonl")
    assert file.bytes == len(LINE * 3)
    assert file.expires_at == file.created_at + 30 * 24 * 3600
    assert (await gateway.sdk.files.retrieve(file.id)).model_dump() == file.model_dump()
    assert (await gateway.sdk.files.content(file.id)).content == LINE * 3
    answer = await gateway.sdk.files.delete(file.id)
    assert (answer.id, answer.deleted, answer.object) == (file.id, True, "file")
    with pytest.raises(openai.NotFoundError):
        await gateway.sdk.files.content(file.id)
    assert list((state / "batches" / "files").iterdir()) == []


async def test_an_upload_may_name_the_charset_of_its_form(gateway: Running) -> None:
    assert (await send(gateway, _charset_="utf-8")).status == 200


async def test_it_expires_when_it_was_asked_to(gateway: Running) -> None:
    after: Any = {"anchor": "created_at", "seconds": 3600}
    file = await gateway.sdk.files.create(file=("a", LINE), purpose="batch", expires_after=after)
    assert file.expires_at == file.created_at + 3600


async def test_lists_have_cursors(gateway: Running) -> None:
    response = [(await gateway.sdk.files.create(file=(f"{i}", LINE), purpose="batch")).id for i in range(5)]
    listed = [file.id async for file in gateway.sdk.files.list(limit=2)]
    assert listed == response[::-1]
    page = await gateway.sdk.files.list(limit=2, after=response[3], order="desc")
    assert [file.id for file in page.data] == [response[2], response[1]]
    assert page.has_more
    up = await gateway.sdk.files.list(order="asc")
    assert [file.id for file in up.data] == response
    assert (await gateway.sdk.files.list(purpose="batch_output")).data == []


async def test_a_key_sees_its_own_files_alone(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, more="keys:\n" + key_entry("other", OTHER)))
    file = await gateway.sdk.files.create(file=("a", LINE), purpose="batch")
    async with sdk_client(gateway.url, OTHER) as other:
        assert (await other.files.list()).data == []
        for attempt in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                await attempt(file.id)
    assert (await gateway.sdk.files.content(file.id)).content == LINE


@pytest.fixture
async def gateway_with_small_files(start: Start, impasto_emulator: Emulator) -> Running:
    return await start(config(impasto_emulator.url, more="batches:\n  max_file_bytes: 1024\n"))


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"purpose": None}, (400, "missing_required_parameter", "purpose")),
        ({"purpose": "fine-tune"}, (400, "invalid_value", "purpose")),
        ({"file": None}, (400, "missing_required_parameter", "file")),
        ({"file": "text"}, (400, "invalid_value", "file")),
        ({"file": b""}, (400, "invalid_value", "file")),
        ({"path": "/etc/passwd"}, (400, "unknown_parameter", "path")),
        ({"expires_after[anchor]": "created_at"}, (400, "invalid_value", "expires_after")),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, (400, "invalid_value", "expires_after")),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "9"},
            (400, "invalid_value", "expires_after"),
        ),
        ({"file": LINE * 20}, (413, "request_too_large", "file")),
    ],
)
async def test_an_unknown_file_is_refused(
    gateway_with_small_files: Running, state: Path, fields: Mapping[str, object], answer: tuple[int, str, str]
) -> None:
    gateway = gateway_with_small_files
    refused = await send(gateway, **fields)
    assert (refused.status, refused.error["code"], refused.error["param"]) == answer
    assert (await gateway.ask("GET", "/v1/files")).json["data"] == []
    assert list(state.glob("batches/files/*")) == []


async def test_a_file_that_breaks_off_leaves_nothing(gateway: Running, state: Path) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + LINE
    answer = await gateway.ask(
        "POST", "/v1/files", data=body, headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert (answer.status, answer.error["code"]) == (400, "invalid_form")
    assert list(state.glob("batches/files/*")) == []


async def test_json_is_no_upload(gateway: Running) -> None:
    answer = await gateway.ask("POST", "/v1/files", json={"purpose": "batch"})
    assert (answer.status, answer.error["code"]) == (415, "unsupported_content_type")


async def test_the_size_of_stored_files_is_bounded(start: Start, impasto_emulator: Emulator) -> None:
    more = f"batches: {{max_files: 2, max_bytes: {1 << 20}}}\n"
    gateway = await start(config(impasto_emulator.url, more=more))
    answer = await send(gateway, file=bytes(1 << 20))
    assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
    assert "max_bytes" in (answer.error["message"] or "")
    assert [(await send(gateway)).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(
    "id",
    ["file-0", "file-" + "0" * 32, "..", "../../gateway.sqlite3", "%2e%2e%2fgateway.sqlite3", "file-%00", "x/content"],
)
async def test_ids_that_are_none(standing: Running, id: str) -> None:
    for method, path in (("GET", id), ("DELETE", id), ("GET", f"{id}/content")):
        answer = await standing.ask(method, f"/v1/files/{path}")
        assert answer.status == 404, (method, path)
        assert answer.error["message"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=file-1", "after"),
        ("owner=1", "owner"),
    ],
)
async def test_questions_that_are_none(standing: Running, query: str, param: str) -> None:
    answer = await standing.ask("GET", f"/v1/files?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_an_empty_value_in_a_query_is_not_given(standing: Running) -> None:
    plain = await standing.ask("GET", "/v1/files")
    empty = await standing.ask("GET", "/v1/files?after=&limit=&order=&purpose=")
    assert (empty.status, empty.json) == (plain.status, plain.json)
    assert (await standing.ask("GET", "/v1/batches?after=&limit=")).status == 200


async def test_a_files_name_is_no_path(gateway: Running) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../etc/pass\x1bwd"\r\n\r\n' + LINE
    body += b'\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await gateway.ask("POST", "/v1/files", data=body, headers=headers)
    assert answer.status == 200
    name = answer.json["filename"]
    assert "/" not in name
    assert name.isprintable()


async def test_without_batches_there_are_no_files(start: Start, impasto_emulator: Emulator) -> None:
    gateway = await start(config(impasto_emulator.url, more="batches: {enabled: false}\n"))
    for path in ("/v1/files", "/v1/batches", "/v1/batches/batch_1"):
        answer = await gateway.ask("GET", path)
        assert (answer.status, answer.error["code"]) == (404, "unknown_url")
