"""Change the product one place at a time, and count the changes that no test notices.

``python -m tests.campaigns.mutants --sample 40 --seed 1`` runs the suite once to learn which tests reach which lines,
then takes a random sample of changes of each package (a comparison, a bound, a dropped statement, ...) and runs the
tests that reach each of them, and the tests of its package that are newer than what was learned. It prints the share
that was noticed for each package, and every change that was not: those are tests to write, or changes that alter
nothing a user could notice. ``--coverage DIR`` keeps and reuses what the first run learned, ``--tests PATH`` limits it
to some tests, and ``--only PATH`` limits the sample.

It works on a copy of the tree. A change within functions is tried in a fork of a process that has collected the tests
(see ``forks``), any other in a new process, as is one that the forks missed and that runs as modules are imported.
A test that hangs fails at its time limit, and one that fails without the change too is left out. A change whose tests
take too long in all is listed and not counted.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue

from tests.campaigns.changes import Change, changes
from tests.campaigns.forks import Forks, is_in_functions
from tests.campaigns.reach import (
    ENVIRONMENT,
    OPTIONS,
    ROOT,
    Reach,
    learn,
    own_tests,
    package_tests,
    python_of,
    read_failures,
)

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
        f"{PLUGINS}bedrock/*.py",
    ),
    "batch": (f"{PLUGINS}batch/*.py", f"{PLUGINS}batch/ledger/*.py", f"{PLUGINS}batch/runner/*.py"),
    "shared batch": (f"{PLUGINS}batch/shared/*.py", f"{PLUGINS}batch/engines/*.py"),
    "state": (f"{PLUGINS}state/*.py", f"{PLUGINS}state/sqlite/*.py", f"{PLUGINS}state/postgres/*.py"),
    "keyed calls": (f"{PLUGINS}idempotent_calls/*.py", f"{PLUGINS}fetched_jobs.py", f"{PLUGINS}stored_artifacts.py"),
    "gateway": (
        f"{PLUGINS}gateway/calls/*.py",
        f"{PLUGINS}gateway/idempotency/*.py",
        f"{PLUGINS}gateway/storage/*.py",
        f"{PLUGINS}gateway/api/delivery.py",
        f"{PLUGINS}gateway/http/delivery.py",
        f"{PLUGINS}gateway/errors.py",
    ),
    "drop-in": (f"{PLUGINS}openai_compat/*.py",),
}
"""The paths on which money depends."""

CHANGE_SECONDS = 240
_KILLED = -9


class Job:
    """A copy of the tree, and a process that has collected its tests."""

    def __init__(self, copy: Path, files: Iterable[str]) -> None:
        self._copy = copy
        self._times = copy / "times.jsonl"
        self._unsound = set[str]()
        self._environment = {**ENVIRONMENT, "MUTANTS_TIMES": str(self._times)}
        self._forks = Forks(python_of(copy), [*OPTIONS, *files], copy, self._environment)
        self.tests = self._forks.tests

    def run(self, change: Change, tests: Sequence[str], at_import: bool = False) -> str:
        """Run the tests on a changed copy. Those that fail unchanged too are left out from then on.

        Return ``noticed``, ``missed``, ``not reached`` or ``out of time``.
        """
        while tests := [test for test in tests if test not in self._unsound]:
            code, before = self._run_changed(change, tests, at_import)
            if code in (0, _KILLED):
                return "out of time" if code else "missed"
            failures = read_failures(self._times)
            if not failures or self._fork(failures, self._copy / change.path, before) == 0:
                return "noticed"
            self._unsound.update(failures)
        return "not reached"

    def _run_changed(self, change: Change, tests: Sequence[str], at_import: bool) -> tuple[int, str]:
        """Run tests with the change. Return the exit code, and the file as it was and is again."""
        file = self._copy / change.path
        before, stat = file.read_bytes(), file.stat()
        after = change.apply(before)
        self._times.write_text("")
        try:
            file.write_bytes(after)
            code = self._fork(tests, file, before.decode()) if is_in_functions(before, after) else None
            if code is None or (code == 0 and at_import):
                code = self._new_process(tests, file)
        finally:
            file.write_bytes(before)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its bytecode is as old
        return code, before.decode()

    def _fork(self, tests: Sequence[str], file: Path, before: str) -> int:
        return self._forks.run(tests, file, before, CHANGE_SECONDS)

    def _new_process(self, tests: Sequence[str], file: Path) -> int:
        """Run tests in a process that has imported the changed file, which may fail at that already."""
        files = {test.partition("::")[0] for test in tests}
        try:
            forks = Forks(python_of(self._copy), [*OPTIONS, *files], self._copy, self._environment)
        except RuntimeError:
            return 1
        try:
            if files - {test.partition("::")[0] for test in forks.tests}:
                return 1
            same = [test for test in tests if test in forks.tests]  # some ids have an object's address in them
            return forks.run(same, file, file.read_text("utf-8"), CHANGE_SECONDS)
        finally:
            forks.close()

    def close(self) -> None:
        """End the process."""
        self._forks.close()


def _copy(folder: Path) -> Path:
    folder.mkdir()
    for name in TREE:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(source, folder)
    _install(folder)
    # a changed file has another time than its bytecode, and no run writes bytecode
    subprocess.run([python_of(folder), "-m", "compileall", "-q", "core", "plugins", "tests"], cwd=folder, check=False)
    return folder


def _install(copy: Path) -> None:
    """Give a copy its own environment, of links to this one's packages: impasto's metadata must lead to the copy."""
    packages = Path(sysconfig.get_path("purelib"))
    prefix = python_of(copy).parents[1]
    site = prefix / packages.relative_to(sys.prefix)
    site.mkdir(parents=True)
    python_of(copy).parent.mkdir()
    python_of(copy).symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), prefix)
    editable = {file.name for file in metadata.files("impasto") or () if file.suffix == ".pth"}
    for path in packages.iterdir():
        if path.name in editable:
            (site / path.name).write_text(f"{copy / 'core'}\n{copy / 'plugins'}\n")
        else:
            (site / path.name).symlink_to(path)


def sampled(sample: int, seed: int, only: Sequence[str]) -> list[tuple[str, Change]]:
    """Choose so many changes of each package at random."""
    chosen: list[tuple[str, Change]] = []
    for package, patterns in PACKAGES.items():
        every = [
            change
            for pattern in patterns
            for path in sorted(ROOT.glob(pattern))
            for change in changes(str(path.relative_to(ROOT)), path.read_text("utf-8"))
            if any(part in change.path for part in only)
        ]
        chosen += ((package, change) for change in random.Random(seed).sample(every, min(sample, len(every))))
    return chosen


def main() -> None:
    """Run a campaign and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=40, metavar="N", help="changes of each package")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[""], metavar="PATH", help="changes of files whose path has this")
    parser.add_argument("--coverage", type=Path, metavar="DIR", help="keep what the first run learns, or reuse it")
    parser.add_argument("--tests", nargs="*", default=[], metavar="PATH", help="the tests to learn from")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = sampled(options.sample, options.seed, options.only)
    with tempfile.TemporaryDirectory(prefix="mutants-") as name, ThreadPoolExecutor(options.jobs) as pool:
        folder = Path(name)
        copies = [_copy(folder / str(job)) for job in range(options.jobs)]
        reach = learn(copies[0], (options.coverage or folder / "learned").absolute(), options.tests)
        files = set(_files([change for _, change in chosen], reach, copies[0]))
        every = list(pool.map(partial(Job, files=files), copies))
        for file in sorted(files - {test.partition("::")[0] for test in every[0].tests}):
            print(f"nothing is collected from {file}")
        jobs: SimpleQueue[Job] = SimpleQueue()
        for job in every:
            jobs.put(job)

        def run(change: Change) -> str:
            job = jobs.get()
            try:
                result = job.run(change, reach.of(change, job.tests), reach.at_import(change))
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


def _files(chosen: Iterable[Change], reach: Reach, copy: Path) -> Iterator[str]:
    """Yield the files of the tests for the changes."""
    for change in chosen:
        own = (copy / package_tests(own_tests(change.path))).rglob("test_*.py")
        files = {str(path.relative_to(copy)) for path in own} | {test.partition("::")[0] for test in reach.of(change)}
        yield from (file for file in files if (copy / file).is_file())


if __name__ == "__main__":
    main()
