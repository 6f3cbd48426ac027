"""Forms: the same whichever way the network cuts them, and anything damaged refused before anything is sent."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import requests
import urllib3
from hypothesis import given, settings, strategies as st

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.http.multipart import FormReader, InvalidForm, PartHead, parse_boundary
from tests.images import drawn
from tests.plugins.gateway.conftest import MASTER, Running

PICTURE = drawn("PNG", size=(128, 128))
BOUNDARY = b"bound"


def form(*parts: tuple[str, bytes], end: bytes = b"--bound--\r\n") -> bytes:
    """A form of parts, each of a head's lines and a body."""
    return (
        b"".join(
            b"--bound\r\n" + head.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body + b"\r\n"
            for head, body in parts
        )
        + end
    )


def field(name: str, value: str) -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"', value.encode()


def upload(name: str, data: bytes, filename: str = "a.png") -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"; filename="{filename}"', data


async def read(data: bytes, cuts: list[int]) -> list[tuple[PartHead, bytes]]:
    async def chunks() -> AsyncIterator[bytes]:
        edges = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
        for start, end in itertools.pairwise(edges):
            yield data[start:end]

    parts = FormReader(chunks(), BOUNDARY)
    found = []
    while (head := await parts.read_head()) is not None:
        found.append((head, b"".join([piece async for piece in parts.read_body()])))
    return found


BODIES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\r\n", b"\r\n--boun", b"--bound", b"\r\n--", b"\r", b"a\r\n\r\n--b"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(BODIES, max_size=4), st.lists(st.integers(0, 5000), max_size=12))
async def test_a_form_is_read_alike_however_it_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    bodies = [body for body in bodies if b"\r\n--bound" not in b"\r\n" + body]
    data = form(*(upload(f"f{i}", body) for i, body in enumerate(bodies)))
    expected = [(PartHead(f"f{i}", "a.png"), body) for i, body in enumerate(bodies)]
    assert await read(data, cuts) == expected
    assert await read(data, list(range(len(data)))) == expected


async def test_names_as_clients_write_them() -> None:
    heads = [
        'Content-Disposition: form-data; name="image[]"; filename="a \\"b\\".png"\r\nContent-Type: image/png',
        "content-disposition:form-data;name=n",
        'Content-Disposition: form-data; name="x"; filename="höhe.png"',
        'Content-Disposition: form-data; name="x"; filename=""',
    ]
    found = await read(form(*((head, b"x") for head in heads)), [])
    assert [head for head, _ in found] == [
        PartHead("image[]", 'a "b".png'),
        PartHead("n", None),
        PartHead("x", "höhe.png"),
        PartHead("x", ""),
    ]


NAMES = {
    'form-data; name="f"; filename="a %22b%22.png"': 'a "b".png',  # Chrome, Firefox and Safari (the HTML standard)
    'form-data; name="f"; filename="C:\\x\\a.png"': "C:\\x\\a.png",  # a backslash escapes quotes and itself alone
    'form-data; name="f"; filename="a\\\\b.png"': "a\\b.png",
    'form-data; filename="a;name=x.png"; name="f"': "a;name=x.png",
    "form-data; name=f; filename=a.png": "a.png",
    'FORM-DATA ; NAME = "f" ; FILENAME = "a.png" ; size=3': "a.png",
    'form-data; name="f"; filename="x.png"; filename*=UTF-8\'\'h%C3%B6he.png': "höhe.png",  # httpx, .NET, Go's clients
    "form-data; name=f; filename*=utf-8'de'%E2%82%AC.png": "€.png",
    'form-data; name="f"; filename="文档.png"': "文档.png",
    'form-data; name="f";\r\n filename="a.png"': "a.png",  # folded as MIME's headers may be
    'form-data; name="f";\r\n\tfilename="a.png"': "a.png",
    'form-data; name="f"; filename=""\r\nContent-Type: application/octet-stream': "",
    'form-data; name="f"\r\nContent-Type: image/png': "",  # RFC 7578, 4.2: a file need not have a name
    'form-data; name="f"; filename="a.png"\r\nContent-Type:\r\nX-Any:\r\nContent-Length: 1': "a.png",
    'form-data; name="f"; filename="a"\r\ncontent-transfer-encoding: Binary\r\nMIME-Version: 1.0': "a",
    'form-data; name="f"; filename="\udce9.png"': "\ufffd.png",  # Latin-1, as old systems write it
    'form-data; name="f"': None,
    'form-data; name="f"\r\nContent-Type: text/plain; charset="UTF-8"\r\nContent-Transfer-Encoding: 8bit': None,
    'form-data; name="f"\r\nContent-Type: application/json': None,
}


@pytest.mark.parametrize("header", NAMES)
async def test_a_parts_headers_as_the_standards_and_clients_have_them(header: str) -> None:
    (found,) = await read(form(("Content-Disposition: " + header, b"x")), [])
    assert found == (PartHead("f", NAMES[header]), b"x")


PART = b'\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--bound'
FRAMES = {
    "plain": b"--bound" + PART + b"--\r\n",
    "no line end behind it": b"--bound" + PART + b"--",
    "a preamble": b"This is a multi-part message in MIME format.\r\n--bound" + PART + b"--\r\n",
    "a long preamble": b"-" * 100_000 + b"\r\n--bound" + PART + b"--\r\n",
    "a preamble that looks like the boundary": b"x--bound\r\n--boun\r\n--bound" + PART + b"--\r\n",
    "an empty line before": b"\r\n--bound" + PART + b"--\r\n",
    "white space behind a boundary": b"--bound \t" + PART + b"--\r\n",
    "white space behind the last boundary": b"--bound" + PART + b"-- \t\r\n",
    "an epilogue": b"--bound" + PART + b"--\r\nepilogue\r\n--bound\r\n\r\nmore\r\n--bound--\r\n",
}


@pytest.mark.parametrize("name", FRAMES)
async def test_bytes_around_parts_pass(name: str) -> None:
    data = FRAMES[name]
    assert await read(data, []) == [(PartHead("a", None), b"b")]
    assert await read(data[-300:], list(range(300))) == [(PartHead("a", None), b"b")]


async def test_text_in_the_charset_that_its_part_names(standing: Running, impasto_emulator: Emulator) -> None:
    """Apache's HttpClient for Java sends text as ISO-8859-1 unless it is asked for something else."""
    head = (
        field("prompt", "")[0] + "\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit"
    )
    parts = (field("model", "upscale"), (head, "Höhe".encode("latin-1")), upload("image", PICTURE))
    assert await ask(standing, form(*parts)) == (200, None, None)
    assert impasto_emulator.requests[0].fields["prompt"] == "Höhe"


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("UTF-8", "Höhe €"),
        ("utf-8", "€"),
        ("", "€"),
        ("iso-8859-1", "Höhe"),
        ("Windows-1252", "Höhe €"),
        ("us-ascii", "x"),
    ],
)
async def test_text_in_the_charset_that_the_form_names(
    standing: Running, impasto_emulator: Emulator, charset: str, text: str
) -> None:
    """RFC 7578, 4.6. Browsers send this field for ``<input type=hidden name=_charset_>``."""
    prompt = field("prompt", "")[0], text.encode(charset or "utf-8")
    parts = (field("_charset_", charset), field("model", "upscale"), prompt, upload("image", PICTURE))
    assert await ask(standing, form(*parts)) == (200, None, None)
    assert impasto_emulator.requests[0].fields["prompt"] == text


@pytest.mark.parametrize("names", [["utf-16"], ["x" * 300_000], ["utf-8", "utf-8"]], ids=["unknown", "long", "twice"])
async def test_a_charset_that_a_form_can_not_have_is_refused(
    standing: Running, impasto_emulator: Emulator, names: list[str]
) -> None:
    parts = [field("_charset_", name) for name in names]
    answer = await ask(standing, form(*parts, *GOOD))
    assert answer == (400, "invalid_form", None)
    assert not impasto_emulator.requests


async def test_a_charset_behind_the_text_that_it_is_for_is_refused_unless_it_is_the_usual_one(
    standing: Running,
) -> None:
    assert await ask(standing, form(*GOOD, field("_charset_", "utf-8"))) == (200, None, None)
    assert await ask(standing, form(*GOOD, field("_charset_", "iso-8859-1"))) == (400, "invalid_form", None)


SDK_HEADERS = {"authorization": f"Bearer {MASTER}"}
FIELDS = {"model": "upscale", "prompt": 'Höhe, "5" €'}


@pytest.mark.parametrize("client", ["requests", "urllib3", "httpx", "curl", "fetch"])
async def test_forms_of_real_clients(
    standing: Running, impasto_emulator: Emulator, client: str, tmp_path: Path
) -> None:
    """Libraries that nobody here wrote, with a name that each escapes in its own way."""
    url, name, fields = f"{standing.url}/v1/images/edits", 'hö"he.png', FIELDS
    path = tmp_path / name
    path.write_bytes(PICTURE)
    match client:
        case "requests":
            files = {"image": (name, PICTURE, "image/png")}
            call = partial(requests.post, url, data=fields, files=files, headers=SDK_HEADERS, timeout=60)
            status = (await asyncio.to_thread(call)).status_code
        case "urllib3":
            whole: dict[str, str | tuple[str, bytes]] = {**fields, "image": (name, PICTURE)}
            status = (
                await asyncio.to_thread(partial(urllib3.request, "POST", url, fields=whole, headers=SDK_HEADERS))
            ).status
        case "httpx":
            httpx = importlib.import_module("httpx2" if importlib.util.find_spec("httpx") is None else "httpx")
            async with httpx.AsyncClient() as session:
                images = {"image": (name, PICTURE)}
                status = (await session.post(url, headers=SDK_HEADERS, data=fields, files=images)).status_code
        case "curl":
            words = ["-sS", "-o", str(tmp_path / "out"), "-w", "%{http_code}", "-H", f"Authorization: Bearer {MASTER}"]
            for key, value in fields.items():
                words += ["--form-string", f"{key}={value}"]
            quoted = str(path).replace('"', '\\"')
            status = int(await run("curl", *words, "-H", "Expect: 100-continue", "-F", f'image=@"{quoted}"', url))
        case _:
            script = """
                const [url, path, key, fields] = process.argv.slice(1);
                const form = new FormData();
                for (const [name, value] of Object.entries(JSON.parse(fields))) form.set(name, value);
                const image = require("fs").readFileSync(path);
                form.set("image", new Blob([image], {type: "image/png"}), require("path").basename(path));
                const headers = {authorization: `Bearer ${key}`};
                fetch(url, {method: "POST", body: form, headers}).then((answer) => console.log(answer.status));
            """
            status = int(await run("node", "-e", script, url, str(path), MASTER, json.dumps(fields)))
    assert status == 200
    (request,) = impasto_emulator.requests
    assert request.fields["prompt"] == fields["prompt"]
    assert request.files["image"].bytes == len(PICTURE)


async def run(program: str, *words: str) -> bytes:
    """Return what a program prints; skips the test if it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    process = await asyncio.create_subprocess_exec(program, *words, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        form(field("a", "b"), end=b""),
        form(field("a", "b"), end=b"--bound"),
        form(field("a", "b"), end=b"--boundless\r\n"),
        form(field("a", "b"))[:-20],
        form(("X: y", b"z")),
        form(('Content-Disposition: attachment; name="a"', b"z")),
        form(("Content-Disposition: form-data", b"z")),
        form((field("a", "")[0] + "\r\nContent-Type: multipart/mixed; boundary=y", b"z")),
        form((field("a", "")[0] + "\r\nContent-Transfer-Encoding: base64", b"z")),
        form((field("a", "")[0] + "\r\n" + field("b", "")[0], b"z")),
        form((" folded: x\r\n" + field("a", "")[0], b"z")),
        form((field("a", "")[0] + "; name=b", b"z")),
        form((field("a", "")[0] + "\r\nContent-Type: text/plain; charset=utf-16", b"z")),
        form(field("a", "b")).replace(b"--bound\r\n", b"--bound x\r\n", 1),
        form(field("a", "b")).replace(b"\r\n", b"\n"),
        form(("X: " + "y" * 9000, b"z")),
        form(("no colon", b"z")),
    ],
    ids=range(18),
)
async def test_an_invalid_form_is_refused(data: bytes) -> None:
    """Some of it the standards allow: a form in a form and coded parts are deprecated (RFC 7578, 4.3 and 4.7), and
    nobody sends them; a header or a parameter that was given twice is read differently by different readers."""
    with pytest.raises(InvalidForm):
        await read(data, [])


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 100_000}",
     "multipart/form-data; boundary=a\tb", 'multipart/form-data; boundary="a b "', "multipart/form-data; boundary=é"],
    ids=range(6),
)  # fmt: skip
async def test_an_invalid_boundary_is_refused(kind: str) -> None:
    with pytest.raises(InvalidForm):
        parse_boundary(kind)
    assert parse_boundary('multipart/form-data; charset=utf-8; boundary="a b"; x=y') == b"a b"


EVERY = "0aZ'()+_,-./:=?"


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ("multipart/form-data;boundary=b", "b"),
        ("Multipart/Form-Data; BOUNDARY=bB ; charset=utf-8;", "bB"),
        (f'multipart/form-data; boundary="{EVERY} x"', f"{EVERY} x"),
        (f"multipart/form-data; boundary={EVERY}", EVERY),  # many senders quote none of these
        (f"multipart/form-data; boundary={'b' * 70}", "b" * 70),
        ('multipart/form-data; note="; boundary=x"; boundary=b', "b"),
        ('multipart/form-data; boundary="a\\+\\b"', "a+b"),  # RFC 9110, 5.6.4
        ("multipart/form-data; x-boundary=x; boundary=b", "b"),
        (
            "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            "----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
    ],
)
def test_a_boundary_as_clients_write_it(kind: str, boundary: str) -> None:
    assert parse_boundary(kind) == boundary.encode()


async def ask(gateway: Running, data: bytes) -> tuple[int, str | None, str | None]:
    headers = {"content-type": "multipart/form-data; boundary=bound"}
    answer = await gateway.ask("POST", "/v1/images/edits", data=data, headers=headers)
    return (
        (answer.status, None, None)
        if answer.status == 200
        else (
            answer.status,
            answer.error["code"],
            answer.error["param"],
        )
    )


GOOD = (field("model", "upscale"), field("prompt", "p"), upload("image", PICTURE, "upload"))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (GOOD, (200, None, None)),
        (tuple(reversed(GOOD)), (200, None, None)),
        ((*GOOD[:2], upload("images", PICTURE)), (200, None, None)),
        ((*GOOD[:2], upload("image[]", PICTURE)), (200, None, None)),
        ((*GOOD, upload("image", PICTURE)), (400, "invalid_image", "image")),
        (GOOD[:2], (400, "missing_required_parameter", "image")),
        ((*GOOD[:2], upload("image", b"")), (400, "invalid_image", "image")),
        ((*GOOD[:2], upload("image", b"<svg/>", "a.png")), (400, "invalid_image", "image")),
        ((*GOOD[:2], upload("image", b"GIF89a" + bytes(99))), (400, "invalid_image", "image")),
        ((*GOOD[:2], upload("image", b"8BPS" + bytes(99), "a.png")), (400, "invalid_image", "image")),
        ((*GOOD[:2], upload("image", PICTURE[:-12])), (400, "invalid_image", "image")),
        ((*GOOD[:2], field("image", "/etc/passwd")), (400, "invalid_image", "image")),
        ((*GOOD, field("seed", "1.5")), (400, "invalid_value", "seed")),
        ((*GOOD, field("seed", "0x10")), (400, "invalid_value", "seed")),
        ((*GOOD, field("seed", " 1")), (400, "invalid_value", "seed")),
        ((*GOOD, field("seed", "٣")), (400, "invalid_value", "seed")),
        ((*GOOD, field("creativity", "1e-1")), (400, "invalid_value", "creativity")),
        ((*GOOD, field("creativity", "NaN")), (400, "invalid_value", "creativity")),
        ((*GOOD, field("n", "two")), (400, "invalid_value", "n")),
        ((*GOOD, field("stream", "yes")), (400, "invalid_value", "stream")),
        ((*GOOD, field("prompt", "again")), (400, "invalid_value", "prompt")),
        ((*GOOD, field("prompt", "p")), (400, "invalid_value", "prompt")),
        ((*GOOD, field("opts[a][]", "1")), (400, "unknown_parameter", "opts")),
        ((*GOOD, field("api_base", "http://127.0.0.1:1")), (400, "unknown_parameter", "api_base")),
        ((*GOOD, upload("seed", b"1")), (400, "invalid_value", "seed")),
        ((*GOOD, upload("mask", PICTURE)), (400, "invalid_image", "mask")),
        ((*GOOD, (field("user", "")[0], b"\xff")), (400, "invalid_form", "user")),
        ((*GOOD, field("user", "x" * 300_000)), (413, "request_too_large", "user")),
        ((*GOOD, *(field(f"f{i}", "") for i in range(15_000))), (413, "request_too_large", None)),
    ],
    ids=range(29),
)
async def test_a_form_at_the_gateway(
    gateway: Running,
    impasto_emulator: Emulator,
    parts: tuple[tuple[str, bytes], ...],
    expected: tuple[int, str | None, str | None],
) -> None:
    assert await ask(gateway, form(*parts)) == expected
    assert len(impasto_emulator.requests) == (1 if expected[0] == 200 else 0)
