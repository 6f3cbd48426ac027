"""The command line as a user has it: in a folder of its own, with a key, calling the emulator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from impasto_plugins.cli.main import main
from tests.conftest import KEY

Run = Callable[..., Result]
Process = subprocess.Popen[str]


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Runs a command in this process. Whatever it says, the key is not in it."""

    def run(*words: str, **variables: str | None) -> Result:
        result = CliRunner().invoke(main, words, prog_name="impasto", env={**environment, **variables})
        assert KEY not in result.output
        assert "Traceback" not in result.output
        print(result.output)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def start(environment: dict[str, str]) -> Callable[..., Process]:
    """Starts a command as a process of its own, its output piped."""

    def start(*words: str, **variables: str) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", "impasto_plugins.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, **variables},
        )

    return start


@pytest.fixture
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes an installed third-party distribution, in a folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("site")

    def distribution(name: str, entry_points: str, module: str = "") -> Path:
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        (folder / f"{name}.py").write_text(module)
        return folder

    return distribution
