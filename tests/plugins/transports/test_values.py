"""Values of a request: nested JSON with files in it, forms with repeated parts, and what neither can send."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.message import MIMEPart
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest

import impasto
from impasto import (
    Account,
    Artifact,
    BrokenPlugin,
    File,
    FileRef,
    ImpastoError,
    InvalidRequest,
    JSONValue,
    Operation,
    Provider,
    Registry,
    Request,
    Result,
    WireRequest,
    WireResponse,
)
from impasto.fields import file
from impasto.registry import OPERATIONS
from impasto.testing import Answer, RecordedRequest, Recorder, recording
from impasto_plugins.transports import json_body
from tests.images import png

IMAGE = png(64, 64)
LARGE = png(8, 8) + random.Random(1).randbytes(20 * 2**20)


@attrs.frozen(kw_only=True)
class Params:
    image: File | None = file(role="image")
    mask: File | None = file(role="mask")


@attrs.frozen
class Dialect:
    """Sends these parts; a FileRef without a file gets the call's image."""

    parts: Mapping[str, Any]

    def transform_request(self, operation: Operation, request: Request, account: Account) -> WireRequest:
        files = {name: getattr(request.params, name) for name in operation.fields}
        parts = {name: each(files) if callable(each) else each for name, each in self.parts.items()}
        return WireRequest(**{"target": "/x", "encoding": "json", **parts})

    def classify_error(self, operation: Operation, response: WireResponse) -> ImpastoError | None:
        return None

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Result:
        return Result(artifacts=(Artifact(data=response.body, media_type="image/png"),))


@asynccontextmanager
async def sending(**parts: Any) -> AsyncIterator[tuple[impasto.Client, Recorder]]:
    provider = Provider(name="acme", base_url="https://api.acme.example")
    model = Operation(
        id="acme/x", title="X", params=Params, target="/x", provider=provider, dialect=Dialect(parts), max_bytes=10**8
    )
    registry = Registry()
    registry.add(OPERATIONS, "acme/x", model)
    async with (
        recording(lambda _: Answer(headers={"content-type": "image/png"}, body=IMAGE)) as recorder,
        impasto.Client(registry=registry, providers={"acme": {"api_base": recorder.url}}) as client,
    ):
        yield client, recorder


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_a_file_may_stand_anywhere_in_a_json_body(tmp_path: Path) -> None:
    def fields(files: Mapping[str, File]) -> JSONValue:
        image, mask = files["image"], files["mask"]
        return {
            "model": 'paint-1 "é"',
            "input": [{"role": "user", "content": [{"type": "image", "url": FileRef(image, data_url=True)}, "text"]}],
            "mask": {"data": FileRef(mask), "strength": 0.5, "on": True, "off": False, "none": None},
            "same": (FileRef(image), FileRef(image)),
            "mapping": MappingProxyType({"n": 1, "empty": {}, "list": []}),
        }

    path = tmp_path / "mask.png"
    path.write_bytes(png(96, 96))
    async with sending(fields=fields) as (client, recorder):
        await client.run("acme/x", image=IMAGE, mask=path)
    [post] = recorder.posts
    assert post.header("content-type") == "application/json"
    expected = {
        "model": 'paint-1 "é"',
        "input": [
            {"role": "user", "content": [{"type": "image", "url": f"data:image/png;base64,{b64(IMAGE)}"}, "text"]}
        ],
        "mask": {"data": b64(png(96, 96)), "strength": 0.5, "on": True, "off": False, "none": None},
        "same": [b64(IMAGE), b64(IMAGE)],
        "mapping": {"n": 1, "empty": {}, "list": []},
    }
    assert json.loads(post.body) == expected
    assert post.body == json.dumps(expected, ensure_ascii=False, separators=(",", ":")).encode()


async def test_a_large_file_is_encoded_in_pieces_and_never_in_the_loops_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[tuple[bool, int]] = []

    def encode(data: bytes) -> bytes:
        pieces.append((threading.current_thread() is threading.main_thread(), len(data)))
        return base64.b64encode(data)

    monkeypatch.setattr(json_body, "b64encode", encode)
    async with sending(fields=lambda files: {"images": [{"image": FileRef(files["image"])}]}) as (client, recorder):
        await client.run("acme/x", image=LARGE)
    assert json.loads(recorder.posts[0].body) == {"images": [{"image": b64(LARGE)}]}
    assert {in_loop for in_loop, _ in pieces} == {False}
    assert max(size for _, size in pieces) <= 2**20


async def test_a_nested_file_counts_in_the_limit_of_the_request() -> None:
    parts = {"fields": lambda files: {"a": [{"b": FileRef(files["image"])}]}, "max_bytes": 100}
    async with sending(**parts) as (client, recorder):
        with pytest.raises(
            InvalidRequest, match="image: the whole request may have 100 bytes and has .* smaller image"
        ):
            await client.run("acme/x", image=IMAGE)
    assert recorder.requests == []


def _parts(request: RecordedRequest) -> list[MIMEPart]:
    head = f"content-type: {request.header('content-type')}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    assert message.is_multipart()
    assert not message.defects
    return list(message.iter_parts())


async def test_a_form_may_have_several_files_of_one_name() -> None:
    first, second = png(8, 8), png(16, 16)

    def files(files: Mapping[str, File]) -> object:
        return [("image[]", files["image"]), ("image[]", files["mask"]), ("mask", files["image"])]

    fields = {"prompt": "a kite", "hd": True, "tile": False, "n": 2, "strength": 1e-7}
    async with sending(encoding="form", fields=fields, files=files) as (client, recorder):
        await client.run("acme/x", image=first, mask=second)
    parts = _parts(recorder.posts[0])
    sent = [
        (each.get_param("name", header="content-disposition"), each.get_filename(), each.get_payload(decode=True))
        for each in parts
    ]
    assert sent == [
        ("prompt", None, b"a kite"),
        ("hd", None, b"true"),
        ("tile", None, b"false"),
        ("n", None, b"2"),
        ("strength", None, b"0.0000001"),
        ("image[]", "image.png", first),
        ("image[]", "image.png", second),
        ("mask", "mask.png", first),
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"a": 1}, "a mapping"),
        (None, "null"),
        (FileRef(File.of(IMAGE)), "FileRef"),
        (b"bytes", "bytes"),
        ({"#f00"}, "set"),
    ],
)
async def test_a_form_sends_no_mapping_or_nothing(value: object, kind: str) -> None:
    async with sending(encoding="form", fields={"prompt": "a", "colors": value}) as (client, recorder):
        with pytest.raises(BrokenPlugin, match=f"the form field 'colors' of a plugin is {kind}; give text") as caught:
            await client.run("acme/x")
    assert (recorder.requests, caught.value.billed) == ([], "no")


async def test_a_list_repeats_its_name_in_a_form() -> None:
    fields = {"codes": ["A", "B"], "weights[]": (0.5, 2), "one": ["x"], "nothing": [], "flags": [True, False]}
    async with sending(encoding="form", fields=fields) as (client, recorder):
        await client.run("acme/x")
    parts = _parts(recorder.posts[0])
    sent = [(each.get_param("name", header="content-disposition"), each.get_payload(decode=True)) for each in parts]
    assert sent == [
        *[("codes", b"A"), ("codes", b"B"), ("weights[]", b"0.5"), ("weights[]", b"2"), ("one", b"x")],
        *[("flags", b"true"), ("flags", b"false")],
    ]


@pytest.mark.parametrize(
    ("value", "kind"), [({"hex": "#f00"}, "a mapping"), (["b"], "a list"), (None, "null"), (b"x", "bytes")]
)
async def test_a_list_in_a_form_holds_no_list_mapping_or_nothing(value: object, kind: str) -> None:
    async with sending(encoding="form", fields={"prompt": "a", "colors": ["a", value]}) as (client, recorder):
        with pytest.raises(
            BrokenPlugin, match=rf"the form field 'colors\[1\]' of a plugin is {kind}; give text"
        ) as caught:
            await client.run("acme/x")
    assert (recorder.requests, caught.value.billed) == ([], "no")


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, float("nan"), File.of(IMAGE), object(), [{"a": b"x"}]])
async def test_a_value_that_is_not_json_is_never_sent(value: object) -> None:
    async with sending(fields={"a": value}) as (client, recorder):
        with pytest.raises(BrokenPlugin, match="a plugin's fields are not JSON .*; give text, numbers") as caught:
            await client.run("acme/x")
    assert (recorder.requests, caught.value.billed) == ([], "no")


async def test_a_value_that_contains_itself_is_never_sent() -> None:
    endless: list[object] = []
    endless.append(endless)
    async with sending(fields={"a": endless}) as (client, recorder):
        with pytest.raises(BrokenPlugin, match="a plugin's fields are not JSON"):
            await client.run("acme/x")
    assert recorder.requests == []


@pytest.mark.parametrize("names", [("image", "image"), ("prompt",)])
async def test_a_json_body_has_each_name_once(names: tuple[str, ...]) -> None:
    def files(files: Mapping[str, File]) -> object:
        return [(name, files["image"]) for name in names]

    async with sending(fields={"prompt": "a"}, files=files) as (client, recorder):
        with pytest.raises(BrokenPlugin, match="can't have two values of one name; put a list of FileRef into fields"):
            await client.run("acme/x", image=IMAGE)
    assert recorder.requests == []
