"""Bodies at their bounds: the most bytes that a request may have, and files of several pieces. Without a socket."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import attrs
import pytest

from impasto import Call, File, InvalidRequest, Request, WireRequest
from impasto_plugins.transports.form import decimal_text, make_form, parameter_of
from impasto_plugins.transports.json_body import JSONBody
from impasto_plugins.transports.request_body import RequestBody
from tests.plugins.transports.test_form import _written

MIB = 1 << 20


def on_disk(data: bytes, *, size: int | None = None, step: int = 1 << 30) -> File:
    """A file whose reader gives at most so many bytes at a time."""

    class Reader(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size if size is not None and size >= 0 else step, step))

    class Source:
        def __init__(self) -> None:
            self._reader = Reader(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reader, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self._reader.close()

    def opener() -> BinaryIO:
        return Source()  # type: ignore[return-value]  # no BytesIO, whose content would be taken at once

    length = len(data) if size is None else size
    return File(label="f", size=length, media_type="image/png", opener=opener, on_disk=True)


def image(size: int) -> File:
    return File.of(b"\x89PNG\r\n\x1a\n".ljust(size, b"x"))


def size_of_form(**parts: Any) -> int:
    with ExitStack() as files:
        return make_form(WireRequest(target="/", **parts), files).size


@pytest.mark.parametrize(
    "parts",
    [{"fields": {"prompt": "x"}}, {"fields": {"prompt": "x"}, "files": [("mask", image(9)), ("image", image(99))]}],
    ids=["text", "files"],
)
def test_a_form_with_the_maximum_of_bytes_is_sent_and_one_more_is_refused(parts: dict[str, Any]) -> None:
    most = size_of_form(**parts)
    assert size_of_form(**parts, max_bytes=most) == most
    largest = "image" if "files" in parts else "prompt"
    with pytest.raises(InvalidRequest) as caught:
        size_of_form(**parts, max_bytes=most - 1)
    (problem,) = caught.value.problems
    assert problem.field == largest
    assert f"may have {most - 1:,} bytes and has {most:,}; give a smaller {largest}" in problem.message


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"fields": {"prompt": "é"}},
        {"files": [("image", image(100))]},
        {"fields": {"prompt": "x", "seed": 7}, "files": [("mask", image(10)), ("image", image(101))]},
        {"files": [("a", image(1)), ("b", image(2)), ("c", image(3))]},
    ],
)
def test_json_with_the_maximum_of_bytes_is_sent_and_one_more_is_refused(parts: dict[str, Any]) -> None:
    body = JSONBody.of(WireRequest(target="/", **parts)).encode()
    files = {name: base64.b64encode(file.read()).decode() for name, file in parts.get("files", ())}
    assert json.loads(body) == parts.get("fields", {}) | files
    assert JSONBody.of(WireRequest(target="/", **parts, max_bytes=len(body))).encode() == body
    with pytest.raises(InvalidRequest, match=f"may have {len(body) - 1:,} bytes and has {len(body):,}"):
        JSONBody.of(WireRequest(target="/", **parts, max_bytes=len(body) - 1))


@pytest.mark.parametrize("size", [3 * 2**18 - 1, 3 * 2**18, 3 * 2**18 + 1, 6 * 2**18 + 2])
@pytest.mark.parametrize("step", [1 << 30, 100_001])
def test_a_file_of_several_pieces_is_one_text_of_base64(size: int, step: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    body = JSONBody.of(WireRequest(target="/", files=[("image", on_disk(data[:size], step=step))])).encode()
    assert json.loads(body)["image"] == base64.b64encode(data[:size]).decode()


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB + 5])
@pytest.mark.parametrize("make", [File.of, on_disk, lambda data: on_disk(data, step=300_000)])
async def test_a_file_is_sent_in_pieces_of_at_most_a_mebibyte(size: int, make: Any) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    _, *pieces, _ = await _written(WireRequest(target="/", files=[("image", make(data[:size]))]))
    assert b"".join(pieces) == data[:size]
    assert max(map(len, pieces), default=0) <= MIB
    assert all(pieces)


async def test_a_file_that_became_longer_is_sent_with_its_announced_length() -> None:
    _, *pieces, _ = await _written(WireRequest(target="/", files=[("image", on_disk(bytes(2 * MIB), size=MIB + 1))]))
    assert list(map(len, pieces)) == [MIB, 1]


async def _send_nowhere(data: bytes | memoryview) -> None: ...


async def test_a_file_that_became_shorter_ends_the_request_at_once() -> None:
    with ExitStack() as files:
        form = make_form(WireRequest(target="/", files=[("image", on_disk(bytes(5), size=6))]), files)
        with pytest.raises(OSError, match="the file became shorter while it was sent"):
            await asyncio.wait_for(form.write(_send_nowhere), 60)


async def test_a_body_in_memory_is_sent_in_pieces_of_a_mebibyte() -> None:
    writes: list[int] = []

    async def send(data: bytes | memoryview) -> None:
        writes.append(len(data))

    body = RequestBody("application/json", [bytearray(2 * MIB + 1)])
    await body.write(send)
    assert writes == [MIB, MIB, 1]
    assert body.size == 2 * MIB + 1


@attrs.frozen
class Params:
    prompt: str
    images: tuple[File, ...]
    mask: File


def test_a_file_is_named_as_the_caller_gave_it() -> None:
    params = Params("a kite", (image(9), image(9)), image(9))
    request = Request(operation="acme/x", params=params, target="/")
    wire = WireRequest(target="/").with_call(cast("Call", SimpleNamespace(request=request)))
    for file, name in ((params.images[1], "images"), (params.mask, "mask"), (image(9), "init[]")):
        assert parameter_of(wire, file, "init[]") == name


@pytest.mark.parametrize("make", [lambda wire: JSONBody.of(wire).encode(), lambda wire: make_form(wire, ExitStack())])
@pytest.mark.parametrize(
    ("error", "message"),
    [(FileNotFoundError(2, "No such file or directory"), "No such file"), (ValueError("'f' changed"), "'f' changed")],
)
def test_a_file_that_can_not_be_read_again_is_named(make: Any, error: Exception, message: str) -> None:
    def opener() -> BinaryIO:
        raise error

    file = File(label="f", size=1, media_type="image/png", opener=opener)
    with pytest.raises(InvalidRequest, match=f"image: can't be read again: {message}"):
        make(WireRequest(target="/", files=[("image", file)]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("e", "e"),
        (7, "7"),
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (1.5e22, "15000000000000000000000"),
        (1e16, "10000000000000000"),
    ],
)
def test_numbers_are_written_without_an_exponent(value: str | float, text: str) -> None:
    assert decimal_text(value) == text


def test_a_file_is_named_by_its_field_and_its_type() -> None:
    heads = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "audio/mpeg": "mp3", "audio/wav": "wav"}
    for media_type, ending in {**heads, "application/octet-stream": "bin"}.items():
        file = File(label="secret/path.txt", size=1, media_type=media_type, opener=lambda: io.BytesIO(b"x"))
        with ExitStack() as files:
            form = make_form(WireRequest(target="/", files=[("image", file)]), files)
        head = bytes(form.pieces[0])  # type: ignore[arg-type]  # the text before the file
        assert f'name="image"; filename="image.{ending}"'.encode() in head
        assert f"Content-Type: {media_type}\r\n".encode() in head
