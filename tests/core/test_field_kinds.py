"""Lists of files and texts, booleans, colors, patterns, steps and nested objects as fields."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import attrs
import pytest

from impasto import AspectRatios, File, InvalidRequest, Operation, Provider, WidthHeight, fields
from impasto.describe import describe
from impasto.ext import close_files, media_type_of, structure
from impasto.fields import fields_of

PNG = b"\x89PNG\r\n\x1a\n0000IHDR"


def too_dark(file: File) -> list[str]:
    return ["is too dark"] if file.read() == b"dark" else []


@attrs.frozen(kw_only=True)
class Style:
    """A nested object."""

    strength: float = fields.number(0, 1, required=True)
    reference: File | None = fields.file(lambda file: (), role=None)


@attrs.frozen(kw_only=True)
class Params:
    """Each kind."""

    text: str = fields.text(1, 20, required=True, role="prompt")
    negativeText: str | None = fields.text(pattern=r"[a-z ]+")  # noqa: N815 - as in a provider's own API
    images: tuple[File, ...] | None = fields.files(1, 3, inspect=too_dark, limits="PNG")
    colors: tuple[str, ...] | None = fields.texts(2, pattern="#[0-9a-f]{6}")
    tags: tuple[str, ...] | None = fields.texts()
    tile: bool | None = fields.boolean(default=False)
    width: int | None = fields.integer(256, 1440, step=32)
    background: str | None = fields.color()
    style: Style | None = fields.group(Style)


def refused(**params: object) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        structure(Params, {"text": "x", **params})
    return {problem.field: problem.message for problem in caught.value.problems}


def test_each_kind_takes_its_values() -> None:
    params = structure(
        Params,
        {
            "text": "a wolf",
            "negativeText": "a dog",
            "images": [PNG, ("b.png", b"b")],
            "colors": ["#ff8800"],
            "tags": ("a", "b"),
            "tile": False,
            "width": 288,
            "background": "#FF8800",
            "style": {"strength": 0.5, "reference": PNG},
        },
    )
    assert params.images is not None
    assert [file.read() for file in params.images] == [PNG, b"b"]
    assert (params.colors, params.tags, params.tile) == (("#ff8800",), ("a", "b"), False)
    assert (params.width, params.background) == (288, "#FF8800")
    assert params.style is not None
    assert params.style.reference is not None
    assert (params.style.strength, params.style.reference.read()) == (0.5, PNG)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("negativeText", "NO", "must match [a-z ]+, not 'NO'"),
        ("images", PNG, "must be a list of 1 to 3 files; each a file: PNG, not bytes; give a list"),
        ("images", [], "must be a list of 1 to 3 files; each a file: PNG, not 0"),
        ("images", [PNG] * 4, "must be a list of 1 to 3 files; each a file: PNG, not 4"),
        ("images", [PNG, b"", b"dark"], "file 2: is empty; file 3: is too dark"),
        ("colors", "#ff8800", "must be a list of 1 to 2 texts; each text of at least 1 character that matches "),
        ("colors", ["red"], "text 1: must match #[0-9a-f]{6}, not 'red'"),
        ("tags", [" "], "text 1: must not be blank"),
        ("tags", ["a", 5], "text 2: must be text, not a whole number"),
        ("tags", "a", "must be a list of at least 1 text, not text; give a list"),
        ("tile", "true", "must be true or false, not 'true'"),
        ("tile", 1, "must be true or false, not 1"),
        ("width", 300, "must be a whole number from 256 to 1440 in steps of 32, not 300"),
        ("background", "red", "must be a color as #rrggbb, such as #ff8800, not 'red'"),
        ("background", "#ff880", "must be a color as #rrggbb, such as #ff8800, not '#ff880'"),
        ("style", "soft", "must be an object with strength, reference, not 'soft'"),
    ],
)
def test_errors_say_what_is_wrong_and_what_is_allowed(name: str, value: object, message: str) -> None:
    assert refused(**{name: value})[name].startswith(message)


def test_errors_of_a_nested_object_have_its_fields_names() -> None:
    assert refused(style={"strength": 2, "refrence": PNG}) == {
        "style.strength": "must be a number from 0 to 1, not 2",
        "style.refrence": "unknown parameter 'refrence'; did you mean 'reference'?",
    }
    assert refused(style={"reference": PNG}) == {"style.strength": "required"}


def test_a_nested_object_may_be_an_instance_and_is_checked_all_the_same() -> None:
    params = structure(Params, {"text": "x", "style": Style(strength=1.0)})
    assert params.style == Style(strength=1.0)
    assert refused(style=Style(strength=7.0)) == {"style.strength": "must be a number from 0 to 1, not 7.0"}


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="needs /dev/fd")
def test_files_in_lists_and_groups_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    before = _open_descriptors()
    with path.open("rb") as one, path.open("rb") as two, path.open("rb") as three:
        own = _open_descriptors()
        images = [one, two]
        params = structure(Params, {"text": "x", "images": images, "style": {"strength": 1, "reference": three}})
        assert _open_descriptors() == own + 3
        close_files(params)
        assert _open_descriptors() == own
        for each in (one, two, three):
            each.seek(0)
        refused(images=[one, b"", two], style={"strength": 1, "reference": one})
        refused(tile=5, images=[one], style={"strength": 1, "reference": one})
        refused(style={"strength": 5, "reference": one})
        assert _open_descriptors() == own
    assert _open_descriptors() == before


def test_a_file_whose_check_fails_with_an_error_closes_those_before() -> None:
    closed: list[str] = []

    def broken(file: File) -> list[str]:
        if file.label == "b":
            raise RuntimeError("a plugin's fault")
        return []

    @attrs.frozen(kw_only=True)
    class Broken:
        images: tuple[File, ...] | None = fields.files(inspect=broken)

    files = [attrs.evolve(File.of(b"x"), label=label, closer=partial(closed.append, label)) for label in "ab"]
    files_by_label = dict(zip("ab", files, strict=True))
    field = fields_of(Broken)["images"]
    assert field.item is not None
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(File, "of", lambda label: files_by_label[label])
        field.check(["a", "b"])
    assert closed == ["b", "a"]


def operation(**more: object) -> Operation:
    provider = Provider(name="acme", base_url="https://api.acme.example", base_url_variable="ACME_BASE_URL")
    settings: dict[str, object] = {
        "id": "acme/paint",
        "title": "Paint",
        "params": Params,
        "target": "/v1/paint",
        "provider": provider,
        "dialect": None,
        **more,
    }
    return Operation(**settings)  # type: ignore[arg-type]


def test_the_whole_requests_limit_counts_files_in_lists_and_groups() -> None:
    paint = operation(max_bytes=60)
    with pytest.raises(InvalidRequest, match="at most 60 bytes, not 64 bytes of files"):
        paint.request("acme/paint", {"text": "x", "images": [PNG] * 3, "style": {"strength": 1, "reference": PNG}})
    assert paint.file_fields == ("images", "style")
    assert paint.roles == {"prompt": ("text",), "image": ("images",)}


def test_describe_names_the_fields_of_nested_objects() -> None:
    takes = {field.name: (field.type, field.takes) for field in describe("acme/paint", operation()).fields}
    assert takes["images"] == ("files", "a list of 1 to 3 files; each a file: PNG")
    assert takes["tile"] == ("boolean", "true or false")
    assert takes["style"] == ("group", "an object with strength, reference")
    assert takes["style.strength"] == ("number", "a number from 0 to 1")
    assert takes["style.reference"] == ("file", "a file")
    assert takes["width"] == ("integer", "a whole number from 256 to 1440 in steps of 32")
    assert takes["negativeText"] == ("text", "text that matches [a-z ]+")


def test_the_size_is_derived_from_fields_with_the_usual_names_unless_it_is_declared() -> None:
    @attrs.frozen(kw_only=True)
    class Both:
        width: int | None = fields.integer(256, 1440, step=32)
        height: int | None = fields.integer(256, 1440, step=32)

    @attrs.frozen(kw_only=True)
    class Ratio:
        aspect_ratio: str | None = fields.choice("1:1", "16:9")

    assert operation().size is None  # a width alone
    assert operation(params=Both).size == WidthHeight(minimum=256, maximum=1440, multiple=32)
    assert operation(params=Ratio).size == AspectRatios()
    assert operation(params=Ratio, size=None).size is None


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"GIF89a\x01\x00\x01\x00", "image/gif"),
        (b"<svg xmlns='http:", "image/svg+xml"),
        (b"\x00\x00\x00\x20ftypavif\x00\x00\x00\x00", "image/avif"),
        (b"\x00\x00\x00\x20ftypheic\x00\x00\x00\x00", None),
    ],
)
def test_the_first_bytes_show_a_media_type(head: bytes, media_type: str | None) -> None:
    assert media_type_of(head) == media_type


@pytest.mark.parametrize(
    ("choices", "value", "expected"),
    [
        (("webp", "jpg", "png"), "jpg", "jpg"),
        (("webp", "jpg", "png"), "jpeg", "jpg"),
        (("png", "jpeg"), "jpg", "jpeg"),
        (("PNG", "JPEG"), "jpg", "JPEG"),
        (("PNG", "JPEG"), "png", "PNG"),
        (("image/png", "image/jpeg"), "jpeg", "image/jpeg"),
        (("jpg", "jpeg"), "jpeg", "jpeg"),
    ],
)
def test_a_file_format_is_taken_in_any_spelling(choices: tuple[str, ...], value: str, expected: str) -> None:
    assert fields.Field(kind="choice", choices=choices).check(value) == expected


@pytest.mark.parametrize("value", ["gif", "PNG", "jp", "", "image/png", 5])
def test_a_format_that_is_not_listed_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be one of webp, jpg, png, not"):
        fields.Field(kind="choice", choices=("webp", "jpg", "png")).check(value)


@pytest.mark.parametrize(
    ("limits", "takes", "message"),
    [
        ((8, 8), "text of exactly 8 characters: hexadecimal digits", "must be hexadecimal digits, not 'stylecod'"),
        ((), "hexadecimal digits", "must be hexadecimal digits, not 'stylecod'"),
    ],
)
def test_words_stand_for_a_pattern(limits: tuple[int, ...], takes: str, message: str) -> None:
    pattern, words = "[0-9a-f]+", "hexadecimal digits"

    @attrs.frozen(kw_only=True)
    class Coded:
        code: str | None = fields.text(*limits, pattern=pattern, pattern_words=words)
        codes: tuple[str, ...] | None = fields.texts(4, pattern=pattern, pattern_words=words)

    code, codes = fields.fields_of(Coded).values()
    assert (code.describe_constraint(), codes.describe_constraint()) == (
        takes,
        "a list of 1 to 4 texts; each hexadecimal digits",
    )
    with pytest.raises(InvalidRequest) as caught:
        structure(Coded, {"code": "stylecod", "codes": ["0f", "stylecod"]})
    assert dict(caught.value.problems) == {"code": message, "codes": f"text 2: {message}"}
    described = describe("acme/coded", operation(params=Coded))
    assert "[0-9a-f]" not in str(described)
