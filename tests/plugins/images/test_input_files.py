"""An image or a mask of anybody's model is complete before it is sent, unless the model's author says otherwise."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from PIL import Image

from impasto import File, InvalidRequest, fields
from impasto.ext import close_files, structure
from impasto_plugins.images.limits import Limits
from tests.images import png

PDF = b"%PDF-1.7\n1 0 obj"
GIF = b"GIF89a\x01\x00\x01\x00"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'


def drawn(format: str) -> bytes:
    target = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(target, format)
    return target.getvalue()


def no_problem(file: File) -> Iterator[str]:
    yield from ()


@attrs.frozen(kw_only=True)
class Nested:
    reference: File | None = fields.file()


@attrs.frozen(kw_only=True)
class Params:
    image: File | None = fields.file()
    images: tuple[File, ...] | None = fields.files(maximum=3)
    mask: File | None = fields.file(role="mask")
    style: Nested | None = fields.group(Nested)
    document: File | None = fields.file(role=None)
    sound: File | None = fields.file(role="audio")
    anything: File | None = fields.file(no_problem)
    moving: File | None = fields.file(Limits(max_bytes=1_000, media_types=("image/gif",)))
    drawing: File | None = fields.file(Limits(media_types=("image/svg+xml", "application/pdf")))
    small: File | None = fields.file(Limits(max_side=32))


def problems(**params: Any) -> dict[str, str]:
    try:
        close_files(structure(Params, params))
    except InvalidRequest as error:
        return dict(error.problems)
    return {}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_complete_image_is_taken_and_a_cut_one_refused(format: str) -> None:
    whole = drawn(format)
    cut = whole[: len(whole) // 2]
    assert problems(image=whole, images=[whole, whole], mask=whole, style={"reference": whole}) == {}
    name = {"WEBP": "WebP"}.get(format, format)
    what = f"'bytes' is an incomplete or damaged {name} file; give the whole file"
    assert problems(image=cut, images=[whole, cut], mask=("mask.png", cut), style={"reference": cut}) == {
        "image": what,
        "images": f"file 2: {what}",
        "mask": what.replace("bytes", "mask.png"),
        "style.reference": what,
    }


@pytest.mark.parametrize("data", [PDF, GIF, SVG, b"text", b"\x89PNG"])
def test_a_file_that_is_not_an_image_is_refused_by_its_content(data: bytes) -> None:
    what = "'cat.png' is not a PNG, JPEG or WebP image; give PNG, JPEG or WebP"
    file = ("cat.png", data)
    assert problems(image=file, mask=file, document=file) == {"image": what, "mask": what, "document": what}


def test_a_sound_and_a_file_with_a_check_of_the_author_are_the_authors() -> None:
    cut = png(8, 8)[:40]
    for data in (PDF, GIF, SVG, cut):
        assert problems(sound=data, anything=data) == {}
    assert problems(small=png(64, 64)) == {"small": "is 64x64 pixels: each side must be at most 32"}


def test_an_author_declares_further_media_types() -> None:
    assert problems(moving=GIF, drawing=SVG) == {}
    assert problems(moving=png(8, 8), drawing=PDF) == {}
    assert problems(drawing=b"<svg/>") == {}
    assert problems(moving=GIF + bytes(1_000)) == {"moving": "has 1,010 bytes; a request may have at most 1,000"}
    assert problems(moving=("a.gif", PDF)) == {"moving": "'a.gif' is of another type; give PNG, JPEG, WebP, image/gif"}
    assert problems(drawing=("a.svg", GIF)) == {
        "drawing": "'a.svg' is of another type; give PNG, JPEG, WebP, image/svg+xml, application/pdf"
    }
    assert problems(drawing=png(8, 8)[:40]) == {
        "drawing": "'bytes' is an incomplete or damaged PNG file; give the whole file"
    }


def test_a_field_says_what_it_takes() -> None:
    takes = {name: field.describe_constraint() for name, field in fields.fields_of(Params).items()}
    assert takes["image"] == takes["mask"] == takes["document"] == "a file: PNG, JPEG or WebP"
    assert takes["images"] == "a list of 1 to 3 files; each a file: PNG, JPEG or WebP"
    assert takes["moving"] == "a file: PNG, JPEG, WebP, image/gif"
    assert takes["small"] == "a file: PNG, JPEG or WebP, sides 1..32"
    assert takes["sound"] == takes["anything"] == "a file"
