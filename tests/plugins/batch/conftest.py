"""Batches as their users run them: a manifest in a folder of its own, the command, and the emulator's account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from impasto_plugins.batch.ledger.log import ReadPosition, Row, rows
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.cli.main import main
from impasto_plugins.emulator import SHORT
from tests.conftest import KEY

CORE = "stability/stable-image-core"
CREATIVE = "stability/upscale-creative"

Run = Callable[..., Result]
Start = Callable[..., subprocess.Popen[str]]
Write = Callable[..., Path]


@pytest.fixture(scope="session")
def impasto_emulator_settings() -> Mapping[str, object]:
    """No run is too fast for this provider."""
    return {**attrs.asdict(SHORT), "rate_requests": 100_000}


@pytest.fixture
def batch(environment: dict[str, str]) -> Run:
    """Runs ``impasto batch ...`` in this process. Whatever it says, the key is not in it."""

    def run(*words: str, **variables: str | None) -> Result:
        result = CliRunner().invoke(main, ["batch", *words], prog_name="impasto", env={**environment, **variables})
        assert KEY not in result.output
        assert "Traceback" not in result.output
        print(result.output)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    """Starts ``impasto batch ...`` as a process of its own, its output piped."""

    def start(*words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "impasto_plugins.cli", "batch", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, **variables},
        )

    return start


@pytest.fixture
def manifest(tmp_path: Path) -> Write:
    """Writes a manifest of rows (mappings, or lines as they are)."""

    def write(*args: Mapping[str, object] | str, name: str = "manifest.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in args))
        return path

    return write


def row(id: object, /, **fields: object) -> dict[str, object]:
    """A row in the short form."""
    return {"id": id, "model": CORE, "prompt": "a lighthouse", **fields}


def many(number: int, **fields: object) -> list[dict[str, object]]:
    """Rows, each with a seed of its own."""
    return [row(f"picture-{index}", seed=index + 1, **fields) for index in range(number)]


def lines(path: Path) -> list[dict[str, object]]:
    """What a JSONL file holds."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def ledger_rows(out: Path) -> list[Row]:
    """The rows of a ledger."""
    return [row for _, row in rows(WorkspacePaths(out).ledger, ReadPosition())]


def codes(out: Path) -> set[str]:
    """The codes in errors.jsonl."""
    return {json.loads(line)["error"]["code"] for line in (out / "errors.jsonl").read_text().splitlines()}
