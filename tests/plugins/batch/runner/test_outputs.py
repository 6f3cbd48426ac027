"""Outputs that nobody reads, and terminals that go away: the run waits for what is in flight, and loses nothing."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from impasto_plugins.batch.cli import reporters
from impasto_plugins.emulator import Emulator
from tests.plugins.batch.conftest import Run, Write, many

from .test_limits import wait_for

WORDS = ("run", "manifest.jsonl", "--out", "out", "--concurrency", "4")
Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def begin(environment: dict[str, str], manifest: Write, impasto_emulator: Emulator) -> Iterator[Begin]:
    """Start a run of 40 images that takes some seconds. Whatever it was told to ignore, its signals are as usual."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*more: str, before: Callable[[], object] = lambda: None, **streams: Any) -> subprocess.Popen[bytes]:
        def prepare() -> None:
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            before()

        words = [sys.executable, "-m", "impasto_plugins.cli", "batch", *WORDS, *more]
        run: subprocess.Popen[bytes] = subprocess.Popen[bytes](
            words,
            env={**os.environ, **environment},
            preexec_fn=prepare,
            **streams,
        )
        running.append(run)
        return run

    impasto_emulator.fault("delay", seconds=0.4)
    manifest(*many(40))
    yield begin
    for run in running:
        run.kill()
        run.wait()
        for stream in (run.stdout, run.stderr):
            if stream is not None:
                stream.close()


def is_drained(batch: Run, emulator: Emulator) -> None:
    """What was in flight came, and the rest was not asked for; the next run makes it."""
    found = json.loads(batch("status", "out", "--json").stdout)
    assert (found["ambiguous"], found["in_flight"]) == (0, 0)
    assert found["done"] == len(emulator.charges)
    assert 1 <= found["done"] < 40
    emulator.clear_faults()
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert len(emulator.charges) == 40


def test_a_program_that_reads_no_further_lets_the_run_drain(
    begin: Begin, batch: Run, impasto_emulator: Emulator
) -> None:
    run = begin("--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stderr is not None
    assert json.loads(run.stdout.readline())["event"] == "plan"
    run.stdout.close()
    assert b"Traceback" not in run.stderr.read()
    assert run.wait(60) == 130
    is_drained(batch, impasto_emulator)


def test_warnings_that_nobody_reads_let_the_run_drain(begin: Begin, batch: Run, impasto_emulator: Emulator) -> None:
    reader, writer = os.pipe()
    run = begin(stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    os.close(reader)  # its first line of progress meets that
    assert run.stdout is not None
    assert run.stdout.read().startswith(b"stopped: ")
    assert run.wait(60) == 130
    is_drained(batch, impasto_emulator)


def test_a_terminal_that_is_closed_lets_the_run_drain(begin: Begin, batch: Run, impasto_emulator: Emulator) -> None:
    main, terminal = pty.openpty()

    def control() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    run = begin(before=control, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    wait_for(Path("out"), "intent", 4)
    os.close(main)
    assert run.wait(60) == 130
    is_drained(batch, impasto_emulator)


def test_streams_that_were_closed_from_the_beginning_change_nothing(begin: Begin, impasto_emulator: Emulator) -> None:
    def close() -> None:
        for descriptor in (0, 1, 2):
            os.close(descriptor)

    impasto_emulator.clear_faults()
    assert begin(before=close).wait(60) == 0
    assert len(impasto_emulator.charges) == 40


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT], ids=["nohup", "a script's command &"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    begin: Begin, impasto_emulator: Emulator, number: signal.Signals
) -> None:
    impasto_emulator.clear_faults()
    impasto_emulator.fault("delay", seconds=0.1)
    run = begin(before=lambda: signal.signal(number, signal.SIG_IGN), stdout=subprocess.PIPE)
    wait_for(Path("out"), "intent", 4)
    run.send_signal(number)
    assert run.wait(60) == 0
    assert len(impasto_emulator.charges) == 40


def test_a_log_has_a_line_of_progress_now_and_then(
    batch: Run, manifest: Write, monkeypatch: pytest.MonkeyPatch, impasto_emulator: Emulator
) -> None:
    monkeypatch.setattr(reporters, "FIRST_LINE_SECONDS", 0.0)
    monkeypatch.setattr(reporters, "NEXT_LINE_SECONDS", 0.0)
    impasto_emulator.fault("delay", seconds=0.3)
    manifest(*many(3))
    done = batch("run", "manifest.jsonl", "--out", "out", "--concurrency", "1")
    assert done.stdout == "complete: 3 of 3 done, charged: 0.09 USD\n"
    progress = done.stderr.splitlines()
    assert len(progress) >= 2
    assert all(line.startswith("running: ") and " of 3 done, " in line for line in progress)
    assert "\r" not in done.stderr
