"""The kit's values are on the side of each limit where they claim to be."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from impasto import File, fields
from impasto.fields import Field, fields_of
from impasto.testing.boundary_values import invalid_values, valid_values
from impasto.testing.places import content_of


@attrs.frozen(kw_only=True)
class Nested:
    strength: float = fields.number(0, 1, required=True)
    word: str | None = fields.choice("a", "b")


@attrs.frozen(kw_only=True)
class Params:
    text: str | None = fields.text(1, 20)
    form: str | None = fields.text(pattern="[0-9a-f]{3}")
    whole: int | None = fields.integer(256, 1000, step=32)
    part: float | None = fields.number(0, 1)
    word: str | None = fields.choice("a", "b")
    flag: bool | None = fields.boolean()
    color: str | None = fields.color()
    words: tuple[str, ...] | None = fields.texts(4)
    forms: tuple[str, ...] | None = fields.texts(4, pattern="#[0-9a-f]{6}")
    file: Any = fields.file()
    files: tuple[File, ...] | None = fields.files(2, 3)
    nested: Nested | None = fields.group(Nested)
    parts: tuple[float, ...] | None = fields.numbers(3, lowest=0, highest=1)
    wholes: tuple[int, ...] | None = fields.numbers(whole=True)
    objects: tuple[Nested, ...] | None = fields.groups(Nested, 2)


FIELDS = fields_of(Params)
WITHOUT_VALUES = {"form", "forms", "file", "files", "wholes"}  # only the plugin knows some


@pytest.mark.parametrize(("name", "field"), FIELDS.items(), ids=FIELDS)
def test_values_are_inside_and_outside(name: str, field: Field) -> None:
    inside = list(valid_values(field))
    assert bool(inside) == (name not in WITHOUT_VALUES)
    for value in inside:
        field.check(value)
    outside = list(invalid_values(field))
    assert len(outside) > 3
    for value in outside:
        with pytest.raises(ValueError, match="."):
            field.check(value)


def test_each_limit_has_a_value_on_both_sides() -> None:
    assert {256, 992} <= set(valid_values(FIELDS["whole"]))
    assert {255, 257, 1001} <= {value for value in invalid_values(FIELDS["whole"]) if type(value) is int}
    lengths = {len(value) for value in invalid_values(FIELDS["files"]) if isinstance(value, list)}
    assert {1, 4} <= lengths
    assert {"strength": 0.0, "word": "b"} in list(valid_values(FIELDS["nested"]))


def test_a_nested_object_is_compared_as_plain_data() -> None:
    assert content_of(FIELDS["nested"], Nested(strength=0.5)) == {"strength": 0.5}
    assert content_of(FIELDS["objects"], [Nested(strength=0.5)]) == [{"strength": 0.5}]
    assert content_of(FIELDS["files"], [b"a", ("b.png", b"b")]) == [b"a", b"b"]
