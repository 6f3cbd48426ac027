"""A manifest's lines: every one is a JSON object as its standard has it, or is told what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from impasto import ManifestError, Registry
from impasto_plugins.batch.manifest import reader as module
from impasto_plugins.batch.manifest.reader import Manifest, parse_line
from impasto_plugins.batch.manifest.records import UnreadableLine


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": ', "is invalid JSON"),
        ("{}}", "has text after its JSON object"),
        ('{"id": "a"} {"id": "b"}', "has text after its JSON object"),
        ("[1]", "must be a JSON object, not a list"),
        ('"a"', "must be a JSON object, not text"),
        ("7", "must be a JSON object, not a number"),
        ("true", "must be a JSON object, not true or false"),
        ("null", "must be a JSON object, not null"),
        ('{"seed": NaN}', "contains NaN, which is not valid JSON"),
        ('{"seed": -Infinity}', "contains -Infinity, which is not valid JSON"),
        ('{"id": "a", "id": "b"}', "gives 'id' twice"),
        ('{"id":"a","id" :"b"}', "gives 'id' twice"),
        ('{"id":"a","id"\t:"b"}', "gives 'id' twice"),
        ('{"id":"a","id"\r:"b"}', "gives 'id' twice"),
        ('{"id": "a", "body": {"n": 1, "n": 2}}', "gives 'n' twice"),
        ('{"\\u0069d": 1, "id": 2}', "gives 'id' twice"),
        ('{"seed": ' + "9" * 5000 + "}", "contains a number with too many digits"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"a":' * 100_000, "is nested too deeply"),
    ],
)
def test_b50_a_line_that_is_none(line: str, message: str) -> None:
    found = parse_line(line.encode())
    assert isinstance(found, UnreadableLine)
    assert message in found.reason
    assert len(found.reason) < 200


def test_b50_bytes_that_are_no_text() -> None:
    assert parse_line(b'{"id": "\xff"}') == UnreadableLine("is not UTF-8 text")
    assert isinstance(parse_line('{"id": "a"}'.encode("utf-16")), UnreadableLine)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_every_sound_object_is_read(value: dict[str, object], ascii: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent).replace("\n", "\r")
    try:
        line = text.encode()
    except UnicodeEncodeError:
        return
    assert parse_line(line + b"\n") == value


def read(path: Path) -> list[tuple[int, object]]:
    return [(number, value) for number, value, _ in Manifest(path, Registry().operation).rows()]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_b50_blank_lines_line_ends_and_marks(tmp_path: Path, ends: str, last: bool, bom: str) -> None:
    path = tmp_path / "m.jsonl"
    text = bom + ends.join(['{"id": "a"}', "", "  \t", '{"id": "b"}']) + (ends if last else "")
    path.write_bytes(text.encode())
    assert read(path) == [(1, {"id": "a"}), (4, {"id": "b"})]


def test_b50_a_line_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", 100)
    path = tmp_path / "m.jsonl"
    long = json.dumps({"id": "a" * 1000})
    path.write_text("\n".join([long, '{"id": "b"}', '{"id": "' + "c" * 89 + '"}', long]))
    (_, first), (_, second), (_, third), (_, last) = read(path)
    assert first == last == UnreadableLine("is longer than 100 bytes")
    assert (second, third) == ({"id": "b"}, {"id": "c" * 89})


@pytest.mark.parametrize("what", ["missing", "a folder"])
def test_b53_a_manifest_that_can_not_be_read(tmp_path: Path, what: str) -> None:
    path = tmp_path if what == "a folder" else tmp_path / "none.jsonl"
    with pytest.raises(ManifestError, match="can't read the manifest"):
        read(path)
