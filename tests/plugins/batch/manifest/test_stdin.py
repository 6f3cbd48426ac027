"""``impasto batch run -``: a manifest on standard input, kept so that a stopped run can go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from impasto_plugins.cli.main import main
from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.batch.conftest import codes, lines, many, row


def text(*args: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in args)


Pipe = Callable[..., Result]


@pytest.fixture
def pipe(environment: dict[str, str]) -> Pipe:
    """Runs ``impasto batch run - ...`` with so much on standard input."""

    def pipe(data: bytes, *words: str) -> Result:
        words = ("batch", "run", "-", "--out", "out", *words)
        return CliRunner().invoke(main, words, prog_name="impasto", env=environment, input=data)

    return pipe


def test_rows_come_on_standard_input(pipe: Pipe, impasto_emulator: Emulator) -> None:
    done = pipe(text(row("a"), row("b")))
    assert done.exit_code == 0, done.output
    assert {line["custom_id"] for line in lines(Path("out/results.jsonl"))} == {"a", "b"}
    assert len(impasto_emulator.charges) == 2


def test_the_next_run_goes_on_with_what_was_kept(pipe: Pipe, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("status", status=402, times=4)
    assert pipe(text(*many(4))).exit_code == 1
    assert impasto_emulator.charges == []
    done = pipe(b"")
    assert done.exit_code == 0, done.output
    assert len(impasto_emulator.charges) == 4
    done = pipe(text(*many(5)))  # what comes takes its place
    assert (done.exit_code, len(impasto_emulator.charges)) == (0, 5)
    assert pipe(b"").exit_code == 0
    assert len(impasto_emulator.charges) == 5


def test_killed_it_goes_on(environment: dict[str, str], pipe: Pipe, impasto_emulator: Emulator) -> None:
    impasto_emulator.fault("delay", seconds=0.2)
    words = [sys.executable, "-m", "impasto_plugins.cli", "batch", "run", "-", "--out", "out", "--concurrency", "2"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, env={**os.environ, **environment}) as process:
        assert process.stdin is not None
        process.stdin.write(text(*many(12)))
        process.stdin.close()
        end = time.monotonic() + 20
        while len(impasto_emulator.charges) < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        process.kill()
    impasto_emulator.clear_faults()
    pipe(b"")
    done, unknown = lines(Path("out/results.jsonl")), lines(Path("out/errors.jsonl"))
    assert len(done) + len(unknown) == 12
    assert len(unknown) <= 2  # the kill may find two on their way, asked for or about to be
    assert codes(Path("out")) <= {"charge_unknown"}
    seeds = [charge.seed for charge in impasto_emulator.charges]
    assert len(set(seeds)) == len(seeds) >= len(done)


def test_a_closed_one(environment: dict[str, str]) -> None:
    words = f"'{sys.executable}' -m impasto_plugins.cli batch run - --out out <&-"
    variables = {**os.environ, **environment}
    done = subprocess.run(["sh", "-c", words], env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, "standard input is closed" in done.stderr) == (2, True)


def test_paths_begin_where_we_are(pipe: Pipe, impasto_emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(png(64, 64))
    done = pipe(text(row("a", model="stability/upscale-fast", image="in.png", prompt=None)))
    assert done.exit_code == 0, done.output
    assert len(impasto_emulator.charges) == 1


@pytest.mark.parametrize("data", [b"", b"\n \n"], ids=["nothing", "blank lines"])
def test_b53_nothing_on_standard_input(pipe: Pipe, impasto_emulator: Emulator, data: bytes) -> None:
    done = pipe(data)
    assert done.exit_code == 2
    assert "the manifest on standard input has no rows" in done.output
    assert impasto_emulator.requests == []


def test_a_bad_one_is_told_by_its_lines_and_not_kept(pipe: Pipe, impasto_emulator: Emulator) -> None:
    done = pipe(text(row("a")) + b"{not json\n")
    assert done.exit_code == 2
    assert "line 2: is invalid JSON" in done.output
    assert pipe(b"").exit_code == 2
    assert impasto_emulator.requests == []


def test_a_dry_run_keeps_nothing(pipe: Pipe, impasto_emulator: Emulator) -> None:
    done = pipe(text(*many(3)), "--dry-run")
    assert done.exit_code == 0
    assert "3 images in 3 rows" in done.output
    assert not Path("out").exists()
    assert impasto_emulator.requests == []
