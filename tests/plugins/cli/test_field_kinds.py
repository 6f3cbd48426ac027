"""Lists, nested objects and booleans on the command line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import cast

import attrs
import pytest

from impasto import Dialect, File, InvalidRequest, Operation, Provider, fields
from impasto.ext import close_files, files_of
from impasto_plugins.cli.calls.values import request_of
from impasto_plugins.cli.demo.models import _smallest_params


def any_file(file: File) -> list[str]:
    return []


@attrs.frozen(kw_only=True)
class Style:
    strength: float | None = fields.number(0, 1)
    reference: File | None = fields.file(any_file, role=None)
    tags: tuple[str, ...] | None = fields.texts(2)


@attrs.frozen(kw_only=True)
class Subject:
    image: File | None = fields.file(inspect=any_file)
    kind: str | None = fields.choice("person", "product")


@attrs.frozen(kw_only=True)
class Params:
    text: str = fields.text(1, 100, required=True, role="prompt")
    images: tuple[File, ...] | None = fields.files(maximum=3, inspect=any_file)
    colors: tuple[str, ...] | None = fields.texts(3)
    tile: bool | None = fields.boolean()
    background: str | None = fields.color()
    style: Style | None = fields.group(Style)
    subjects: tuple[Subject, ...] | None = fields.groups(Subject, 3)
    canvas: Style | str | None = fields.group(Style, choices=("wide",))


PROVIDER = Provider(name="acme", base_url="https://api.acme.example", base_url_variable="ACME_BASE_URL")


def request(
    *words: str, images: tuple[str, ...] = (), out: str | None = None, media_types: tuple[str, ...] = ()
) -> Params:
    operation = Operation(
        id="acme/x",
        title="X",
        target="/x",
        provider=PROVIDER,
        params=Params,
        dialect=cast(Dialect, None),
        media_types=media_types,
    )
    by_role = {"prompt": ("a wolf",), "image": images}
    path = Path(out) if out is not None else None
    call = request_of(operation, "acme/x", by_role, assignments=words, out=path)
    return cast(Params, call.params)


def refused(*words: str, **more: object) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        request(*words, **more)  # type: ignore[arg-type]
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    return [str(tmp_path / name) for name in ("a.png", "b.png")]


def test_a_repeated_name_is_a_list(paths: list[str]) -> None:
    params = request("colors=red", "colors=5", *(f"images=@{path}" for path in paths))
    assert params.colors == ("red", "5")
    assert [file.read() for file in params.images or ()] == [b"a.png", b"b.png"]
    close_files(params)


def test_images_as_arguments_fill_a_list(paths: list[str]) -> None:
    assert len(request(images=(paths[0],)).images or ()) == 1
    assert len(request(images=(paths[0], paths[1])).images or ()) == 2
    assert refused(images=(paths[0],) * 4) == {"image": "this model takes at most 3 (images), not 4"}
    problems = refused(images=(paths[0], "a", "red", "hat"))
    assert problems["image"] == "this model takes at most 3 (images), not 4; the words of a prompt follow --prompt"


def test_a_nested_field_is_named_with_its_group(paths: list[str]) -> None:
    params = request(
        "style.strength=0.5", f"style.reference={paths[0]}", "style.tags=a", "style.tags=b", "tile=false",
        "background=#ff8800",
    )  # fmt: skip
    assert params.style is not None
    assert params.style.reference is not None
    assert (params.style.strength, params.style.reference.read(), params.style.tags) == (0.5, b"a.png", ("a", "b"))
    assert (params.tile, params.background) == (False, "#ff8800")
    close_files(params)


def test_an_object_of_a_list_has_files(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    objects = [{"image": paths[0], "kind": "person"}, {"image": f"@{paths[1]}"}, {"image": "-"}]
    params = request(*(f"subjects={json.dumps(each)}" for each in objects))
    assert [file.read() for file in files_of(params)] == [b"a.png", b"b.png", b"from a pipe"]
    close_files(params)
    assert refused('subjects={"image": "none.png"}')["subjects.0.image"].startswith("can't read 'none.png'")


def test_a_text_may_stand_in_place_of_an_object() -> None:
    assert request("canvas=wide").canvas == "wide"
    assert request("canvas.strength=0.5").canvas == Style(strength=0.5)
    assert refused("canvas=tall")["canvas"].startswith("must be one of wide or an object with strength")


def test_errors_name_the_nested_field() -> None:
    assert refused("style.strength=2", "style.strenght=1", "colors.x=1", "tile=yes") == {
        "style.strength": "must be a number from 0 to 1, not 2",
        "style.strenght": "unknown parameter 'strenght'; did you mean 'strength'?",
        "colors.x": "unknown parameter 'colors.x'; did you mean 'colors'?",
        "tile": "must be true or false, not 'yes'",
    }
    assert refused("style.strength=0.5", "style.strength=1") == {"style.strength": "is set twice; leave one out"}
    assert refused("tile=true", "tile=true") == {"tile": "is set twice; leave one out"}
    assert refused("style=soft") == {
        "style": "must be an object with strength, reference, tags; set each by its name, as in -p GROUP.NAME=VALUE"
    }


def test_standard_input_is_one_file_of_a_list(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    params = request(f"images={paths[0]}", "images=-")
    assert [file.read() for file in params.images or ()] == [b"a.png", b"from a pipe"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    assert "one field only" in refused("images=-", "style.reference=-")["style.reference"]


def test_an_ending_of_a_declared_media_type_is_taken() -> None:
    assert request(out="x.gif", media_types=("image/gif",)).text == "a wolf"
    assert refused(out="x.gif")["-o"].endswith("end it in .png, .jpg, .jpeg or .webp")
    assert refused(out="x.avif", media_types=("image/gif",))["-o"].endswith(
        "end it in .png, .jpg, .jpeg, .webp or .gif"
    )


def test_the_least_parameters_of_a_model_pass_its_checks() -> None:
    @attrs.frozen(kw_only=True)
    class Inner:
        whole: int = fields.integer(5, 9, required=True)

    @attrs.frozen(kw_only=True)
    class Needy:
        images: tuple[File, ...] = fields.files(minimum=2, required=True)
        texts: tuple[str, ...] = fields.texts(required=True)
        flag: bool = fields.boolean(required=True)
        color: str = fields.color(required=True)
        inner: Inner = fields.group(Inner, required=True)

    params = _smallest_params(fields.fields_of(Needy), Path("sketch.png"))
    assert params["images"] == [Path("sketch.png")] * 2
    assert (params["flag"], params["color"], params["inner"]) == (False, "#808080", {"whole": 5})


@attrs.frozen(kw_only=True)
class Flux:
    prompt: str = fields.text(1, required=True, role="prompt")
    output_format: str | None = fields.choice("webp", "jpg", "png", default="webp")


@attrs.frozen(kw_only=True)
class Gemini:
    prompt: str = fields.text(1, required=True, role="prompt")
    mime: str | None = fields.choice("image/png", "image/jpeg", alias="output_format")


@attrs.frozen(kw_only=True)
class Options:
    mime: str | None = fields.choice("image/png", "image/jpeg", default="image/png", alias="output_format")
    quality: int | None = fields.integer(0, 100)


@attrs.frozen(kw_only=True)
class Imagen:
    prompt: str = fields.text(1, required=True, role="prompt")
    output: Options | None = fields.group(Options)


@attrs.frozen(kw_only=True)
class Film:
    prompt: str = fields.text(1, required=True, role="prompt")
    output_format: str | None = fields.choice("tiff", "bmp")


def format_for(params: type[attrs.AttrsInstance], out: str, *words: str) -> dict[str, object]:
    operation = Operation(
        id="acme/x", title="X", target="/x", provider=PROVIDER, params=params, dialect=cast(Dialect, None)
    )
    request = request_of(operation, "acme/x", {"prompt": ("a wolf",)}, assignments=words, out=Path(out))
    return attrs.asdict(request.params, filter=lambda each, value: each.name != "prompt" and value is not None)


@pytest.mark.parametrize("words", [(), ("output_format=jpg",), ("output_format=jpeg",)])
@pytest.mark.parametrize("out", ["x.jpg", "x.jpeg", "x.JPG"])
def test_the_ending_of_a_jpeg_is_the_format_jpg(out: str, words: tuple[str, ...]) -> None:
    assert format_for(Flux, out, *words) == {"output_format": "jpg"}


def test_a_field_of_another_name_takes_the_format_of_the_file() -> None:
    assert format_for(Gemini, "x.jpg") == {"mime": "image/jpeg"}
    assert format_for(Gemini, "x.png", "mime=image/png") == {"mime": "image/png"}
    assert format_for(Flux, "x.webp") == {}


def test_a_field_of_a_nested_object_takes_the_format_of_the_file() -> None:
    assert format_for(Imagen, "x.jpg") == {"output": {"mime": "image/jpeg"}}
    assert format_for(Imagen, "x.jpg", "output.quality=9") == {"output": {"mime": "image/jpeg", "quality": 9}}
    assert format_for(Imagen, "x.png") == {}


@pytest.mark.parametrize(
    ("params", "out", "words", "problem"),
    [
        (Flux, "x.png", ("output_format=jpeg",), ("output_format", "is jpeg, but the name 'x.png' selects png")),
        (
            Flux,
            "x.gif",
            (),
            ("-o", "'x.gif' names a format that the model can't produce; end it in .png, .jpg, .jpeg or .webp"),
        ),
        (Gemini, "x.png", ("mime=image/jpeg",), ("mime", "is image/jpeg, but the name 'x.png' selects png")),
        (
            Imagen,
            "x.png",
            ("output.mime=image/jpeg",),
            ("output.mime", "is image/jpeg, but the name 'x.png' selects png"),
        ),
        (Film, "x.png", (), ("-o", "'x.png' names a format that the model can't produce")),
    ],
)
def test_a_file_whose_ending_does_not_fit_is_refused(
    params: type[attrs.AttrsInstance], out: str, words: tuple[str, ...], problem: tuple[str, str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        format_for(params, out, *words)
    assert [tuple(each) for each in caught.value.problems] == [problem]
