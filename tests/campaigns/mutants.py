"""Change the product one place at a time, and count the changes that no test notices.

``python -m tests.campaigns.mutants --sample 40 --seed 1`` runs the suite once to learn which tests reach which lines,
then takes a random sample of changes of each package (a comparison, a bound, a dropped statement, ...) and runs the
tests that reach each of them, and the tests of its package that are newer than what was learned. It prints the share
that was noticed for each package, and every change that was not: those are tests to write, or changes that alter
nothing a user could notice. ``--coverage DIR`` keeps and reuses what the first run learned, ``--tests PATH`` limits it
to some tests, and ``--only PATH`` limits the sample.

It works on a copy of the tree. A change within functions is tried in a fork of a process that has collected the tests
(see ``forks``), any other in a new process, as is one that the forks missed and that runs as modules are imported.
A test that hangs fails at its time limit; a change whose tests take too long in all, or fail without it too, is listed
and not counted.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import attrs
import pytest

from tests.campaigns.forks import Forks, is_in_functions, kill_group

ROOT = Path(__file__).parents[2]
TREE = ("core", "plugins", "tests", "docs", "examples", "benchmarks", "pyproject.toml", "README.md", "CONTRIBUTING.md")
PLUGINS = "plugins/impasto_plugins/"
PACKAGES = {
    "core": ("core/impasto/*.py",),
    "transports": (f"{PLUGINS}transports/*.py",),
    "retry and rate": (f"{PLUGINS}middleware/*.py",),
    "stability": (
        f"{PLUGINS}stability/*refusals.py",
        f"{PLUGINS}stability/answers.py",
        f"{PLUGINS}stability/direct.py",
    ),
    "batch": (f"{PLUGINS}batch/*.py", f"{PLUGINS}batch/ledger/*.py", f"{PLUGINS}batch/runner/*.py"),
    "gateway": (f"{PLUGINS}gateway/calls/*.py", f"{PLUGINS}gateway/idempotency/*.py", f"{PLUGINS}gateway/errors.py"),
    "drop-in": (f"{PLUGINS}openai_compat/*.py",),
}
"""The paths on which money depends."""

MOST_TESTS = 240
"""Tests that are run for one change: those of its own folder first, and of each file the quickest first."""

TEST_SECONDS = 30
CHANGE_SECONDS = 240
_KILLED = -9

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@attrs.frozen
class Change:
    """One place of a file, and the text that replaces it. ``start`` and ``end`` are offsets in bytes."""

    path: str
    line: int
    start: int
    end: int
    before: str
    after: str
    constant: str | None = None
    """What is changed where modules are imported, which one test at random does: a constant's name, or ``""``."""

    def apply(self, source: bytes) -> bytes:
        """Return the file's source with the change in it, and every other line where it was."""
        lines = "\n" * self.before.count("\n")
        after = f"{self.after[:-1]}{lines})" if self.after.endswith(")") else self.after + lines
        return source[: self.start] + after.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before!r} -> {self.after!r}"


def changes(path: str, source: str) -> Iterator[Change]:
    """Yield every change of a file."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    data = source.encode()
    constants = dict(_constants(tree))
    for node, after in _replacements(tree):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        before = data[start:end].decode()
        yield Change(path, node.lineno, start, end, before, after, constants.get(node.lineno))


def _constants(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the lines that run as the module is imported, each with the name that is assigned there, or ``""``."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():  # its default values
                yield from ((line, "") for line in range(node.lineno, node.body[0].lineno))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                assert node.end_lineno is not None
                yield from ((line, name) for line in range(node.lineno, node.end_lineno + 1))
            case ast.stmt():
                yield node.lineno, ""
                yield from _constants(node)
            case _:
                pass


def _replacements(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    skipped = {id(below) for node in _passed_over(tree) for below in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                yield node, f"({ast.unparse(ast.Compare(left, [_COMPARE[type(op)]()], [right]))})"
            case ast.BoolOp(op=op, values=values):
                other = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield node, f"({ast.unparse(ast.BoolOp(other, values))})"
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield node, f"({ast.unparse(operand)})"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC and not _is_text(left, right):
                yield node, f"({ast.unparse(ast.BinOp(left, _ARITHMETIC[type(op)](), right))})"
            case ast.Constant(value=bool() as value):
                yield node, str(not value)
            case ast.Constant(value=int() | float() as value):
                yield node, repr(value + 1)
            case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
                yield node.func, _NAMES[name]
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise():
                yield node, "pass"
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield node, "pass"
            case _:
                pass


def _passed_over(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what no test should pin down: types, log lines, how a thing shows itself, the texts of messages."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.If(test=ast.Name(id="TYPE_CHECKING"))
                | ast.If(test=ast.UnaryOp(operand=ast.Name(id="TYPE_CHECKING")))
            ):
                yield node
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=ast.expr() as annotation):
                yield annotation
            case ast.FunctionDef(name="__repr__" | "__str__" | "__dir__"):
                yield node
            case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
                yield from decorators
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="_log")))):
                yield node
            case ast.JoinedStr() | ast.Assert():
                yield node
            case _:
                pass


def _is_text(*nodes: ast.expr) -> bool:
    return any(isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str) for node in nodes)


@attrs.frozen
class Learned:
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
        new = {test for test in collected or () if test.startswith(_package(own))} - self.seconds.keys() - self.failed
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


def _package(folder: str) -> str:
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


def learn(copy: Path, folder: Path, paths: Sequence[str]) -> Learned:
    """Run the tests once with coverage by test, unless ``folder`` has that of an earlier run."""
    times, data, processes = folder / "times.jsonl", folder / "coverage", folder / "processes.ini"
    if not data.exists():
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("core", "plugins"):
            shutil.copytree(copy / name, folder / name)
        processes.write_text(_PROCESSES)
        environment = {"MUTANTS_TIMES": times, "MUTANTS_COVERAGE": processes, "COVERAGE_FILE": data}
        command = [*_PYTEST, "--cov", "--cov-context=test", "--cov-report=", "--cov-append", "-n", "auto", *paths]
        subprocess.run(
            command, cwd=copy, env={**_environment(copy), **{k: str(v) for k, v in environment.items()}}, check=False
        )
    from coverage import CoverageData

    coverage = CoverageData(str(data))
    coverage.read()
    tests: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in coverage.measured_files():
        path = file[max(file.find("/core/impasto/"), file.find("/plugins/impasto_plugins/")) + 1 :]
        contexts = coverage.contexts_by_lineno(file)
        for then, now in _moved(folder / path, copy / path):
            # "test|run" is pytest-cov's, "test (call)" is pytest's
            tests[path][now] += {re.sub(r"(\|\w+| \(\w+\))$", "", name) for name in contexts.get(then, ())}
    seconds = {test: seconds for test, passed, seconds in _read(times) if passed}
    return Learned(tests, seconds, frozenset(test for test, passed, _ in _read(times) if not passed))


def _moved(then: Path, now: Path) -> Iterator[tuple[int, int]]:
    """Yield the numbers of the lines of a file as it was and as it is; a new line has those that it stands for."""
    if not then.is_file() or not now.is_file():
        return
    one, other = (path.read_text("utf-8").splitlines() for path in (then, now))
    for tag, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from zip(range(a + 1, b + 1), range(c + 1, d + 1), strict=True)
        else:
            yield from ((old, new) for new in range(c + 1, d + 1) for old in range(max(a, 1), b + 1))


def _read(times: Path) -> list[tuple[str, bool, float]]:
    return [json.loads(line) for line in times.read_text().splitlines()]


_OPTIONS = ["-q", "-p", "no:cacheprovider", "-p", "tests.campaigns.mutants", "--timeout", str(TEST_SECONDS)]
_PYTEST = [sys.executable, "-m", "pytest", *_OPTIONS]


def _environment(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{copy / 'core'}:{copy / 'plugins'}", "PYTHONDONTWRITEBYTECODE": "1"}


class Job:
    """A copy of the tree, and a process that has collected its tests."""

    def __init__(self, copy: Path, files: Iterable[str]) -> None:
        self._copy = copy
        self._times = copy / "times.jsonl"
        self._environment = {**_environment(copy), "MUTANTS_TIMES": str(self._times)}
        self._forks = Forks([*_OPTIONS, *files], copy, self._environment)
        self.tests = self._forks.tests

    def run(self, change: Change, tests: Sequence[str], at_import: bool = False) -> str:
        """Run the tests on a changed copy.

        Return ``noticed``, ``missed``, ``not reached``, ``unsure`` if the test fails unchanged too, or ``out of time``.
        """
        if not tests:
            return "not reached"
        file = self._copy / change.path
        before, stat = file.read_bytes(), file.stat()
        after = change.apply(before)
        self._times.write_text("")
        try:
            file.write_bytes(after)
            code = self._fork(tests, file, before.decode()) if is_in_functions(before, after) else None
            if code is None or (code == 0 and at_import):
                code = self._new_process(tests)
        finally:
            file.write_bytes(before)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its bytecode is as old
        if code in (0, _KILLED):
            return "out of time" if code else "missed"
        failures = [test for test, passed, _ in _read(self._times) if not passed]
        return "unsure" if failures and self._fork(failures, file, before.decode()) else "noticed"

    def _fork(self, tests: Sequence[str], file: Path, before: str) -> int:
        return self._forks.run(tests, file, before, CHANGE_SECONDS)

    def _new_process(self, tests: Sequence[str]) -> int:
        command = [*_PYTEST, "-n", "0", "-x", *tests]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            command, cwd=self._copy, env=self._environment, stdout=quiet, stderr=quiet, start_new_session=True
        )
        try:
            return process.wait(CHANGE_SECONDS)
        except subprocess.TimeoutExpired:
            return _KILLED
        finally:
            kill_group(process.pid)
            process.wait()

    def close(self) -> None:
        """End the process."""
        self._forks.close()


def _copy(folder: Path) -> Path:
    folder.mkdir()
    for name in TREE:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(source, folder)
    # a changed file has another time than its bytecode, and no run writes bytecode
    subprocess.run([sys.executable, "-m", "compileall", "-q", "core", "plugins", "tests"], cwd=folder, check=False)
    return folder


def sampled(sample: int, seed: int, only: str) -> list[tuple[str, Change]]:
    """Choose so many changes of each package at random."""
    chosen: list[tuple[str, Change]] = []
    for package, patterns in PACKAGES.items():
        every = [
            change
            for pattern in patterns
            for path in sorted(ROOT.glob(pattern))
            for change in changes(str(path.relative_to(ROOT)), path.read_text("utf-8"))
            if only in change.path
        ]
        chosen += ((package, change) for change in random.Random(seed).sample(every, min(sample, len(every))))
    return chosen


def main() -> None:
    """Run a campaign and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=40, metavar="N", help="changes of each package")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="PATH", help="changes of files whose path contains this")
    parser.add_argument("--coverage", type=Path, metavar="DIR", help="keep what the first run learns, or reuse it")
    parser.add_argument("--tests", nargs="*", default=[], metavar="PATH", help="the tests to learn from")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = sampled(options.sample, options.seed, options.only)
    with tempfile.TemporaryDirectory(prefix="mutants-") as name, ThreadPoolExecutor(options.jobs) as pool:
        folder = Path(name)
        copies = [_copy(folder / str(job)) for job in range(options.jobs)]
        learned = learn(copies[0], (options.coverage or folder / "learned").absolute(), options.tests)
        files = set(_files([change for _, change in chosen], learned, copies[0]))
        every = list(pool.map(partial(Job, files=files), copies))
        jobs: SimpleQueue[Job] = SimpleQueue()
        for job in every:
            jobs.put(job)

        def run(change: Change) -> str:
            job = jobs.get()
            try:
                result = job.run(change, learned.of(change, job.tests), learned.at_import(change))
            finally:
                jobs.put(job)
            if result != "noticed":
                print(f"{result}: {change}", flush=True)
            return result

        start = time.monotonic()
        results = list(pool.map(run, [change for _, change in chosen]))
        print(f"{(time.monotonic() - start) * options.jobs / len(results):.1f} s for each change")
        for job in every:
            job.close()
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for (package, _), result in zip(chosen, results, strict=True):
        table[package][result] += 1
    for package, counts in {**table, "all": sum(table.values(), Counter[str]())}.items():
        decided = counts["noticed"] + counts["missed"]
        share = counts["noticed"] / decided if decided else 0
        print(f"{package:15} {share:4.0%} noticed of {decided}", dict(counts))


def _files(chosen: Iterable[Change], learned: Learned, copy: Path) -> Iterator[str]:
    """Yield the files of the tests for the changes."""
    for change in chosen:
        own = (copy / _package(own_tests(change.path))).rglob("test_*.py")
        files = {str(path.relative_to(copy)) for path in own} | {test.partition("::")[0] for test in learned.of(change)}
        yield from (file for file in files if (copy / file).is_file())


if __name__ == "__main__":
    main()
