"""Lists of numbers and of objects as fields."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from impasto import BrokenPlugin, File, InvalidRequest, Registry, fields
from impasto.describe import describe
from impasto.dialects import to_json
from impasto.ext import structure
from impasto.rules import Excludes, Rule

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
        ({"members": ["red"]}, {"members": "object 1: must be an object with color, weight, not text"}),
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


def test_a_list_of_objects_has_no_files() -> None:
    @attrs.frozen(kw_only=True)
    class Layer:
        image: File | None = fields.file()

    with pytest.raises(BrokenPlugin, match="a list of objects can't have files; declare a field of files"):
        fields.groups(Layer)


@pytest.mark.parametrize("rule", [Excludes("members.color", None, ("steps",)), Excludes("steps", None, ("weights.0",))])
def test_a_rule_can_not_name_a_field_of_one_object_of_a_list(rule: Rule) -> None:
    with pytest.raises(BrokenPlugin, match="which is not a field"):
        attrs.evolve(ERASE, params=Params, rules=(rule,))
