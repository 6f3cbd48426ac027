"""Patterns of text fields: one that could take hours is refused before any text comes, and no text takes long."""

from __future__ import annotations

import multiprocessing
import re
import sys

import attrs
import pytest

from impasto import BrokenPlugin, InvalidRequest
from impasto.ext import structure
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
    assert longest_text(pattern, 10_000) >= 10_000


@pytest.mark.parametrize("pattern", [*SLOW, *INVALID])
def test_a_pattern_that_could_take_hours_is_refused_when_the_class_is_made(pattern: str) -> None:
    for declare in (text, texts):
        with pytest.raises(BrokenPlugin, match="could take hours to match; |is invalid: ") as caught:
            declare(pattern=pattern)
        assert (pattern in SLOW) != ("is invalid" in str(caught.value)) or "nested" in str(caught.value)


def test_the_reason_says_what_to_do() -> None:
    with pytest.raises(BrokenPlugin, match=r"repeat nothing that is repeated, or end each repeat with a character"):
        text(pattern="(a+)+")
    with pytest.raises(BrokenPlugin, match=r"on a text of 10,000 characters; give a maximum of at most 1,\d\d\d, or"):
        text(1, 10_000, pattern=r".*\.png")
    assert longest_text(r".*\.png", 1_000) >= 1_000


@attrs.frozen(kw_only=True)
class Params:
    name: str | None = text(pattern=r".*.*!")
    names: tuple[str, ...] | None = texts(pattern=r".*.*!")


def test_a_text_that_is_too_long_for_its_pattern_is_refused_before_it_is_matched() -> None:
    longest = longest_text(".*.*!", None)
    assert structure(Params, {"name": "a" * (longest - 1) + "!", "names": ["a!"] * (longest // 2)}) is not None
    with pytest.raises(InvalidRequest) as caught:
        structure(Params, {"name": "a" * longest + "!", "names": ["a!"] * (longest // 2 + 1)})
    name, names = caught.value.problems
    assert name.message == f"must match .*.*! and be text of at most {longest:,} characters, got {longest + 1:,}"
    assert f"at most {longest:,} characters in all its texts together, got " in names.message


HOSTILE = ["a", "-", "ab", "a-", "-a", "aab", "1", "a1-", "a,", "a.", "x", "foo", " a"]


def match_hostile_texts(patterns: list[str]) -> None:
    for pattern in patterns:
        for unit in HOSTILE:
            re.fullmatch(pattern, (unit * 10_000)[: min(longest_text(pattern, None), 10_000) - 1] + "!")


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
