"""What one run of the suite tells the mutation campaign: which tests reach which lines, and how long each takes.

With ``-p tests.campaigns.reach`` pytest writes what it ran to MUTANTS_TIMES.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import attrs
import pytest

from tests.campaigns.changes import Change

ROOT = Path(__file__).parents[2]

MOST_TESTS = 240
"""Tests that are run for one change: those of its own folder first, and of each file the quickest first."""

TEST_SECONDS = 20


@attrs.frozen
class Reach:
    """The tests that reach each line, and the seconds that each test takes. ``failed`` ones are not used."""

    tests: Mapping[str, Mapping[int, Sequence[str]]]
    seconds: Mapping[str, float]
    failed: frozenset[str] = frozenset()

    def of(self, change: Change, collected: frozenset[str] | None = None) -> list[str]:
        """Return the tests for a change: those of its own folder first, a test of each file in turn.

        One test at random reaches what runs as a module is imported: instead those that use the constant come first,
        then those that reach anything else of the module. Tests of the package that were ``collected`` and are newer
        than what was learned come before all others.
        """
        near, far = {(change.path, change.line)}, set[tuple[str, int]]()
        if change.constant is not None:
            near = set(_uses(change.constant, self.tests)) - near
            far = {(change.path, line) for line in self.tests.get(change.path, {})}
        first, others = self._reach(near), self._reach(far)
        own = own_tests(change.path)
        new = (
            {test for test in collected or () if test.startswith(package_tests(own))}
            - self.seconds.keys()
            - self.failed
        )
        nth: Counter[str] = Counter()
        ranks: dict[str, tuple[bool, bool, bool, int]] = {}
        for test in sorted(first | others | new, key=lambda test: self.seconds.get(test, 0.0)):
            file = test.partition("::")[0]
            ranks[test] = (test not in new, test not in first, not test.startswith(own), nth[file])
            nth[file] += 1
        return sorted((test for test in ranks if collected is None or test in collected), key=ranks.__getitem__)[
            :MOST_TESTS
        ]

    def at_import(self, change: Change) -> bool:
        """Return True if the changed line runs before the first test does."""
        return "" in self.tests.get(change.path, {}).get(change.line, ())

    def _reach(self, lines: Iterable[tuple[str, int]]) -> set[str]:
        return self.seconds.keys() & {test for path, line in lines for test in self.tests.get(path, {}).get(line, ())}


def own_tests(path: str) -> str:
    """Return the folder of the tests of a file of the product."""
    own = str(Path(path).parent).replace("plugins/impasto_plugins", "tests/plugins")
    return own.replace("core/impasto", "tests/core") + "/"


def package_tests(folder: str) -> str:
    """Return the folder of a whole package's tests: ``tests/core`` or ``tests/plugins/<plugin>``."""
    return "/".join(Path(folder).parts[: 2 if folder.startswith("tests/core") else 3]) + "/"


def _uses(constant: str, paths: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield the lines that name a constant."""
    name = re.compile(rf"\b{constant}\b")
    for path in paths if constant else ():
        if (file := ROOT / path).is_file():
            lines = enumerate(file.read_text("utf-8").splitlines(), 1)
            yield from ((path, number) for number, line in lines if name.search(line))


class Timer:
    """A pytest plugin that writes a line for each test: its id, if it passed, and its seconds."""

    def __init__(self, path: str) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            with open(self._path, "a") as file:
                file.write(json.dumps([report.nodeid, report.passed, report.duration]) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Register the timer, and let the processes that tests start measure coverage too, if the campaign learns."""
    if (path := os.environ.get("MUTANTS_TIMES")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Timer(path))
    if path := os.environ.get("MUTANTS_COVERAGE"):
        os.environ["COVERAGE_PROCESS_START"] = path  # from here on: pytest-cov measures this process


_PROCESSES = """
[run]
source_pkgs = impasto, impasto_plugins
parallel = true
context = ${PYTEST_CURRENT_TEST-}
"""
"""Coverage's settings for the processes that tests start: pytest names the test in their environment."""


def learn(copy: Path, folder: Path, paths: Sequence[str]) -> Reach:
    """Run the tests once with coverage by test, unless ``folder`` has that of an earlier run."""
    times, data, processes = folder / "times.jsonl", folder / "coverage", folder / "processes.ini"
    if not data.exists():
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("core", "plugins"):
            shutil.copytree(copy / name, folder / name)
        processes.write_text(_PROCESSES)
        variables = {"MUTANTS_TIMES": times, "MUTANTS_COVERAGE": processes, "COVERAGE_FILE": data}
        command = [
            str(python_of(copy)),
            "-m",
            "pytest",
            *OPTIONS,
            "--cov",
            "--cov-context=test",
            "--cov-report=",
            "--cov-append",
            "-n",
            "auto",
            *paths,
        ]
        subprocess.run(command, cwd=copy, env=ENVIRONMENT | {k: str(v) for k, v in variables.items()}, check=False)
    from coverage import CoverageData

    coverage = CoverageData(str(data))
    coverage.read()
    measured: dict[tuple[str, int], set[str]] = defaultdict(set)
    for file in coverage.measured_files():  # a process with another path measures the copy that is installed
        path = file[max(file.find("/core/impasto/"), file.find("/plugins/impasto_plugins/")) + 1 :]
        for line, contexts in coverage.contexts_by_lineno(file).items():
            measured[path, line].update(map(_test_of, contexts))
    tests: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, new, old_path, old in earlier_lines(copy, folder):
        tests[path][new] += measured[old_path, old]
    seconds = {test: seconds for test, passed, seconds in read_times(times) if passed}
    return Reach(tests, seconds, frozenset(test for test, passed, _ in read_times(times) if not passed))


@functools.cache
def _test_of(context: str) -> str:
    """Return the id of a test: "test|run" is pytest-cov's word for it, "test (call)" is pytest's."""
    return re.sub(r"(\|\w+| \(\w+\))$", "", context)


def earlier_lines(now: Path, then: Path) -> Iterator[tuple[str, int, str, int]]:
    """Yield each line of the product as it is (path, number), with the line (path, number) that it was."""
    texts: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for file in _sources(then):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            texts[line.strip()].append((str(file.relative_to(then)), number))
    for file in _sources(now):
        path = str(file.relative_to(now))
        if (then / path).is_file():
            yield from ((path, new, path, old) for old, new in moved_lines(then / path, file))
            continue
        for new, line in enumerate(file.read_text("utf-8").splitlines(), 1):  # the file was moved or split
            if len(text := texts[line.strip()]) == 1:
                yield path, new, *text[0]


def _sources(folder: Path) -> Iterator[Path]:
    for name in ("core", "plugins"):
        yield from sorted((folder / name).rglob("*.py"))


def moved_lines(then: Path, now: Path) -> Iterator[tuple[int, int]]:
    """Yield the numbers of the lines of a file as it was and as it is; a new line has those that it stands for."""
    one, other = (path.read_text("utf-8").splitlines() for path in (then, now))
    if one == other:
        yield from ((number, number) for number in range(1, len(one) + 1))
        return
    for tag, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from zip(range(a + 1, b + 1), range(c + 1, d + 1), strict=True)
        else:
            yield from ((old, new) for new in range(c + 1, d + 1) for old in range(max(a, 1), b + 1))


def read_times(times: Path) -> list[tuple[str, bool, float]]:
    return [json.loads(line) for line in times.read_text().splitlines()]


def read_failures(times: Path) -> list[str]:
    """Return the tests that failed, each once: one may fail when it is called, and again when it is torn down."""
    return list(dict.fromkeys(test for test, passed, _ in read_times(times) if not passed))


OPTIONS = ["-q", "-p", "no:cacheprovider", "-p", "tests.campaigns.reach", "--timeout", str(TEST_SECONDS)]
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


def python_of(copy: Path) -> Path:
    return copy / ".venv/bin/python"
