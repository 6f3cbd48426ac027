"""Lists of numbers and of objects as fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from impasto import BrokenPlugin, File, FileRef, InvalidRequest, Registry, fields
from impasto.describe import describe
from impasto.dialects import split_files, to_json
from impasto.ext import close_files, files_of, structure
from impasto.rules import Excludes, Rule
from tests.descriptors import open_descriptors

ERASE = Registry().operation("stability/erase")


@attrs.frozen(kw_only=True)
class Member:
    color: str = fields.color(required=True, description="Color.")
    weight: float | None = fields.number(0.05, 1, description="Share of the color.")


@attrs.frozen(kw_only=True)
class Params:
    weights: tuple[float, ...] | None = fields.numbers(3, lowest=0, highest=1)
    steps: tuple[int, ...] | None = fields.numbers(2, minimum=2, whole=True)
    members: tuple[Member, ...] | None = fields.groups(Member, 2)


def problems(**params: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        structure(Params, params)
    return dict(caught.value.problems)


def test_lists_of_numbers_and_objects_are_taken_and_become_json() -> None:
    members = [{"color": "#ff8800", "weight": 1}, Member(color="#000000")]
    params = structure(Params, {"weights": [0, 0.5], "steps": (1, 2), "members": members})
    assert params.members == (Member(color="#ff8800", weight=1), Member(color="#000000"))
    assert to_json(params) == {
        "weights": [0, 0.5],
        "steps": [1, 2],
        "members": [{"color": "#ff8800", "weight": 1}, {"color": "#000000"}],
    }


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (
            {"weights": [0, 2, True]},
            {
                "weights": "number 2: must be a number from 0 to 1, not 2; "
                "number 3: must be a number from 0 to 1, not true"
            },
        ),
        ({"weights": []}, {"weights": "must be a list of 1 to 3 numbers; each a number from 0 to 1, not 0"}),
        (
            {"weights": 0.5},
            {"weights": "must be a list of 1 to 3 numbers; each a number from 0 to 1, not a number; give a list"},
        ),
        ({"steps": [1, 2.5]}, {"steps": "integer 2: must be a whole number, not 2.5"}),
        (
            {"members": [{"color": "#000000"}, {"color": "red", "weigth": 1}]},
            {
                "members.1.color": "must be a color as #rrggbb, such as #ff8800, not 'red'",
                "members.1.weigth": "unknown parameter 'weigth'; did you mean 'weight'?",
            },
        ),
        ({"members": [{"weight": 0.5}]}, {"members.0.color": "required"}),
        ({"members": ["red"]}, {"members": "object 1: must be an object with color, weight, not 'red'"}),
        (
            {"members": [{"color": "#000000"}] * 3},
            {"members": "must be a list of 1 to 2 objects; each an object with color, weight, not 3"},
        ),
    ],
)
def test_problems_name_the_value_that_is_wrong(params: dict[str, Any], expected: dict[str, str]) -> None:
    assert problems(**params) == expected


def test_describe_names_the_fields_of_the_objects() -> None:
    described = describe("acme/x", attrs.evolve(ERASE, params=Params, rules=(), max_bytes=None))
    assert {each.name: (each.type, each.takes) for each in described.fields} == {
        "weights": ("numbers", "a list of 1 to 3 numbers; each a number from 0 to 1"),
        "steps": ("numbers", "a list of exactly 2 numbers"),
        "members": ("groups", "a list of 1 to 2 objects; each an object with color, weight"),
        "members.color": ("color", "a color as #rrggbb, such as #ff8800"),
        "members.weight": ("number", "a number from 0.05 to 1"),
    }


@attrs.frozen(kw_only=True)
class Layer:
    image: File = fields.file(inspect=lambda file: ["is too dark"] if file.read() == b"dark" else [], required=True)
    kind: str | None = fields.choice("person", "product")


@attrs.frozen(kw_only=True)
class Layered:
    layers: tuple[Layer, ...] | None = fields.groups(Layer, 3)


def test_a_list_of_objects_has_files_that_are_checked_counted_and_become_json() -> None:
    layered = attrs.evolve(ERASE, params=Layered, rules=(), max_bytes=7)
    request = layered.request("acme/x", {"layers": [{"image": b"one", "kind": "person"}, {"image": b"four"}]})
    assert [file.read() for file in files_of(request.params)] == [b"one", b"four"]
    first, second = map(FileRef, files_of(request.params))
    layers = [{"image": first, "kind": "person"}, {"image": second}]
    assert split_files(layered, request.params) == ({"layers": layers}, [])
    assert layered.file_fields == ("layers",)
    with pytest.raises(InvalidRequest, match="at most 7 bytes, not 8 bytes of files"):
        layered.request("acme/x", {"layers": [{"image": b"four"}, {"image": b"four"}]})
    with pytest.raises(InvalidRequest) as caught:
        layered.request("acme/x", {"layers": [{"image": b"one"}, {"image": b"dark"}, {"kind": "thing"}]})
    assert dict(caught.value.problems) == {
        "layers.1.image": "is too dark",
        "layers.2.image": "required",
        "layers.2.kind": "must be one of person, product, not 'thing'",
    }


def test_files_in_a_list_of_objects_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    layered = attrs.evolve(ERASE, params=Layered, rules=(), max_bytes=None)
    with path.open("rb") as own, path.open("rb") as other:
        request = layered.request("acme/x", {"layers": [{"image": own}, {"image": other}]})
        assert open_descriptors(path) == 4
        close_files(request.params)
        own.seek(0)
        with pytest.raises(InvalidRequest):
            layered.request("acme/x", {"layers": [{"image": own}, {"image": b""}]})
        assert open_descriptors(path) == 2


@attrs.frozen(kw_only=True)
class Pixels:
    width: int = fields.integer(64, 2048, required=True)
    height: int = fields.integer(64, 2048, required=True)


@attrs.frozen(kw_only=True)
class Sized:
    image_size: Pixels | str | None = fields.group(Pixels, choices=("square_hd", "jpeg"), default="square_hd")


def test_a_text_may_stand_in_place_of_an_object() -> None:
    assert to_json(structure(Sized, {"image_size": "square_hd"})) == {"image_size": "square_hd"}
    sides = {"width": 512, "height": 64}
    assert to_json(structure(Sized, {"image_size": sides})) == {"image_size": sides}
    assert to_json(structure(Sized, {"image_size": Pixels(width=512, height=64)})) == {"image_size": sides}
    words = "one of square_hd, jpeg or an object with width, height"
    for value, problem in (
        ("square", {"image_size": f"must be {words}, not 'square'"}),
        (5, {"image_size": f"must be {words}, not 5"}),
        ({"width": 5}, {"image_size.width": "must be a whole number from 64 to 2048, not 5",
                        "image_size.height": "required"}),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest) as caught:
            structure(Sized, {"image_size": value})
        assert dict(caught.value.problems) == problem
    [field, *_] = describe("acme/x", attrs.evolve(ERASE, params=Sized, rules=(), max_bytes=None)).fields
    assert (field.type, field.takes, field.choices, field.default) == (
        "group",
        words,
        ("square_hd", "jpeg"),
        "square_hd",
    )


@pytest.mark.parametrize("rule", [Excludes("members.color", None, ("steps",)), Excludes("steps", None, ("weights.0",))])
def test_a_rule_can_not_name_a_field_of_one_object_of_a_list(rule: Rule) -> None:
    with pytest.raises(BrokenPlugin, match="which is not a field"):
        attrs.evolve(ERASE, params=Params, rules=(rule,))
