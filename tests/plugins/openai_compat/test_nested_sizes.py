"""OpenAI's ``size`` for models whose size is a field of a nested object."""

from __future__ import annotations

from typing import cast

import attrs
import pytest

from impasto import AspectRatios, BrokenPlugin, Dialect, InvalidRequest, Operation, Provider, Sizes, WidthHeight, fields
from impasto.rules import Excludes, Needs
from impasto.sizes import Size
from impasto_plugins.openai_compat.check import check_request
from impasto_plugins.openai_compat.translate import translate


@attrs.frozen(kw_only=True)
class Shape:
    width: int | None = fields.integer(64, 2048)
    height: int | None = fields.integer(64, 2048)
    ratio: str | None = fields.choice("1:1", "16:9", "3:2")
    preset: str | None = fields.choice("1024x1024", "1536x1024", "auto")
    fit: str | None = fields.choice("cover", "contain")
    crop: bool | None = fields.boolean()


@attrs.frozen(kw_only=True)
class Output:
    shape: Shape | None = fields.group(Shape)


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    reference: str | None = fields.text(1, 100)
    image_size: Shape | None = fields.group(Shape)
    output: Output | None = fields.group(Output)


@attrs.frozen(kw_only=True)
class OwnSize:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    size: Shape | None = fields.group(Shape)


PIXELS = WidthHeight(width="image_size.width", height="image_size.height", minimum=64, maximum=2048)


def operation(size: Size = PIXELS, **more: object) -> Operation:
    settings = {"id": "acme/x", "title": "X", "target": "/x", "params": Params, "size": size, **more}
    provider = Provider(name="acme", base_url="https://api.acme.example")
    return Operation(dialect=cast(Dialect, None), provider=provider, **settings)  # type: ignore[arg-type]


def checked(model: Operation, **arguments: object) -> tuple[object, tuple[str, ...]]:
    """Return the checked parameters of a call with OpenAI's words, and its warnings."""
    request, warnings = check_request(model, "acme/x", translate(model, {"prompt": "a", **arguments}))
    return request.params, warnings


def sent(model: Operation, **arguments: object) -> tuple[Params, tuple[str, ...]]:
    params, warnings = checked(model, **arguments)
    return cast(Params, params), warnings


@pytest.mark.parametrize(
    ("declared", "text", "shape", "warnings"),
    [
        (PIXELS, "1536x1024", Shape(width=1536, height=1024), ()),
        (
            PIXELS,
            "4096x2048",
            Shape(width=2048, height=1024),
            ("size 4096x2048 became 2048x1024, the nearest of this model's",),
        ),
        (AspectRatios("image_size.ratio"), "1792x1024", Shape(ratio="16:9"), ()),
        (
            AspectRatios("image_size.ratio"),
            "1000x1001",
            Shape(ratio="1:1"),
            ("size 1000x1001 became image_size.ratio 1:1, the nearest of this model's",),
        ),
        (Sizes("image_size.preset", choices=("1024x1024", "1536x1024")), "1536x1024", Shape(preset="1536x1024"), ()),
        (Sizes("image_size.preset", choices=("1024x1024", "1536x1024", "auto")), "auto", Shape(preset="auto"), ()),
    ],
)
def test_a_size_sets_the_fields_of_a_nested_object(
    declared: Size, text: str, shape: Shape, warnings: tuple[str, ...]
) -> None:
    params, found = sent(operation(declared), size=text)
    assert (params.image_size, found) == (shape, warnings)


def test_an_object_may_be_nested_in_another() -> None:
    deep = WidthHeight(width="output.shape.width", height="output.shape.height", minimum=64, maximum=2048)
    params, _ = sent(operation(deep), size="512x768")
    assert params.output == Output(shape=Shape(width=512, height=768))


@pytest.mark.parametrize("value", [{"crop": True}, Shape(crop=True)])
def test_other_fields_of_the_object_stay(value: object) -> None:
    params, warnings = sent(operation(), size="512x768", image_size=value)
    assert (params.image_size, warnings) == (Shape(width=512, height=768, crop=True), ())


@pytest.mark.parametrize("value", [{"width": 512}, Shape(width=512)])
def test_size_beside_a_nested_field_that_it_sets_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(operation(), size="512x768", image_size=value)
    [problem] = caught.value.problems
    assert str(problem) == "image_size.width: can't be combined with size, which sets it too; leave one out"


def test_an_object_that_is_none_is_refused_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(operation(), size="512x768", image_size="square")
    assert [problem.field for problem in caught.value.problems] == ["image_size"]


def test_an_object_called_size_takes_both_openai_s_size_and_its_own() -> None:
    declared = WidthHeight(width="size.width", height="size.height", minimum=64, maximum=2048)
    own = operation(declared, params=OwnSize)
    assert checked(own, size="512x768")[0] == OwnSize(prompt="a", size=Shape(width=512, height=768))
    of_object = checked(own, size={"width": 512, "crop": True})
    assert of_object == (OwnSize(prompt="a", size=Shape(width=512, crop=True)), ())
    with pytest.raises(InvalidRequest, match="size: must be auto or WIDTHxHEIGHT in pixels"):
        checked(own, size="wide")


def test_a_default_gives_way_to_a_nested_field_of_the_call() -> None:
    translation = translate(operation(), {"prompt": "a", "image_size": {"width": 512}}, defaults={"size": "1024x1024"})
    assert (translation.params["image_size"], translation.problems) == ({"width": 512}, ())
    translation = translate(operation(), {"prompt": "a", "image_size": {"crop": True}}, defaults={"size": "1024x1024"})
    assert translation.params["image_size"] == {"crop": True, "width": 1024, "height": 1024}


def test_a_rule_against_the_object_leaves_the_shape_to_the_provider() -> None:
    ruled = operation(rules=(Excludes("reference", None, ("image_size",)),))
    params, warnings = sent(ruled, size="512x768", reference="b")
    assert params.image_size is None
    assert warnings == ("size 512x768 has no effect: the rules of this model do not allow 512x768 here",)


def test_a_field_without_a_ratio_among_its_choices_is_named() -> None:
    params, warnings = sent(operation(AspectRatios("image_size.fit")), size="512x768")
    assert params.image_size is None
    assert warnings == ("size 512x768 has no effect: no choice of image_size.fit has a shape",)


@pytest.mark.parametrize(
    "size",
    [
        AspectRatios("ratio"),
        AspectRatios("image_size.ration"),
        AspectRatios("prompt.ratio"),
        WidthHeight(width="image_size.width", height="hight", maximum=2048),
        Sizes("image_size", choices=("1024x1024",)),
    ],
)
def test_a_size_of_a_field_that_is_not_there_is_refused_when_the_model_is_made(size: Size) -> None:
    with pytest.raises(BrokenPlugin, match="acme/x: its size names '.+', which is not a field with a value"):
        operation(size)


@attrs.frozen(kw_only=True)
class Either:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    image_size: Shape | str | None = fields.group(Shape, choices=("square_hd", "wide"))


@attrs.frozen(kw_only=True)
class EitherSize:
    prompt: str = fields.text(1, 100, required=True, role="prompt")
    size: Shape | str | None = fields.group(Shape, choices=("2K", "wide"))


def test_a_text_in_place_of_the_object_and_a_size_exclude_each_other() -> None:
    model = operation(params=Either)
    assert checked(model, size="512x256") == (Either(prompt="a", image_size=Shape(width=512, height=256)), ())
    assert checked(model, image_size="wide") == (Either(prompt="a", image_size="wide"), ())
    with pytest.raises(InvalidRequest, match=r"image_size\.width: can't be combined with size"):
        checked(model, image_size="wide", size="512x256")
    translation = translate(model, {"prompt": "a", "image_size": "wide"}, defaults={"size": "512x256"})
    assert (translation.params, translation.warnings) == ({"prompt": "a", "image_size": "wide"}, ())


def test_a_field_called_size_takes_its_own_texts_and_openais() -> None:
    declared = WidthHeight(width="size.width", height="size.height", minimum=64, maximum=2048)
    model = operation(declared, params=EitherSize)
    assert checked(model, size="2K") == (EitherSize(prompt="a", size="2K"), ())
    assert checked(model, size="512x256") == (EitherSize(prompt="a", size=Shape(width=512, height=256)), ())
    with pytest.raises(InvalidRequest, match="size: must be auto or WIDTHxHEIGHT"):
        checked(model, size="4K")


RULES = (Needs("reference", ("image_size.crop",), value="edit"), Excludes("reference", "none", ("output.shape.ratio",)))


@pytest.mark.parametrize(
    ("reference", "left"),
    [
        ("edit", {"image_size": {"width": 512, "crop": True}, "output": {"shape": {"ratio": "1:1", "width": 64}}}),
        ("draw", {"image_size": {"width": 512}, "output": {"shape": {"ratio": "1:1", "width": 64}}}),
        ("none", {"image_size": {"width": 512}, "output": {"shape": {"width": 64}}}),
        (None, {"image_size": {"width": 512}, "output": {"shape": {"ratio": "1:1", "width": 64}}}),
    ],
)
def test_a_default_of_a_nested_field_that_the_call_excludes_is_left_out(
    reference: str | None, left: dict[str, object]
) -> None:
    model = operation(rules=RULES)
    defaults = {
        "image_size": {"width": 512, "crop": True},
        "output": {"shape": {"ratio": "1:1", "width": 64}},
    }
    translation = translate(model, {"prompt": "a", "reference": reference}, defaults=defaults)
    params = {"prompt": "a"} if reference is None else {"prompt": "a", "reference": reference}
    assert (translation.params, translation.problems) == ({**params, **left}, ())
    assert check_request(model, "acme/x", translation)[1] == ()


def test_a_default_of_which_nothing_fits_is_left_out_whole() -> None:
    translation = translate(operation(rules=RULES), {"prompt": "a"}, defaults={"image_size": {"crop": True}})
    assert translation.params == {"prompt": "a"}
