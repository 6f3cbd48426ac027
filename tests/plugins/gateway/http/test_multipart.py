"""Forms: the same whichever way the network cuts them, and anything damaged refused before anything is sent."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings, strategies as st

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.http.multipart import Head, NotAForm, Parts, boundary_of
from tests.pictures import drawn
from tests.plugins.gateway.conftest import Running

PICTURE = drawn("PNG", size=(128, 128))
BOUNDARY = b"bound"


def form(*parts: tuple[str, bytes], end: bytes = b"--bound--\r\n") -> bytes:
    """A form of parts, each of a head's lines and a body."""
    return b"".join(b"--bound\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for head, body in parts) + end


def field(name: str, value: str) -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"', value.encode()


def upload(name: str, data: bytes, filename: str = "a.png") -> tuple[str, bytes]:
    return f'Content-Disposition: form-data; name="{name}"; filename="{filename}"', data


async def read(data: bytes, cuts: list[int]) -> list[tuple[Head, bytes]]:
    async def chunks() -> AsyncIterator[bytes]:
        edges = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
        for start, end in itertools.pairwise(edges):
            yield data[start:end]

    parts = Parts(chunks(), BOUNDARY)
    found = []
    while (head := await parts.head()) is not None:
        found.append((head, b"".join([piece async for piece in parts.body()])))
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
    expected = [(Head(f"f{i}", "a.png"), body) for i, body in enumerate(bodies)]
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
        Head("image[]", 'a "b".png'),
        Head("n", None),
        Head("x", "höhe.png"),
        Head("x", ""),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"preamble\r\n" + form(field("a", "b")),
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
        form((field("a", "")[0] + "\r\n folded: x", b"z")),
        form(("X: " + "y" * 9000, b"z")),
        form(("no colon", b"z")),
    ],
    ids=range(15),
)
async def test_what_is_no_form(data: bytes) -> None:
    with pytest.raises(NotAForm):
        await read(data, [])


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'x' * 100_000}",
     "multipart/form-data; boundary=a\tb", 'multipart/form-data; boundary="a b "', "multipart/form-data; boundary=é"],
    ids=range(6),
)  # fmt: skip
async def test_what_is_no_boundary(kind: str) -> None:
    with pytest.raises(NotAForm):
        boundary_of(kind)
    assert boundary_of('multipart/form-data; charset=utf-8; boundary="a b"; x=y') == b"a b"


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
