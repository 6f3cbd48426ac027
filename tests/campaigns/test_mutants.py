"""The mutation campaign changes what it says, and leaves types, messages and log lines alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.campaigns import mutants
from tests.campaigns.mutants import Change, Learned, changes

SOURCE = '''
def admit(count: int = 3, *, most: "int | None" = None) -> bool:
    """Refuse more than 5."""
    _log.info("count %d", 7)
    if count > 5 and not closed:
        raise ValueError(f"at most {5} of {count + 1}")
    total.value = min(count, 4)
    forget(count)
    return True
'''


def test_each_change_is_of_one_place_and_still_parses() -> None:
    found = list(changes("a.py", SOURCE))
    assert {(change.before, change.after) for change in found} == {
        ("3", "4"),
        ("count > 5 and not closed", "(count > 5 or not closed)"),
        ("count > 5", "(count >= 5)"),
        ("5", "6"),
        ("not closed", "(closed)"),
        ('raise ValueError(f"at most {5} of {count + 1}")', "pass"),
        ("total.value = min(count, 4)", "pass"),
        ("min", "max"),
        ("4", "5"),
        ("forget(count)", "pass"),
        ("True", "False"),
    }
    for change in found:
        changed = change.apply(SOURCE.encode()).decode()
        ast.parse(changed)
        assert changed != SOURCE


CONSTANTS = """
SECONDS = 24 * 3600.0

class Limits:
    most: int = 5

def admit(count, most=3):
    return count < SECONDS + 1
"""


def test_a_constant_is_tried_with_the_tests_that_use_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text(CONSTANTS)
    learned = Learned(
        {"a.py": {2: ["imports"], 5: ["imports"], 7: ["imports"], 8: ["calls"]}}, {"imports": 1, "calls": 1}
    )
    found = {change.before: learned.of(change) for change in changes("a.py", CONSTANTS)}
    assert found["24"] == found["3600.0"] == ["calls", "imports"]
    assert sorted(found["3"]) == ["calls", "imports"]
    assert found["1"] == ["calls"]


def test_each_file_of_tests_has_its_turn() -> None:
    """Hundreds of quick tests of one kind do not keep out the one of another file that would notice."""
    seconds = {"tests/core/a.py::slow": 9.0, "tests/core/a.py::quick": 0.1, "tests/b.py::1": 1.0, "tests/b.py::2": 0.2}
    learned = Learned({"core/impasto/a.py": {1: list(seconds)}}, {**seconds, "tests/c.py::1": 0.0})
    change = Change("core/impasto/a.py", 1, 0, 1, "a", "b")
    assert learned.of(change) == ["tests/core/a.py::quick", "tests/core/a.py::slow", "tests/b.py::2", "tests/b.py::1"]
    learned = Learned({"core/impasto/a.py": {1: ["b::1", "b::2", "c::1"]}}, {"b::1": 1.0, "b::2": 2.0, "c::1": 3.0})
    assert learned.of(change) == ["b::1", "c::1", "b::2"]
