"""OpenAI's words for models with lists of images, nested objects, and sizes in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import cast

import attrs
import pytest
from PIL import Image

from impasto import Dialect, File, InvalidRequest, Operation, Problem, Provider, Sizes, WidthHeight, fields
from impasto.ext import close_files
from impasto.rules import Excludes, Needs
from impasto_plugins.batch.manifest.fast_validation import FastValidator
from impasto_plugins.images.limits import Limits
from impasto_plugins.openai_compat.check import check_request
from impasto_plugins.openai_compat.defaults import problems_of_defaults
from impasto_plugins.openai_compat.translate import translate


@attrs.frozen(kw_only=True)
class Style:
    strength: float | None = fields.number(0, 1)
    reference: File | None = fields.file(lambda file: (), role=None)


@attrs.frozen(kw_only=True)
class Params:
    text: str = fields.text(1, 100, required=True, role="prompt")
    images: tuple[File, ...] | None = fields.files(maximum=3)
    mask: File | None = fields.file(role="mask")
    width: int | None = fields.integer(256, 1440, step=32)
    height: int | None = fields.integer(256, 1440, step=32)
    style: Style | None = fields.group(Style)


@attrs.frozen(kw_only=True)
class Sized:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    size: str | None = fields.choice("1024x1024", "1024x1536", "1536x1024", "auto")


@attrs.frozen(kw_only=True)
class Mixed:
    start: File | None = fields.file()
    others: tuple[File, ...] | None = fields.files(maximum=2)


PROVIDER = Provider(name="acme", base_url="https://api.acme.example", base_url_variable="ACME_BASE_URL")


def operation(params: type[attrs.AttrsInstance] = Params, **more: object) -> Operation:
    settings = {"id": "acme/x", "title": "X", "target": "/x", "provider": PROVIDER, "params": params, **more}
    return Operation(dialect=cast(Dialect, None), **settings)  # type: ignore[arg-type]


SIZED = operation(Sized, size=Sizes(choices=("1024x1024", "1024x1536", "1536x1024", "auto")))


def png(width: int, height: int) -> bytes:
    target = BytesIO()
    Image.new("L", (width, height), 255).save(target, "png")
    return target.getvalue()


def test_a_list_of_images_fills_a_field_of_files_beside_a_mask() -> None:
    image, mask = png(64, 64), png(64, 64)
    translation = translate(operation(), {"prompt": "a", "image": [image, ("b.png", image)], "mask": mask}, edit=True)
    request, warnings = check_request(operation(), "acme/x", translation)
    params = cast(Params, request.params)
    assert params.images is not None
    assert [file.label for file in params.images] == ["bytes", "b.png"]
    assert (params.mask is not None and params.mask.read(), warnings) == (mask, ())
    close_files(params)


def test_one_image_is_a_list_of_one() -> None:
    assert translate(operation(), {"prompt": "a", "image": b"1"}, edit=True).params["images"] == [b"1"]


def test_a_mask_of_another_size_is_compared_with_the_first_image() -> None:
    translation = translate(operation(), {"prompt": "a", "image": [png(64, 64)], "mask": png(32, 32)}, edit=True)
    _, warnings = check_request(operation(), "acme/x", translation)
    assert [each[:24] for each in warnings] == ["the mask is 32x32 pixels"]


def test_too_many_images_are_refused_with_the_number() -> None:
    [problem] = translate(operation(), {"prompt": "a", "image": [b"1"] * 4}, edit=True).problems
    assert str(problem) == "image: this model takes at most 3 images, not 4"


def test_single_fields_are_filled_before_a_list() -> None:
    translation = translate(operation(Mixed), {"image": [b"1", b"2", b"3"]}, edit=True)
    assert (translation.params, translation.problems) == ({"start": b"1", "others": [b"2", b"3"]}, ())
    assert translate(operation(Mixed), {"image": b"1"}, edit=True).params == {"start": b"1"}


@pytest.mark.parametrize(
    ("size", "width", "height"),
    [
        ("1024x1024", 1024, 1024),
        ("256x1440", 256, 1440),
        ("1000x1000", 992, 992),
        ("1792x1024", 1440, 832),
        ("4096x4096", 1440, 1440),
        ("64x128", 256, 512),
        ("99999x1", 1440, 256),
    ],
)
def test_size_becomes_width_and_height_with_a_warning_unless_it_is_exact(size: str, width: int, height: int) -> None:
    translation = translate(operation(), {"prompt": "a", "size": size})
    assert (translation.params["width"], translation.params["height"], translation.problems) == (width, height, ())
    exact = size == f"{width}x{height}"
    expected = () if exact else (f"size {size} became {width}x{height}, the nearest of this model's",)
    assert translation.warnings == expected
    operation().request("acme/x", translation.params)  # the model takes it


def test_the_number_of_pixels_is_a_limit_too() -> None:
    size = WidthHeight(minimum=64, maximum=4096, multiple=16, max_pixels=1024 * 1024)
    translation = translate(operation(size=size), {"prompt": "a", "size": "2048x1024"})
    width, height = cast(int, translation.params["width"]), cast(int, translation.params["height"])
    assert (width * height <= 1024 * 1024, width % 16, height % 16) == (True, 0, 0)
    assert width / height == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("name", ["width", "height"])
def test_size_beside_a_field_that_it_sets_is_refused(name: str) -> None:
    [problem] = translate(operation(), {"prompt": "a", "size": "1024x1024", name: 512}).problems
    assert str(problem) == f"{name}: can't be combined with size, which sets it too; leave one out"


@pytest.mark.parametrize("size", ["1024", "0x5", "1024X1024", "wide", 5])
def test_a_malformed_size_is_refused(size: object) -> None:
    for each in (operation(), SIZED):
        [problem] = translate(each, {"prompt": "a", "size": size}).problems
        assert problem.message.startswith("must be auto or WIDTHxHEIGHT in pixels")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("1024x1536", "1024x1536"),
        ("auto", "auto"),
        ("1792x1024", "1536x1024"),
        ("512x512", "1024x1024"),
        ("1000x1500", "1024x1536"),
    ],
)
def test_a_model_with_a_list_of_sizes_gets_the_nearest(size: str, expected: str) -> None:
    translation = translate(SIZED, {"prompt": "a", "size": size})
    assert (translation.params["size"], translation.problems) == (expected, ())
    became = f"size {size} became {expected}, the nearest of this model's"
    assert translation.warnings == (() if size == expected else (became,))


def test_a_field_called_size_without_a_declaration_takes_its_own_values_only() -> None:
    translation = translate(operation(Sized), {"prompt": "a", "size": "512x512"})
    assert translation.params["size"] == "512x512"
    with pytest.raises(InvalidRequest, match="size: must be one of"):
        check_request(operation(Sized), "acme/x", translation)


def test_a_default_size_is_translated_as_a_calls_is() -> None:
    assert problems_of_defaults(SIZED, {"size": "512x512"}) == []
    assert translate(SIZED, {"prompt": "a"}, defaults={"size": "512x512"}).params["size"] == "1024x1024"
    translation = translate(operation(), {"prompt": "a", "width": 512}, defaults={"size": "1024x1024"})
    assert (translation.params, translation.problems) == ({"text": "a", "width": 512}, ())


def test_a_default_of_a_nested_object_is_checked() -> None:
    assert problems_of_defaults(operation(), {"style": {"strength": 0.5}}) == []
    [file] = problems_of_defaults(operation(), {"style": {"reference": "one.png"}})
    assert str(file) == "style: is a file, which each call gives; leave it out"
    [problem] = problems_of_defaults(operation(), {"style": {"strength": 7}})
    assert str(problem) == "style.strength: must be a number from 0 to 1, not 7"


def test_size_has_no_effect_on_a_model_that_declares_none() -> None:
    translation = translate(operation(size=None), {"prompt": "a", "size": "1024x1024"})
    assert translation.warnings == ("size 1024x1024 has no effect: this model takes no aspect_ratio",)


@attrs.frozen(kw_only=True)
class Sides:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    width: int | None = fields.integer(320, 4096)
    height: int | None = fields.integer(320, 4096)


class AtMostFourTimes:
    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        width, height = arguments.get("width", 1), arguments.get("height", 1)
        if isinstance(width, int) and isinstance(height, int) and max(width, height) > 4 * min(width, height):
            yield Problem("width", "is too unlike height")

    def __str__(self) -> str:
        return "at most 4:1"


def test_a_size_that_the_models_rules_refuse_is_not_laid_on_an_image() -> None:
    model = operation(Sides, size=WidthHeight(minimum=320, maximum=4096), rules=(AtMostFourTimes(),))
    translation = translate(model, {"prompt": "a", "size": "100x900"})
    assert translation.params == {"prompt": "a"}
    assert translation.warnings == ("size 100x900 has no effect: the rules of this model do not allow 320x2880 here",)


@attrs.frozen(kw_only=True)
class Encoded:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    format: str | None = fields.choice("webp", "jpg", "png", default="webp", alias="output_format")
    quality: int | None = fields.integer(1, 95, alias="output_compression")


def test_output_format_and_compression_fill_the_fields_that_name_them() -> None:
    translation = translate(operation(Encoded), {"prompt": "a", "output_format": "jpeg", "output_compression": 50})
    assert (translation.problems, translation.warnings) == ((), ())
    request, _ = check_request(operation(Encoded), "acme/x", translation)
    assert request.params == Encoded(prompt="a", format="jpg", quality=50)
    translation = translate(operation(Encoded), {"prompt": "a", "output_format": "gif", "output_compression": 96})
    with pytest.raises(InvalidRequest) as caught:
        check_request(operation(Encoded), "acme/x", translation)
    assert dict(caught.value.problems) == {
        "output_format": "must be one of webp, jpg, png, not 'gif' (it is this model's format)",
        "output_compression": "must be a whole number from 1 to 95, not 96 (it is this model's quality)",
    }


@attrs.frozen(kw_only=True)
class Output:
    type: str | None = fields.choice("image/png", "image/jpeg", default="image/png", alias="output_format")
    quality: int | None = fields.integer(0, 100, alias="output_compression")
    size: str | None = fields.choice("1K", "2K")


@attrs.frozen(kw_only=True)
class Wrapped:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    output: Output | None = fields.group(Output)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ({"output_format": "jpeg", "output_compression": 50}, Output(type="image/jpeg", quality=50)),
        ({"output_format": "jpeg", "output": {"size": "2K"}}, Output(type="image/jpeg", size="2K")),
        ({"output": Output(size="2K"), "output_compression": 50}, Output(quality=50, size="2K")),
    ],
)
def test_output_format_fills_a_field_of_a_nested_object(arguments: dict[str, object], output: Output) -> None:
    translation = translate(operation(Wrapped), {"prompt": "a", **arguments})
    request, warnings = check_request(operation(Wrapped), "acme/x", translation)
    assert (request.params, tuple(warnings)) == (Wrapped(prompt="a", output=output), ())


def test_a_default_of_a_deployment_fills_a_field_of_a_nested_object() -> None:
    defaults = {"output_format": "jpeg", "output": {"size": "2K"}}
    translation = translate(operation(Wrapped), {"prompt": "a"}, defaults={"output_format": "jpeg"})
    assert translation.params == {"prompt": "a", "output": {"type": "jpeg"}}
    translation = translate(operation(Wrapped), {"prompt": "a", "output_format": "png"}, defaults=defaults)
    assert translation.params == {"prompt": "a", "output": {"type": "png"}}


def test_the_problem_of_a_nested_field_has_the_callers_name() -> None:
    wrong = {"prompt": "a", "output_format": "gif"}
    with pytest.raises(InvalidRequest) as caught:
        check_request(operation(Wrapped), "acme/x", translate(operation(Wrapped), wrong))
    assert dict(caught.value.problems) == {
        "output_format": "must be one of image/png, image/jpeg, not 'gif' (it is this model's output.type)"
    }
    twice = {"prompt": "a", "output_format": "png", "output": {"type": "image/png"}}
    assert dict(translate(operation(Wrapped), twice).problems) == {
        "output_format": "is the same as output for this model (its field output.type); leave one out"
    }


def test_the_quick_check_of_a_batch_leaves_other_names_of_fields_to_the_full_one() -> None:
    validator = FastValidator.of_operation("acme/x", operation(Encoded))
    assert validator is not None
    assert validator.validate({"id": "a", "model": "acme/x", "prompt": "a"}) is not None
    row: dict[str, object] = {"id": "a", "model": "acme/x", "prompt": "a", "output_compression": 100}
    assert validator.validate(row) is None


@attrs.frozen(kw_only=True)
class Resolved:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    init: File | None = fields.file()
    strength: float | None = fields.number(0, 1)
    resolution: str | None = fields.choice("1024x1024", "1024x1536")
    aspect_ratio: str | None = fields.choice("1x1", "2x3")
    speed: str | None = fields.choice("fast", "slow")


RESOLVED = operation(
    Resolved,
    size=Sizes("resolution", choices=("1024x1024", "1024x1536")),
    rules=(
        Excludes("resolution", None, ("aspect_ratio",)),
        Needs("init", ("strength",)),
        Excludes("speed", "fast", ("strength",)),
    ),
)


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        (
            {"size": "1024x1024", "aspect_ratio": "1x1"},
            {"aspect_ratio": "not allowed when size (this model's resolution) is given; leave it out"},
        ),
        (
            {"resolution": "1024x1024", "aspect_ratio": "1x1"},
            {"aspect_ratio": "not allowed when resolution is given; leave it out"},
        ),
        ({"image": png(8, 8)}, {"strength": "required when image (this model's init) is given"}),
        ({"speed": "fast", "strength": 0.5}, {"strength": "not allowed when speed is fast; leave it out"}),
    ],
)
def test_a_rule_names_what_the_caller_wrote(arguments: dict[str, object], problems: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_request(RESOLVED, "acme/x", translate(RESOLVED, {"prompt": "a", **arguments}))
    assert dict(caught.value.problems) == problems


@attrs.frozen(kw_only=True)
class Moving:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    image: File | None = fields.file(Limits(media_types=("image/gif",)))
    mask: File | None = fields.file(role="mask")


def test_a_mask_beside_an_image_of_a_declared_type_is_not_compared() -> None:
    arguments = {"prompt": "a", "image": b"GIF89a...", "mask": png(8, 8)}
    request, warnings = check_request(operation(Moving), "acme/x", translate(operation(Moving), arguments))
    assert warnings == ()
    close_files(request.params)
