"""The surface has full types: users' code has no Any in it, and their mistakes are found without running it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import blocks

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def mypy(cache: Path, *arguments: str) -> str:
    """Return mypy's output for a file, with the project's settings.

    Each run has a cache of its own: two processes that create one cache at the same time crash on its lock
    (https://github.com/python/mypy/issues/21769).
    """
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(cache), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.stderr == ""
    return run.stdout


def test_users_code_has_no_any_in_it(tmp_path: Path) -> None:
    assert mypy(tmp_path, "--disallow-any-expr", str(HERE / "surface.py")) == ""


def test_users_mistakes_are_found(tmp_path: Path) -> None:
    path = HERE / "misuse.py"
    expected = {
        (number, code)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for code in line.partition("# error: ")[2].split(", ")
        if code
    }
    output = mypy(tmp_path, str(path))
    assert {(int(line), code) for line, code in re.findall(r":(\d+): error: .*\[([a-z-]+)\]", output)} == expected


def test_the_code_of_the_guide_for_plugins_has_full_types(tmp_path: Path) -> None:
    (readme,) = [block for block in blocks("README.md", "python") if "impasto_acme" in block.begins]
    paths: list[str] = []
    for number, block in enumerate((readme, *blocks("docs/plugins.md", "python"))):
        path = tmp_path / f"block_{number}.py"
        path.write_text(block.text)
        paths.append(str(path))
    assert len(paths) > 10
    assert mypy(tmp_path / "cache", "--strict", *paths) == ""
