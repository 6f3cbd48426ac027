"""Rules between fields: what each says, both ways, and that it says itself in words."""

from __future__ import annotations

from typing import Any

import pytest

from impasto import rules
from impasto.rules import Excludes, Needs, NoEffect, OneOf, Rule
from impasto_plugins.stability import rules as stability_rules
from impasto_plugins.stability.rules import NeedsOneOf, OneNonZero

CASES: list[tuple[Rule, str, list[dict[str, Any]], dict[str, dict[str, Any]]]] = [
    (
        Needs("image", ("strength", "mode")),
        "strength and mode: required when image is given",
        [{}, {"strength": 1}, {"image": 1, "strength": 0, "mode": "x"}],
        {"strength": {"image": 1, "mode": "x"}, "mode": {"image": 1, "strength": 0}},
    ),
    (
        Needs("mode", ("image",), "to-image"),
        "image: required when mode is to-image",
        [{}, {"mode": "other"}, {"mode": "to-image", "image": b""}],
        {"image": {"mode": "to-image"}},
    ),
    (
        Excludes("mode", "to-image", ("ratio",)),
        "ratio: not allowed when mode is to-image",
        [{}, {"ratio": 1}, {"mode": "other", "ratio": 1}, {"mode": "to-image"}],
        {"ratio": {"mode": "to-image", "ratio": 0}},
    ),
    (
        Excludes("mode", "text", ("image",), by_default=True),
        "image: not allowed when mode is text",
        [{}, {"mode": "text"}, {"mode": "other", "image": 1}],
        {"image": {"image": 0}},
    ),
    (
        OneOf(("a", "b")),
        "at least one of a, b",
        [{"a": ""}, {"b": 0}, {"a": 1, "b": 1}],
        {"a": {}},
    ),
    (
        NeedsOneOf("power", ("lamp", "sun")),
        "power: only with lamp or sun",
        [{}, {"lamp": 1}, {"power": 0, "lamp": 1}, {"power": 1, "sun": 0}],
        {"power": {"power": 0}},
    ),
    (
        OneNonZero(("left", "right")),
        "at least one of left, right above 0",
        [{"left": 1}, {"left": 0, "right": 2}],
        {"left": {"left": 0, "right": 0}},
    ),
    (
        NoEffect("image", ("strength",)),
        "strength: no effect without image",
        [{}, {"strength": 1}, {"image": b"", "strength": 1}],
        {},
    ),
]


@pytest.mark.parametrize(("rule", "words", "valid", "broken"), CASES, ids=lambda v: type(v).__name__)
def test_a_rule(rule: Rule, words: str, valid: list[dict[str, Any]], broken: dict[str, dict[str, Any]]) -> None:
    assert str(rule) == words
    for value in valid:
        assert list(rule.problems(value)) == []
    for field, value in broken.items():
        assert [problem.field for problem in rule.problems(value)] == [field]


def test_a_field_without_effect_is_reported_and_not_refused() -> None:
    rule = NoEffect("image", ("strength",))
    assert list(rule.warnings({"strength": 0})) == ["strength has no effect without image"]
    assert list(rule.warnings({"strength": 0, "image": b""})) == list(rule.warnings({})) == []


def test_every_rule_is_tested() -> None:
    names = {**vars(rules), **vars(stability_rules)}
    result = {name for name, value in names.items() if hasattr(value, "problems") and name != "Rule"}
    assert result == {type(rule).__name__ for rule, *_ in CASES}


def test_a_field_may_exclude_others_whatever_its_value() -> None:
    rule = Excludes("image", None, ("moderation",))
    assert list(rule.problems({"moderation": "low"})) == []
    assert list(rule.problems({"image": b"", "size": "auto"})) == []
    [problem] = rule.problems({"image": b"", "moderation": "low"})
    assert str(problem) == "moderation: not allowed when image is given; leave it out"
    assert str(rule) == "moderation: not allowed when image is given"
