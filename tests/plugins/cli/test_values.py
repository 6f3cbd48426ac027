"""Words become values strictly."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from impasto.fields import Field, choice, fields_of, file, integer, number, text
from impasto_plugins.cli.calls.values import value_of


@attrs.frozen(kw_only=True)
class Params:
    words: str = text(0, 100)
    style: str | None = choice("a", "b")
    whole: int | None = integer(-10, 10)
    share: float | None = number(0, 1)
    picture: Any = file()
    flag: bool = False


FIELDS = fields_of(Params)
WHOLE, SHARE = FIELDS["whole"], FIELDS["share"]


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("words", "7", "7"),
        ("words", "@file", "@file"),
        ("words", "", ""),
        ("style", "true", "true"),
        ("whole", "7", 7),
        ("whole", "-3", -3),
        ("whole", "007", 7),
        ("share", "0.5", 0.5),
        ("share", "1", 1),
        ("picture", "in.png", "in.png"),
        ("flag", "true", True),
        ("flag", "false", False),
        ("flag", "yes", "yes"),
    ],
)
def test_a_word_becomes_what_its_field_takes(name: str, word: str, value: object) -> None:
    found = value_of(FIELDS[name], word)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "word", ["", " 7", "7 ", "+7", "7.0", "0x7", "1e3", "1_000", "seven", "true", "\u0667", "--7", "7" * 30, "7\n"]
)
def test_an_invalid_whole_number_is_refused_with_its_bounds(word: str) -> None:
    with pytest.raises(ValueError, match="a whole number from -10 to 10"):
        value_of(WHOLE, word)


@pytest.mark.parametrize("word", ["", ".5", "5.", "0,5", "nan", "inf", "-inf", "1e-3", "0.5.5", "50%"])
def test_an_invalid_number_is_refused_with_its_bounds(word: str) -> None:
    with pytest.raises(ValueError, match="a number from 0 to 1"):
        value_of(SHARE, word)


@given(st.integers(-(10**19), 10**19))
def test_whole_numbers_are_read_as_they_are_written(whole: int) -> None:
    assert value_of(WHOLE, str(whole)) == whole


@given(st.decimals(-1000, 1000, places=6))
def test_numbers_are_read_as_they_are_written(share: Any) -> None:
    assert value_of(SHARE, format(share, "f")) == float(share)


@given(st.text())
def test_text_stays_as_it_is(word: str) -> None:
    assert value_of(FIELDS["words"], word) == word
    assert value_of(None, word) == word


@given(st.text(), st.sampled_from([WHOLE, SHARE]))
def test_whatever_the_word_it_is_a_number_or_refused(word: str, field: Field) -> None:
    try:
        value = value_of(field, word)
    except ValueError:
        return
    assert isinstance(value, int | float)
