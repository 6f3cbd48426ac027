"""Ids are anybody's text; names of files are safe everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from impasto import ConfigError
from impasto_plugins.batch.filenames import LONGEST_ID, Template, is_plain, safe_name, wrong_id

MODEL = "bedrock/us.stability.stable-style-transfer-v1:0"


@pytest.mark.parametrize("id", ["../x", "/etc/x", "a/b", "a\\b", "..", "."])
def test_b43_an_id_that_leads_elsewhere(id: str) -> None:
    assert "it must not contain a slash or be . or .." in (wrong_id(id) or "")


@pytest.mark.parametrize(
    "id", ["a\0", "a\nb", "a\tb", "\x1b[31m", "a\u202eb", "a\u2028b", "\ud800", "a\u200bb", "a\x7f"]
)
def test_b44_an_id_with_marks_that_nobody_sees(id: str) -> None:
    message = wrong_id(id) or ""
    assert "must not contain control characters" in message
    assert message.isprintable()
    assert message.isascii()


@pytest.mark.parametrize("id", ["a" * 256, "é" * 128, "漢" * 300, "a" * LONGEST_ID])
def test_b45_long_ids_have_short_names(id: str) -> None:
    assert wrong_id(id) is None
    assert len(safe_name(id).encode()) <= 200
    assert safe_name(id) != safe_name(id[:-1] + "b")


def test_b45_an_id_that_is_too_long() -> None:
    assert wrong_id("a" * (LONGEST_ID + 1)) == f"must have at most {LONGEST_ID} characters, not {LONGEST_ID + 1}"


@pytest.mark.parametrize(
    "id", ["CON", "con.txt", "nul.png", "a.", "a ", "-rf", "~root", "${HOME}", "%2e%2e", ".hidden", "*", "a'b", "😀"]
)
def test_b47_ids_that_mean_something_to_a_system(id: str) -> None:
    assert wrong_id(id) is None
    name = safe_name(id)
    assert name != id
    assert name[0] not in ".-~$%"
    assert not name.endswith((".", " "))
    assert name.partition(".")[0].upper() not in ("CON", "NUL")


@pytest.mark.parametrize("id", [None, "", "  ", 1, True, ["a"]])
def test_b51_what_is_no_id(id: object) -> None:
    assert wrong_id(id) is not None


def test_plain_ids_stay_as_they_are() -> None:
    for id in ("cat-1", "img_0001", "photo.v2", "A", "0"):
        assert safe_name(id) == id


@given(st.text(max_size=LONGEST_ID))
def test_every_id_is_refused_or_has_a_name_that_can_be_made(id: str) -> None:
    if wrong_id(id) is None:
        name = safe_name(id)
        assert name
        assert len(name.encode()) <= 200
        assert not {*"/\\\0\n"} & {*name}
        assert os.path.basename(name) == name
        assert name not in (".", "..")


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    if one != other:
        assert safe_name(one) != safe_name(other)


def filename(text: str, **fields: object) -> str:
    values: dict[str, object] = {"id": "a b", "index": 2, "n": 1, "model": MODEL, "seed": 7, **fields}
    return Template(text).path(**values)  # type: ignore[arg-type]  # the values of a test


def test_templates() -> None:
    assert filename("{id}", id="cat") == "cat"
    assert filename("{id}", id="cat", n=3) == "cat-2"
    assert filename("{model}/{id}_{index}", id="cat", n=3) == "us.stability.stable-style-transfer-v1-0/cat_2"
    assert filename("{seed}", seed=None) == "0"
    assert filename("shots/{seed}-{id}", id="../x") == f"shots/7-{safe_name('../x')}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{7*7}}", "not safe"),
        ("{7*7}", "not a field"),
        ("{id.__class__}", "not a field"),
        ("{id[0]}", "not a field"),
        ("{id!r}", "not a field"),
        ("{id:>9}", "not a field"),
        ("{}{id}", "not a field"),
        ("{prompt}{id}", "not a field"),
        ("%(x)s{id}", "not safe"),
        ("${HOME}{id}", "not safe"),
        ("~/{id}", "not safe"),
        ("{id", "expected '}'"),
        ("../{id}", "not a path inside"),
        ("/{id}", "not a path inside"),
        ("a//{id}", "not a path inside"),
        ("{id}/", "not a path inside"),
        (".git/{id}", "not a path inside"),
        ("-{id}", "not a path inside"),
        ("a\n{id}", "not safe"),
        ("{model}", "the same name"),
        ("", "not a path inside"),
    ],
)
def test_templates_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Template(text)
    assert "allowed are {id}, {index}, {model}, {seed}" in str(caught.value)


def test_a_template_makes_no_path_out_of_its_folder(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    for id in ("..", "a/../../b", "C:\\x", "\\\\host\\share"):
        assert (root / filename("{model}/{id}", id=id)).resolve().is_relative_to(root)


@pytest.mark.parametrize(("id", "is_safe"), [("a" * 64, True), ("a" * 100_000, False), ("é", False), ("a b", False)])
def test_only_a_short_id_of_plain_characters_is_a_name_as_it_is(id: str, is_safe: bool) -> None:
    assert is_plain(id) is is_safe
