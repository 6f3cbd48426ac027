"""Values and bounds in words, and fields that follow from types alone."""

from __future__ import annotations

from typing import Any, Literal

import attrs
import pytest

from impasto import File
from impasto.fields import Field, choice, fields_of, file, format_bound, format_value, integer, number, text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10**20 - 1, str(10**20 - 1)),
        (10**20, "a far larger number"),
        (-(10**20), "a far larger number"),
        (True, "true"),
        (None, "null"),
        ("x" * 58, repr("x" * 58)),
        ("x" * 59, "'" + "x" * 56 + "..."),
        (b"secret", "bytes"),
        (["secret"], "a list"),
    ],
)
def test_a_value_is_shown_short_and_a_files_content_never(value: object, message: str) -> None:
    assert format_value(value) == message
    assert len(format_value(value)) <= 60


@pytest.mark.parametrize(
    ("number", "message"),
    [(None, "any"), (0.35, "0.35"), (4_294_967_294, "4294967294"), (1.0, "1"), (0, "0"), (-2.5, "-2.5")],
)
def test_a_bound_in_words(number: float | None, message: str) -> None:
    assert format_bound(number) == message


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (Field(kind="text"), "text"),
        (Field(kind="text", minimum=1), "text of at least 1 character"),
        (Field(kind="text", minimum=1, maximum=10_000), "text of 1 to 10,000 characters"),
        (Field(kind="text", maximum=5), "text of 0 to 5 characters"),
        (Field(kind="text", minimum=1, maximum=1), "text of exactly 1 character"),
        (Field(kind="text", minimum=64, maximum=64), "text of exactly 64 characters"),
        (Field(kind="integer"), "a whole number"),
        (Field(kind="integer", minimum=0), "a whole number of at least 0"),
        (Field(kind="number", maximum=1.5), "a number of at most 1.5"),
        (Field(kind="file"), "a file: PNG, JPEG or WebP"),
        (Field(kind="file", role="audio"), "a file"),
        (Field(kind="file", limits="a PNG"), "a file: a PNG"),
        (Field(kind="other", limits="dict"), "dict"),
        (Field(kind="choice", choices=("a", "b")), "one of a, b"),
    ],
)
def test_a_constraint_in_words(field: Field, message: str) -> None:
    assert field.describe_constraint() == message


def test_blank_text_is_text_where_no_least_length_is_asked_for() -> None:
    assert Field(kind="text").check(" ") == " "
    with pytest.raises(ValueError, match="must not be blank"):
        Field(kind="text", minimum=1).check(" ")


def test_minus_zero_is_zero() -> None:
    assert str(Field(kind="number").check(-0.0)) == "0.0"


def test_a_files_owner_gets_it_back_if_it_is_refused() -> None:
    closed: list[bool] = []

    def inspect(file: File) -> list[str]:
        return ["too wide", "too high"]

    file = File(label="f", size=1, media_type="image/png", opener=lambda: None, closer=lambda: closed.append(True))  # type: ignore[arg-type, return-value]  # never opened
    copy = attrs.evolve(file)
    with pytest.raises(ValueError, match="too wide; too high"):
        Field(kind="file", inspect=inspect).check(copy)
    assert closed == [], "whoever made it closes it"


@attrs.frozen(kw_only=True)
class Plain:
    name: str
    size: int = 5
    share: float | None = None
    word: Literal["a", "b"] = "a"
    either: str | None = None
    image: File | None = None
    switch: bool = False
    mixed: int | str | None = None
    numbers: Literal[1, 2] = 1


def test_fields_follow_from_types() -> None:
    fields = fields_of(Plain)
    kinds = {name: (field.kind, field.required, field.default) for name, field in fields.items()}
    expected: dict[str, Any] = {
        "name": ("text", True, None),
        "size": ("integer", False, 5),
        "share": ("number", False, None),
        "word": ("choice", False, "a"),
        "either": ("text", False, None),
        "image": ("file", False, None),
        "switch": ("other", False, False),
        "mixed": ("other", False, None),
        "numbers": ("other", False, 1),
    }
    assert kinds == expected
    assert fields["word"].choices == ("a", "b")
    assert fields["switch"].limits == "bool"


def test_every_function_takes_a_description() -> None:
    @attrs.frozen(kw_only=True)
    class Params:
        name: str = text(description="The name.")
        count: int | None = integer(description="The count.")
        weight: float | None = number(description="The weight.")
        shape: str | None = choice("round", description="The shape.")
        image: File | None = file(description="The image.")
        plain: str | None = None

    found = {name: field.description for name, field in fields_of(Params).items()}
    assert found == {name: f"The {name}." if name != "plain" else "" for name in found}
