"""The surface has full types: users' code has no Any in it, and their mistakes are found without running it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def mypy(*arguments: str) -> str:
    """What mypy says of a file, with the project's settings."""
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.stderr == ""
    return ran.stdout


def test_users_code_has_no_any_in_it() -> None:
    assert mypy("--disallow-any-expr", str(HERE / "surface.py")) == ""


def test_users_mistakes_are_found() -> None:
    path = HERE / "misuse.py"
    expected = {
        (number, code)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for code in line.partition("# error: ")[2].split(", ")
        if code
    }
    said = {(int(line), code) for line, code in re.findall(r":(\d+): error: .*\[([a-z-]+)\]", mypy(str(path)))}
    assert said == expected
