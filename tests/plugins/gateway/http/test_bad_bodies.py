"""Bodies that are no call: broken, of another kind, or made to cost more than they weigh. None is let near a provider,
each is answered as quickly as any, and memory stays where it was."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import struct
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from functools import cache

import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.http import multipart
from tests.images import WRONG, animated, chunk, damaged, drawn, png
from tests.plugins.gateway.conftest import Answer, Running
from tests.plugins.gateway.raw import CALL, HEADERS, JSON, POST, Connection, Lag, chunks, send, until

from .test_multipart import field, form, upload

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
MIB = 1 << 20
CALLS = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=bound"}

NO_JSON = {
    "nothing": b"",
    "a brace": b"{",
    "something behind it": CALL + b"x",
    "two of them": CALL + CALL,
    "a byte order mark": b"\xef\xbb\xbf" + CALL,
    "UTF-16": CALL.decode().encode("utf-16"),
    "UTF-32": CALL.decode().encode("utf-32-le"),
    "a list": b"[" + CALL + b"]",
    "null": b"null",
    "text": b'"x"',
    "a number": b"1",
    "true": b"true",
    "NaN": b'{"model":"sd3","prompt":"p","cfg_scale":NaN}',
    "Infinity": b'{"model":"sd3","prompt":"p","cfg_scale":-Infinity}',
    "1e400": b'{"model":"sd3","prompt":"p","cfg_scale":1e400}',
    "5,000 digits": b'{"model":"sd3","prompt":"p","seed":' + b"9" * 5000 + b"}",
    "lists in lists": b'{"model":"sd3","prompt":' + b"[" * 40_000,
    "objects in objects": b'{"a":' * 40_000,
    "nested and closed": b'{"model":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "bytes that are no UTF-8": b'{"model":"sd3","prompt":"\xff"}',
    "half of a character": b'{"model":"sd3","prompt":"\xe2\x82"}',
    "an overlong NUL": b'{"model":"sd3","prompt":"\xc0\x80"}',
    "a name twice": b'{"model":"sd3","model":"core","prompt":"p"}',
    "a name twice, escaped": b'{"model":"sd3","prompt":"p","mod\\u0065l":"core"}',
    "a comment": b'{"model":"sd3",/* */"prompt":"p"}',
    "a comma too many": b'{"model":"sd3","prompt":"p",}',
    "single quotes": b"{'model':'sd3','prompt':'p'}",
    "a line in text": b'{"model":"sd3","prompt":"a\nb"}',
    "a form": b"model=sd3&prompt=p",
}


@pytest.mark.parametrize("name", NO_JSON)
async def test_an_invalid_json_object_is_refused(standing: Running, impasto_emulator: Emulator, name: str) -> None:
    answer = await standing.ask("POST", GENERATIONS, data=NO_JSON[name], headers=CALLS)
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")
    assert answer.error["type"] == "invalid_request_error"
    assert not impasto_emulator.requests


async def test_a_byte_order_mark_is_refused_by_name(standing: Running) -> None:
    answer = await standing.ask("POST", GENERATIONS, data=NO_JSON["a byte order mark"], headers=CALLS)
    assert answer.error["message"] == "the body begins with a byte order mark; send it without that mark"


async def test_half_of_a_pair_is_no_text(standing: Running, impasto_emulator: Emulator) -> None:
    body = b'{"model":"sd3","prompt":"\\ud800"}'
    answer = await standing.ask("POST", GENERATIONS, data=body, headers=CALLS)
    assert (answer.status, answer.error["param"]) == (400, "prompt")
    assert not impasto_emulator.requests


KINDS = (
    *("text/plain", "text/plain; charset=utf-8", "application/xml", "application/x-www-form-urlencoded", "x", ""),
    *("application/jsonp", "text/json", "application/json-patch+json", "multipart/mixed; boundary=bound"),
)


@pytest.mark.parametrize("path", [GENERATIONS, EDITS, "/v1/images/variations"])
@pytest.mark.parametrize("kind", KINDS)
async def test_another_kind_of_content(standing: Running, impasto_emulator: Emulator, kind: str, path: str) -> None:
    headers = {"content-type": kind, "origin": "http://evil.example"} if kind else {}
    answer = await standing.ask("POST", path, data=CALL, headers=headers, skip_auto_headers=["content-type"])
    assert (answer.status, answer.error["code"]) == (415, "unsupported_content_type")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert not impasto_emulator.requests


@pytest.mark.parametrize("key", [True, False], ids=["with a key", "without"])
async def test_another_sites_page(standing: Running, impasto_emulator: Emulator, key: bool) -> None:
    """A page may have a form sent as text to any address, and may point a name of its own at this one."""
    if not key:
        standing.session.headers.pop("authorization")
    headers = {"content-type": "text/plain", "origin": "http://evil.example", "host": "evil.example"}
    answer = await standing.ask("POST", GENERATIONS, data=CALL, headers=headers)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_content_type")
    headers["content-type"] = "application/json"
    answer = await standing.ask("POST", GENERATIONS, data=CALL, headers=headers)
    assert (answer.status, answer.error["code"]) == (421, "host_not_allowed")
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = await standing.ask("OPTIONS", GENERATIONS, headers=headers)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert not impasto_emulator.requests


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "gzip, gzip", "x", "identity, gzip"])
@pytest.mark.parametrize("body", [b"\x1f\x8bgarbage", gzip.compress(gzip.compress(CALL))], ids=["garbage", "twice"])
async def test_a_compressed_body(standing: Running, impasto_emulator: Emulator, coding: str, body: bytes) -> None:
    headers = {**CALLS, "content-encoding": coding}
    answer = await standing.ask("POST", GENERATIONS, data=body, headers=headers)
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")
    assert not impasto_emulator.requests


@pytest.mark.parametrize("coding", ["", "identity", "Identity , identity", ", ,"])
async def test_a_body_that_is_not_compressed_may_say_so(standing: Running, coding: str) -> None:
    headers = {**CALLS, "content-encoding": coding}
    answer = await standing.ask("POST", GENERATIONS, data=CALL, headers=headers)
    assert answer.status == 200, answer.body[:200]


def memory() -> int:
    return int(psutil.Process(os.getpid()).memory_info().rss)


BOMBS: dict[str, Callable[[], bytes]] = {
    "empty lists": lambda: b'{"model":"sd3","prompt":[' + b"[]," * 3_000_000 + b"0]}",
    "numbers": lambda: b'{"model":"sd3","prompt":[' + b"1," * 4_000_000 + b"1]}",
    "objects": lambda: b'{"model":"sd3","prompt":[' + b"{}," * 3_000_000 + b"0]}",
    "names": lambda: b"{" + b",".join(b'"%d":0' % i for i in range(600_000)) + b"}",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_json_that_would_be_a_hundred_times_larger(gateway: Running, name: str) -> None:
    await gateway.generate(prompt="")
    body = io.BytesIO(BOMBS[name]())
    before = memory()
    async with Lag() as lag:
        answer = await gateway.ask("POST", GENERATIONS, data=body, headers=CALLS)
    assert (answer.status, answer.error["code"]) == (400, "invalid_json")
    assert memory() - before < 100 * MIB  # its own bytes and their copies
    assert lag.longest < 1
    assert gateway.gateway._app.memory.used_bytes == 0


async def test_a_gibibyte_is_refused_before_it_comes(standing: Running, impasto_emulator: Emulator) -> None:
    before = memory()
    head = POST + HEADERS + JSON + b"Content-Length: 1073741824\r\n\r\n"
    async with Connection(standing.url) as connection:
        connection.writer.write(head)
        answer = await connection.rest()
    assert (answer.status, answer.error["code"], answer.closed) == (413, "request_too_large", True)
    assert memory() - before < 20 * MIB
    assert not impasto_emulator.requests


@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
async def test_chunks_without_a_length(standing: Running, impasto_emulator: Emulator, path: str) -> None:
    """They are counted as they come, and the rest is not waited for."""
    before, sent = memory(), 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            yield bytes(MIB)
            sent += MIB

    kind = FORM if path == EDITS else CALLS
    first = (
        b'--bound\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' if path == EDITS else b""
    )
    head = f"POST {path} HTTP/1.1\r\n".encode() + HEADERS + f"Content-Type: {kind['content-type']}\r\n".encode()
    async with Connection(standing.url) as connection:
        connection.writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(first)[:-5] if first else
                                head + b"Transfer-Encoding: chunked\r\n\r\n")  # fmt: skip
        reading = asyncio.create_task(connection.rest())
        async for piece in pieces():
            if reading.done() or connection.writer.transport.is_closing():
                break
            connection.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.sleep(0)
            try:
                await connection.writer.drain()
            except ConnectionError:
                break
        answer = await reading
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert memory() - before < 80 * MIB
    assert not impasto_emulator.requests


async def posted(gateway: Running, body: bytes) -> Answer:
    return await gateway.ask("POST", EDITS, data=body, headers=FORM)


GOOD = (field("model", "upscale"), field("prompt", "p"))


@pytest.mark.parametrize("name", ["900 fields of 1 MB", "15,000 fields", "one file without a length", "a long name"])
async def test_a_form_that_is_too_much(standing: Running, impasto_emulator: Emulator, name: str) -> None:
    big = b"x" * MIB
    match name:
        case "900 fields of 1 MB":
            parts = (field(f"f{i}", big.decode()) for i in range(900))
        case "15,000 fields":
            parts = (field(f"f{i}", "x") for i in range(15_000))
        case "a long name":
            parts = (field("f" * 9_000, "x") for _ in range(1))
        case _:
            parts = (upload("image", big * 12) for _ in range(1))

    async def pieces() -> AsyncIterator[bytes]:
        for part in parts:
            yield form(part, end=b"")
        yield b"--bound--\r\n"

    before = memory()
    answer = await standing.ask("POST", EDITS, data=pieces(), headers=FORM)
    assert answer.status in (400, 413)
    assert answer.error["code"] in ("request_too_large", "invalid_form")
    assert memory() - before < 60 * MIB
    assert not impasto_emulator.requests


BOUNDARIES = {
    "none": "multipart/form-data",
    "an empty one": "multipart/form-data; boundary=",
    "one of 71 bytes": f"multipart/form-data; boundary={'b' * 71}",
    "one of 8 KB": f"multipart/form-data; boundary={'b' * 8_000}",
    "one that is not ASCII": "multipart/form-data; boundary=bound\xe9",
    "two": "multipart/form-data; boundary=a; boundary=bound",
    "another": "multipart/form-data; boundary=another",
}


@pytest.mark.parametrize("name", BOUNDARIES)
async def test_a_boundary_that_is_none(standing: Running, impasto_emulator: Emulator, name: str) -> None:
    headers = {"content-type": BOUNDARIES[name]}
    body = form(*GOOD, upload("image", png(96, 96)))
    answer = await standing.ask("POST", EDITS, data=body, headers=headers)
    assert (answer.status, answer.error["code"]) == (400, "invalid_form")
    assert not impasto_emulator.requests


async def test_a_form_cut_anywhere_is_refused(standing: Running, impasto_emulator: Emulator) -> None:
    body = form(*GOOD, upload("image", b"x" * 40))
    for end in range(0, len(body) - 2, 7):
        answer = await posted(standing, body[:end])
        assert (answer.status, answer.error["code"]) == (400, "invalid_form"), end
    assert not impasto_emulator.requests
    assert multipart.MAX_HEAD_BYTES == 8192


def bomb(side: int, colours: int = 2) -> bytes:
    """A PNG that says it is so large, and whose pixels are zeros in few bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, colours, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(MIB))) + chunk(b"IEND", b"")
    )


def with_chunk(kind: bytes, data: bytes) -> bytes:
    whole = png(96, 96)
    return whole[:33] + chunk(kind, data) + whole[33:]


@cache
def zeros_200_mb() -> bytes:
    """200 MiB of zeros, compressed: after a full flush each MiB has the same bytes, so one is compressed for all."""
    packer = zlib.compressobj(9)
    first, other = (packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    adler = 200 * MIB % 65_521 << 16 | 1
    return first + 199 * other + packer.flush()[:-4] + struct.pack(">I", adler)


def with_text() -> bytes:
    return with_chunk(b"zTXt", b"Comment\0\0" + zeros_200_mb())


def with_profile() -> bytes:
    return with_chunk(b"iCCP", b"p\0\0" + zeros_200_mb())


def test_a_bomb_is_one() -> None:
    assert len(zeros_200_mb()) < MIB // 4
    assert zlib.decompress(zeros_200_mb()).count(0) == 200 * MIB


NO_PICTURES = {
    **WRONG,
    **damaged(),
    "nothing": b"",
    "63 pixels": png(63, 63),
    "16,385 pixels wide": png(16_385, 64),
    "4,095 pixels": png(63, 65),
    "14,000 pixels square": bomb(14_000),
    "30,000 pixels square, a header only": bomb(30_000)[:33],
    "a page that begins as a picture": b"\x89PNG\r\n\x1a\n<html><script>alert(1)</script></html>",
    "half of a header": png(96, 96)[:20],
}


@pytest.mark.parametrize("way", ["form", "JSON"])
@pytest.mark.parametrize("name", NO_PICTURES)
async def test_an_invalid_image_is_refused(standing: Running, impasto_emulator: Emulator, name: str, way: str) -> None:
    before, data = memory(), NO_PICTURES[name]
    if way == "form":
        answer = await posted(standing, form(*GOOD, upload("image", data, "a.png")))
    else:
        uri = "data:image/png;base64," + b64encode(data).decode()
        body = {"model": "upscale", "prompt": "p", "images": [{"image_url": uri}]}
        answer = await standing.ask("POST", EDITS, data=json.dumps(body), headers=CALLS)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "invalid_image", "image"), answer.error
    assert any(
        word in (answer.error["message"] or "") for word in ("PNG, JPEG or WebP", "pixels", "is empty", "damaged")
    )
    assert memory() - before < 40 * MIB
    assert not impasto_emulator.requests


ODD: dict[str, Callable[[], bytes]] = {
    "animated": lambda: animated("PNG"),
    "16 bits": lambda: drawn("PNG", "I;16"),
    "a palette": lambda: drawn("PNG", "P"),
    "CMYK": lambda: drawn("JPEG", "CMYK"),
    "turned": lambda: drawn("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "a text of 200 MB in 200 KB": with_text,
    "a profile of 200 MB in 200 KB": with_profile,
}


@pytest.mark.parametrize("name", ODD)
async def test_a_picture_that_is_odd_is_sent_as_it_came(
    standing: Running, impasto_emulator: Emulator, name: str
) -> None:
    """What a model makes of it is the provider's affair."""
    data = ODD[name]()
    before = memory()
    answer = await posted(standing, form(*GOOD, upload("image", data)))
    assert (answer.status, "200 MB" in name) in ((200, False), (400, True)), answer.body[:300]  # so says the emulator
    assert impasto_emulator.requests[0].files["image"].bytes == len(data)
    assert memory() - before < 60 * MIB


@pytest.mark.parametrize("name", ["text", "gif", "psd", "png without a header", "jpeg start alone"])
async def test_a_mask_that_is_none(standing: Running, impasto_emulator: Emulator, name: str) -> None:
    parts = (field("model", "inpaint"), field("prompt", "p"), upload("image", png(96, 96)), upload("mask", WRONG[name]))
    answer = await posted(standing, form(*parts))
    assert (answer.status, answer.error["param"]) == (400, "mask")
    assert not impasto_emulator.requests


@pytest.mark.parametrize("name", ["a bomb", "a text", "a profile"])
async def test_a_mask_that_would_be_large(standing: Running, impasto_emulator: Emulator, name: str) -> None:
    """A mask is decoded: its size is looked at before."""
    data = bomb(14_000, colours=6) if name == "a bomb" else with_text() if name == "a text" else with_profile()
    before = memory()
    parts = (field("model", "inpaint"), field("prompt", "p"), upload("image", png(96, 96)), upload("mask", data))
    answer = await posted(standing, form(*parts))
    assert answer.status in (200, 400)
    if name == "a bomb":
        assert (answer.status, answer.error["param"]) == (400, "mask")
        assert not impasto_emulator.requests
    assert memory() - before < 100 * MIB


async def test_a_mask_without_a_picture(standing: Running, impasto_emulator: Emulator) -> None:
    answer = await posted(standing, form(field("model", "inpaint"), field("prompt", "p"), upload("mask", png(96, 96))))
    assert (answer.status, answer.error["param"]) == (400, "image")
    answer = await standing.generate(mask="data:image/png;base64," + b64encode(png(96, 96)).decode())
    assert (answer.status, answer.error["param"]) == (400, "mask")
    assert not impasto_emulator.requests


async def test_the_gateway_is_as_it_was(standing: Running) -> None:
    """After all of these it holds nothing, and serves."""
    app = standing.gateway._app
    assert (await standing.generate()).status == 200
    assert (await send(standing.url, POST + HEADERS + JSON + b"Connection: close\r\n\r\n")).status == 400
    await until(lambda: not app.running_count)
    assert app.running_count == app.memory.used_bytes == 0
