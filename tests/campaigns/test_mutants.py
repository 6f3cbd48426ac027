"""The mutation campaign changes what it says, and leaves types, messages and log lines alone."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

from tests.campaigns import reach as module
from tests.campaigns.changes import Change, changes
from tests.campaigns.forks import Forks, changed_functions, is_in_functions
from tests.campaigns.reach import Reach

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
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text(CONSTANTS)
    reach = Reach({"a.py": {2: ["imports"], 5: ["imports"], 7: ["imports"], 8: ["calls"]}}, {"imports": 1, "calls": 1})
    found = {change.before: reach.of(change) for change in changes("a.py", CONSTANTS)}
    assert found["24"] == found["3600.0"] == ["calls", "imports"]
    assert sorted(found["3"]) == ["calls", "imports"]
    assert found["1"] == ["calls"]


def test_each_file_of_tests_has_its_turn() -> None:
    """Hundreds of quick tests of one kind do not keep out the one of another file that would notice."""
    seconds = {"tests/core/a.py::slow": 9.0, "tests/core/a.py::quick": 0.1, "tests/b.py::1": 1.0, "tests/b.py::2": 0.2}
    reach = Reach({"core/impasto/a.py": {1: list(seconds)}}, {**seconds, "tests/c.py::1": 0.0})
    change = Change("core/impasto/a.py", 1, 0, 1, "a", "b")
    assert reach.of(change) == ["tests/core/a.py::quick", "tests/core/a.py::slow", "tests/b.py::2", "tests/b.py::1"]
    reach = Reach({"core/impasto/a.py": {1: ["b::1", "b::2", "c::1"]}}, {"b::1": 1.0, "b::2": 2.0, "c::1": 3.0})
    assert reach.of(change) == ["b::1", "c::1", "b::2"]


def test_tests_newer_than_what_was_learned_come_first_and_those_that_are_gone_not_at_all() -> None:
    reach = Reach({"core/impasto/a.py": {1: ["a::1", "a::2"]}}, {"a::1": 1.0, "a::2": 1.0}, frozenset({"a::bad"}))
    change = Change("core/impasto/a.py", 1, 0, 1, "a", "b")
    collected = frozenset({"a::2", "a::bad", "tests/core/b.py::new", "tests/plugins/c.py::new"})
    assert reach.of(change, collected) == ["tests/core/b.py::new", "a::2"]


def test_a_test_that_fails_twice_is_run_once_without_the_change(tmp_path: Path) -> None:
    """Twice in one run it would fail in any case, and be left out."""
    (tmp_path / "times").write_text('["a", true, 0.1]\n["b", false, 0.1]\n["b", false, 0.2]\n')
    assert module.read_failures(tmp_path / "times") == ["b"]


def test_lines_that_moved_since_they_were_learned_are_found(tmp_path: Path) -> None:
    then, now = tmp_path / "then.py", tmp_path / "now.py"
    then.write_text("import a\none()\ntwo()\nthree()\n")
    now.write_text("import a\nimport b\none()\n2()\nthree()\n")
    assert list(module.moved_lines(then, now)) == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 4), (4, 5)]


def test_lines_of_a_file_that_was_split_are_found_in_the_old_one(tmp_path: Path) -> None:
    for folder, file, text in (
        ("then", "a.py", "one()\ntwo()\nsame()\nsame()\n"),
        ("now", "b.py", "two()\nsame()\n"),
        ("now", "a.py", "one()\n"),
    ):
        path = tmp_path / folder / "core" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    lines = list(module.earlier_lines(tmp_path / "now", tmp_path / "then"))
    assert lines == [("core/a.py", 1, "core/a.py", 1), ("core/b.py", 1, "core/a.py", 2)]


def test_a_change_leaves_the_other_lines_where_they_were() -> None:
    source = "one(\n    1,\n)\nx = (a\n    or b)\ny = 2\n"
    for change in changes("a.py", source):
        changed = change.apply(source.encode()).decode()
        assert changed.count("\n") == source.count("\n")
        ast.parse(changed)


PRODUCT = """
LIMIT = 3

def admit(count, most=LIMIT):
    def inner():
        return [each for each in range(count) if each < most]
    return inner()

class Gate:
    width = 2

    @property
    def is_open(self):
        return self.width > 1

    def late(self):
        return (lambda: self.width)()
"""


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("each < most", "each <= most", {"admit", "admit.<locals>.inner"}),
        ("> 1", "> 2", {"Gate.is_open"}),
        ("(lambda: self.width)()", "None", None),  # has other functions in it
        ("LIMIT = 3", "LIMIT = 4", None),
        ("most=LIMIT", "most=7", None),
        ("width = 2", "width = 3", None),
    ],
)
def test_only_what_functions_contain_is_changed_in_a_fork(old: str, new: str, names: set[str] | None) -> None:
    after = PRODUCT.replace(old, new)
    assert is_in_functions(PRODUCT.encode(), after.encode()) == (names is not None)
    if names is not None:
        assert {name for name, _ in changed_functions(PRODUCT, after, "a.py")} == names


TESTS = """
import os, product, subprocess, sys

@product.twice
def double(): return product.one()

def test_method(): assert product.Gate().is_open
def test_closure(): assert double() == 2
def test_process():
    subprocess.run([sys.executable, "-c", "import product; assert product.one() == 1"], check=True)
def test_hangs():
    while not product.Gate().is_open: pass
"""


def test_a_fork_runs_the_changed_functions_and_leaves_the_next_one_untouched(tmp_path: Path) -> None:
    """Methods, closures that exist already, and processes that a test starts; a fork that hangs is killed."""
    file, source = tmp_path / "product.py", (
        "def twice(function):\n    return lambda: function() * 2\ndef one():\n    return 1\n"
        "class Gate:\n    @property\n    def is_open(self):\n        return True\n"
    )  # fmt: skip
    file.write_text(source)
    (tmp_path / "test_product.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text("import gc\ndef pytest_collection_finish():\n    gc.freeze()\n")  # as ours
    (tmp_path / "pytest.ini").touch()
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    forks = Forks(Path(sys.executable), options, tmp_path, {**os.environ, "PYTHONPATH": f"{tmp_path}:{module.ROOT}"})
    try:
        every = sorted(forks.tests)
        assert [test.partition("::")[2] for test in every] == [
            "test_closure",
            "test_hangs",
            "test_method",
            "test_process",
        ]

        def run(old: str, new: str, test: str) -> int:
            file.write_text(source.replace(old, new))
            return forks.run([f"test_product.py::{test}"], file, source, 0.5 if test == "test_hangs" else 60)

        assert run("", "", "test_process") == 0
        assert run("True", "False", "test_method") == 1
        assert run("True", "False", "test_closure") == 0
        assert run("* 2", "* 3", "test_closure") == 1
        assert run("return 1", "return 4", "test_process") == 1
        assert run("True", "False", "test_hangs") == -9
        file.write_text(source)
        assert forks.run(every, file, source, 60) == 0
    finally:
        forks.close()
