"""The project's own sources, for tests that read them."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
POINTS: dict[str, dict[str, str]] = PROJECT["entry-points"]


def python_files(*folders: str) -> list[Path]:
    """Python files below the folders, or of the whole project."""
    found = [
        path
        for folder in folders or ("core", "plugins", "tests", "benchmarks", "docs")
        for path in _below(ROOT / folder)
    ]
    assert found
    return sorted(found)


def _below(folder: Path) -> list[Path]:
    inside = len(ROOT.parts)
    return [path for path in folder.rglob("*.py") if not any(part.startswith(".") for part in path.parts[inside:])]


def name_of(path: Path) -> str:
    """A path as a reader of the project would write it."""
    return str(path.relative_to(ROOT))
