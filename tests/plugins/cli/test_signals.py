"""Signals that end a paid call: one report, one exit code, whatever the shell has ignored."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from impasto import Client, Result
from impasto_plugins.emulator import Emulator
from tests.images import png

from .conftest import Run

JOB = "stability/upscale-creative"
INTERRUPTED = 130
"""Of SURFACE: the exit code of an interrupted command."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_job(environment: dict[str, str], impasto_emulator: Emulator, tmp_path: Path) -> Start:
    """Start an edit whose job is being polled, as a shell does that ignores signals; a test sends the next one."""
    (tmp_path / "in.png").write_bytes(png(512, 512))
    impasto_emulator.fault("pending", target="/v2beta/results/")

    def start_job(*options: str, ignoring: str = "", stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        trap = f"trap '' {ignoring}; " if ignoring else ""
        command = [sys.executable, "-m", "impasto_plugins.cli", "edit", JOB, str(tmp_path / "in.png"), "--prompt", "x"]
        process = subprocess.Popen(
            ["sh", "-c", f'{trap}exec "$@"', "sh", *command, *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **environment, "IMPASTO_POLL_INTERVAL": "0.05"},
        )
        wait_for_poll(process, impasto_emulator)
        return process

    return start_job


def wait_for_poll(process: subprocess.Popen[str], emulator: Emulator) -> None:
    while not any(each.method == "GET" for each in emulator.requests):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "ignoring"),
    [
        (signal.SIGINT, ""),
        (signal.SIGTERM, ""),
        (signal.SIGHUP, ""),
        (signal.SIGTERM, "INT"),  # each `command &` of a script
        (signal.SIGTERM, "INT HUP"),
        (signal.SIGHUP, "INT"),
    ],
)
def test_a_signal_ends_the_call_and_reports_its_job(start_job: Start, number: signal.Signals, ignoring: str) -> None:
    process = start_job(ignoring=ignoring)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert out == ""
    assert f"Fetch the job's result with: impasto resume {JOB} " in err
    assert "may be charged" in err
    assert err.endswith("Interrupted.\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_ignored_signal_stays_ignored(
    start_job: Start, impasto_emulator: Emulator, tmp_path: Path, number: signal.Signals
) -> None:
    process = start_job("-o", str(tmp_path / "out.png"), ignoring="INT HUP")
    process.send_signal(number)
    impasto_emulator.clear_faults()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_images_that_had_come_before_an_interrupt_are_saved(
    run: Run, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    impasto_emulator.fault("delay", seconds=60, times=2)
    run_once = Client._run_once

    async def interrupt_after(*arguments: Any) -> Result:
        result = await run_once(*arguments)
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        return result

    monkeypatch.setattr(Client, "_run_once", interrupt_after)
    out = tmp_path / "out.png"
    hangup = signal.getsignal(signal.SIGHUP)
    try:
        outcome = run("generate", "stability/sd3", "x", "-n", "3", "-o", str(out), "--json")
    finally:
        signal.signal(signal.SIGHUP, hangup)  # the end of a command ignores it
    assert outcome.exit_code == INTERRUPTED
    (image,) = tmp_path.glob("out-*.png")
    assert image.read_bytes().startswith(b"\x89PNG")
    assert "1 of 3 images had arrived\n" in outcome.stderr
    assert f"saved: {image}" in outcome.stderr
    assert f"saved: {image}" in json.loads(outcome.stdout)["error"]["notes"]


def test_several_hangups_do_not_cut_the_report(start_job: Start) -> None:
    process = start_job()
    for _ in range(20):  # the shell and the system send one each when a terminal closes
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert f"impasto resume {JOB} " in err
    assert err.endswith("Interrupted.\n")


def test_resume_ends_in_the_same_way(start_job: Start, impasto_emulator: Emulator, environment: dict[str, str]) -> None:
    process = start_job("--json")
    process.send_signal(signal.SIGHUP)
    job = json.loads(process.communicate(timeout=60)[0])["error"]["id"]
    polls = len(impasto_emulator.requests)
    again = subprocess.Popen(
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "impasto_plugins.cli", "resume", JOB, job],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    while len(impasto_emulator.requests) == polls:
        assert again.poll() is None, again.communicate()
        time.sleep(0.02)
    again.send_signal(signal.SIGTERM)
    _, err = again.communicate(timeout=60)
    assert again.returncode == INTERRUPTED
    assert f"impasto resume {JOB} {job}" in err
    assert len(impasto_emulator.charges) <= 1


def test_a_program_reads_an_interrupted_call_as_it_reads_any_error(start_job: Start) -> None:
    process = start_job("--json")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    error = json.loads(out)["error"]
    assert process.returncode == INTERRUPTED
    assert set(error) == {"type", "message", "model", "billed", "request_id", "id", "notes"}
    assert (error["type"], error["model"], error["billed"]) == ("Interrupted", JOB, "unknown")
    assert f"impasto resume {JOB} {error['id']}" in err
    assert any("may be charged" in note for note in error["notes"])
    assert not any("client.resume" in note for note in error["notes"])


def test_a_terminal_that_closes_does_not_cut_the_report(start_job: Start) -> None:
    terminal, end = pty.openpty()
    process = start_job("--json", stderr=end)
    os.close(end)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert json.loads(out)["error"]["id"]


def test_a_paid_image_outlives_the_terminal_of_its_progress_line(
    start_job: Start, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    terminal, end = pty.openpty()
    process = start_job("--json", "-o", str(tmp_path / "out.png"), ignoring="HUP", stderr=end)
    os.close(end)
    os.close(terminal)
    impasto_emulator.clear_faults()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert json.loads(out)["files"][0]["path"] == str(tmp_path / "out.png")
    assert (tmp_path / "out.png").is_file()
