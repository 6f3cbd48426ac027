"""Every field of every model that comes with impasto says what it does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from impasto import Registry
from impasto.registry import OPERATIONS
from impasto_plugins.cli.declarations import declared

_FILLERS = frozenset({"a", "an", "as", "for", "in", "its", "of", "the", "to"})


def _problems(name: str, description: str) -> Iterator[str]:
    """Return the faults of a field's description."""
    if not description:
        yield "has no description"
        return
    if not description.endswith("."):
        yield "does not end with a period"
    if len(re.findall(r"[.!?](?:\s|$)", description)) > 2:
        yield "has more than two sentences"
    if not set(re.findall(r"\w+", description.lower())) - set(name.lower().split("_")) - _FILLERS:
        yield "repeats the field's name"
    if description != description.strip() or "\n" in description or "  " in description:
        yield "has white space that readers would see"
    if re.search(r"\b(picture|told|said)\b", description):
        yield "is not in plain English"


def test_every_field_of_every_model_is_described() -> None:
    registry = Registry()
    names = [each.name for each in declared(registry, OPERATIONS) if each.distribution == "impasto"]
    assert len(names) > 70
    problems = {
        f"{model}: {name} {problem}: {field.description!r}"
        for model in names
        for name, field in registry.operation(model).fields.items()
        for problem in _problems(name, field.description)
    }
    assert problems == set()


@pytest.mark.parametrize(
    ("name", "description", "problem"),
    [
        ("seed", "", "has no description"),
        ("seed", "Start of the noise", "does not end with a period"),
        ("seed", "Start of the noise. It is random. It is reported.", "has more than two sentences"),
        ("negative_prompt", "The negative prompt.", "repeats the field's name"),
        ("seed", "Start of\nthe noise.", "has white space that readers would see"),
    ],
)
def test_a_poor_description_is_found(name: str, description: str, problem: str) -> None:
    assert list(_problems(name, description)) == [problem]


def test_a_field_of_bedrock_keeps_the_description_of_the_vendors_own() -> None:
    registry = Registry()
    direct = registry.operation("stability/inpaint").fields
    bedrock = registry.operation("bedrock/stability.stable-image-inpaint-v1:0").fields
    assert bedrock["grow_mask"].maximum != direct["grow_mask"].maximum
    assert {name: field.description for name, field in direct.items()}.items() <= {
        name: field.description for name, field in bedrock.items()
    }.items()
