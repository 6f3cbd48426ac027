"""Rules that name fields of nested objects, and rules that name fields which do not exist."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from impasto import BrokenPlugin, InvalidRequest, Operation, Registry, fields
from impasto.rules import Excludes, Needs, NoEffect, OneOf, Rule

ERASE = Registry().operation("stability/erase")


@attrs.frozen(kw_only=True)
class Shade:
    dark: bool | None = fields.boolean()
    tone: str | None = fields.text(1, 20)


@attrs.frozen(kw_only=True)
class Palette:
    name: str | None = fields.choice("ember", "fresh")
    members: tuple[str, ...] | None = fields.texts(4)
    shade: Shade | None = fields.group(Shade)


@attrs.frozen(kw_only=True)
class Params:
    prompt: str = fields.text(1, required=True, role="prompt")
    style: str | None = fields.choice("ink", "oil")
    palette: Palette | None = fields.group(Palette)


def operation(*rules: Rule, **more: Any) -> Operation:
    return attrs.evolve(ERASE, id="acme/paint", params=Params, rules=rules, max_bytes=None, **more)


def problems_of(rule: Rule, **params: Any) -> dict[str, str]:
    try:
        operation(rule).request("acme/paint", {"prompt": "a fox", **params})
    except InvalidRequest as error:
        return dict(error.problems)
    return {}


ONE_KIND = Excludes("palette.name", None, ("palette.members",))
FRESH = Needs("palette.name", ("palette.shade.tone", "style"), "fresh")
SOME = OneOf(("style", "palette.name"))
COLORS = Excludes("style", "ink", ("palette",), by_default=True)


@pytest.mark.parametrize(
    ("rule", "params", "expected"),
    [
        (ONE_KIND, {"palette": {"name": "ember"}}, {}),
        (ONE_KIND, {"palette": {"name": None, "members": ["red"]}}, {}),
        (ONE_KIND, {"palette": Palette(members=("red",))}, {}),
        (
            ONE_KIND,
            {"palette": {"name": "ember", "members": ["red"]}},
            {"palette.members": "not allowed when palette.name is given; leave it out"},
        ),
        (
            ONE_KIND,
            {"palette": Palette(name="ember", members=("red",))},
            {"palette.members": "not allowed when palette.name is given; leave it out"},
        ),
        (FRESH, {}, {}),
        (FRESH, {"palette": {"name": "ember"}}, {}),
        (FRESH, {"style": "ink", "palette": {"name": "fresh", "shade": {"tone": "x"}}}, {}),
        (
            FRESH,
            {"palette": {"name": "fresh", "shade": {"dark": True}}},
            {
                "palette.shade.tone": "required when palette.name is fresh",
                "style": "required when palette.name is fresh",
            },
        ),
        (SOME, {"palette": {"name": "fresh"}}, {}),
        (SOME, {"palette": {"members": ["red"]}}, {"style": "give at least one of style and palette.name"}),
        (COLORS, {"palette": {"name": "fresh"}}, {"palette": "not allowed when style is ink; leave it out"}),
        (  # an invalid value counts as given, and is reported once
            ONE_KIND,
            {"palette": {"name": "mud", "members": ["red"]}},
            {
                "palette.name": "must be one of ember, fresh, not 'mud'",
                "palette.members": "not allowed when palette.name is given; leave it out",
            },
        ),
        (ONE_KIND, {"palette": 5}, {"palette": "must be an object with name, members, shade, not 5"}),
    ],
)
def test_rules_hold_for_the_fields_of_nested_objects(
    rule: Rule, params: dict[str, Any], expected: dict[str, str]
) -> None:
    assert problems_of(rule, **params) == expected


def test_a_rule_without_effect_warns_of_a_nested_field() -> None:
    model = operation(NoEffect("style", ("palette.shade.dark",)))
    request = model.request("acme/paint", {"prompt": "a", "palette": {"shade": {"dark": False}}})
    assert request.warnings == ("palette.shade.dark has no effect without style",)
    assert model.request("acme/paint", {"prompt": "a", "palette": {"name": "ember"}}).warnings == ()


def test_a_rule_of_the_plugin_meets_no_invalid_value_of_a_nested_object() -> None:
    class Brief:
        def problems(self, arguments: Any) -> Any:
            if len(arguments["palette"].get("members", ())) > 3 and isinstance(arguments["palette"]["name"], str):
                raise AssertionError("an invalid value came here")
            return ()

    found = problems_of(Brief(), palette={"name": 5, "members": ["a", "b", "c", "d"]})
    assert found == {"palette.name": "must be one of ember, fresh, not 5"}


FIELDS = "(the fields are prompt, style, palette)"
NAMED = "(the fields of palette are palette.name, palette.members, palette.shade)"


@pytest.mark.parametrize(
    ("rule", "name", "advice"),
    [
        (Excludes("styl", None, ("palette",)), "styl", f"; did you mean 'style'? {FIELDS}"),
        (Needs("prompt", ("nonexistent",)), "nonexistent", f" {FIELDS}"),
        (OneOf(("palette.nam", "style")), "palette.nam", f"; did you mean 'palette.name'? {NAMED}"),
        (NoEffect("style", ("style.ink",)), "style.ink", " (style has no fields)"),
    ],
)
def test_a_rule_that_names_no_field_is_a_broken_plugin(rule: Rule, name: str, advice: str) -> None:
    with pytest.raises(BrokenPlugin) as caught:
        operation(rule)
    kind = type(rule).__name__
    assert str(caught.value) == f"acme/paint: its rule {kind} names {name!r}, which is not a field{advice}"


def test_names_of_a_rule_of_the_plugin_are_checked_if_they_are_a_tuple() -> None:
    class Own:
        def __init__(self, names: object) -> None:
            self.names = names

        def problems(self, arguments: Any) -> Any:
            return ()

    operation(Own(("style", "palette.name")))
    operation(Own(lambda: ["anything"]))
    with pytest.raises(BrokenPlugin, match="its rule Own names 'styles', which is not a field"):
        operation(Own(("styles",)))


def test_a_native_count_that_names_no_field_is_a_broken_plugin() -> None:
    with pytest.raises(BrokenPlugin, match=r"native_n names 'count'; the fields are prompt, style, palette"):
        operation(native_n=("count", 4))
