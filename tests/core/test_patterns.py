"""Patterns of text fields: those that could take hours are refused before any text is matched."""

from __future__ import annotations

import multiprocessing
import re
import sys

import pytest

from impasto import BrokenPlugin
from impasto.fields import text, texts
from impasto.patterns import longest_text

USUAL = [
    "",
    "[a-z ]+",
    "#[0-9a-f]{6}",
    r"\d+x\d+",
    r"(auto|\d{1,5}x\d{1,5})",
    r"https://[^/]+/[^?]*(\?.*)?",
    "[a-z0-9]+(?:-[a-z0-9]+)*",
    r"(?P<first>\w+)(,\w+)*",
    r"\S+( \S+)*",
    "(?i)[a-z]+(-[a-z]+)*",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r"\d{1,3}(\.\d{1,3}){3}",
    r"^-?\d+(\.\d+)?$",
    "(foo|bar)+",
    "(?:a|b|c)*",
    r"data:[^,]*,[A-Za-z0-9+/]*={0,2}",
    r"[a-z]{2}(-[A-Z]{2})?",
    r"\d*(([A-Z]?),)*",
    "a{2}(?#a comment){",
]
SLOW = [
    "(a+)+",
    "(a*)*",
    "(a|a)*b",
    "(a|ab)*c",
    "(a|b|ab)*c",
    "(a?)*b",
    "(x+x+)+y",
    "([a-z]+)*[0-9]",
    "(?=(a+)+b)a",
    "(?:(?:a+)+)+",
    "(a{1,30}){1,30}",
    "(a+){10}",
    "(.*)(.*)(.*)(.*)(.*)x",
    r"(a*)(\1*)(\1*)(\1*)(\1*)b",
    "(?x) a +",
    "(" * 60 + "a" + ")" * 60,
]
INVALID = ["(", "[a", "a**", r"\p", "a{9999999999999999999999}"]


@pytest.mark.parametrize("pattern", USUAL)
def test_a_usual_pattern_takes_long_texts(pattern: str) -> None:
    assert longest_text(pattern) >= 10_000


@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_could_take_hours_is_found(pattern: str) -> None:
    assert longest_text(pattern) == 0


def test_a_pattern_whose_time_grows_with_the_square_takes_short_texts() -> None:
    assert 1_000 <= longest_text(r".*\.png") < 10_000


@pytest.mark.parametrize("pattern", INVALID)
def test_an_invalid_pattern_is_refused_when_the_class_is_made(pattern: str) -> None:
    for declare in (text, texts):
        with pytest.raises(BrokenPlugin, match="of a text field is invalid: "):
            declare(pattern=pattern)


@pytest.mark.parametrize(
    ("pattern", "maximum", "message"),
    [
        ("(a+)+", 100, r"the pattern '\(a\+\)\+' of a text field could take hours to match; repeat nothing"),
        (r".*\.png", None, r"could take long to match; give the field a maximum of at most 1,\d\d\d, or"),
        (r".*\.png", 10_000, "could take long to match; give the field a maximum"),
    ],
)
def test_a_pattern_that_takes_long_is_refused_when_the_class_is_made(
    pattern: str, maximum: int | None, message: str
) -> None:
    with pytest.raises(BrokenPlugin, match=message):
        text(0, maximum, pattern=pattern)
    with pytest.raises(BrokenPlugin, match="could take"):
        texts(pattern=pattern)


@pytest.mark.parametrize("pattern", USUAL)
def test_a_usual_pattern_is_taken(pattern: str) -> None:
    text(pattern=pattern)
    text(0, 1_000, pattern=r".*\.png")


HOSTILE = ["a", "-", "ab", "a-", "-a", "aab", "1", "a1-", "a,", "a.", "x", "foo", " a"]


def match_hostile_texts(patterns: list[str]) -> None:
    for pattern in patterns:
        for unit in HOSTILE:
            re.fullmatch(pattern, (unit * 10_000)[: min(longest_text(pattern), 10_000) - 1] + "!")


def test_no_pattern_that_is_taken_blocks_the_process() -> None:
    """In a process of its own: a match that takes hours can't be ended otherwise."""
    patterns = [*USUAL, r".*\.png", ".*.*=.*", r"\w*\w*\w*!", r"(\w+,)*\w+", r"(a)(\1)*b", "a?" * 8 + "a" * 8]
    process = multiprocessing.get_context("spawn").Process(target=match_hostile_texts, args=(patterns,))
    process.start()
    process.join(60)
    alive = process.is_alive()
    process.kill()
    process.join()
    assert not alive
    assert process.exitcode == 0, sys.version
