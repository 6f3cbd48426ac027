"""The group of commands: quick, complete, and broken by nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import impasto
from impasto.registry import COMMANDS, OPERATIONS
from impasto_plugins.emulator import Emulator
from tests.distributions import ACME, install
from tests.plugins.cli.conftest import Process, Run

HEAVY = (
    "aiohttp",
    "PIL",
    "cattrs",
    "pluggy",
    "attrs",
    "asyncio",
    "botocore",
    "impasto_plugins.stability",
    "impasto.client",
)
NAMES = impasto.Registry().names(COMMANDS)


def test_help_lists_every_command_with_what_it_does(run: Run) -> None:
    output = run("--help").stdout
    assert {"try", "generate", "edit", "models", "describe", "plugins", "doctor", "emulator"} <= set(NAMES)
    for name in NAMES:
        (line,) = [line for line in output.splitlines() if line.startswith(f"  {name} ")]
        assert len(line.split()) > 2
        assert "(" not in line, "it does not load"


def test_help_imports_nothing_that_a_call_needs() -> None:
    code = (
        "import sys; from impasto_plugins.cli.main import main; main(['--help'], standalone_mode=False);"
        f"print('imported:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: []"


@pytest.mark.parametrize("name", NAMES)
def test_each_command_explains_itself(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"impasto {name}" in result.stdout
    assert "\\" not in result.stdout  # click's mark of a paragraph that is not filled


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"impasto {impasto.__version__}\n"


@pytest.mark.parametrize(
    "words", [("nope",), ("generate",), ("generate", "--nope"), ("generate", "stability/sd3", "-n", "x", "y")]
)
def test_wrong_usage_ends_with_2(run: Run, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error:" in result.stderr


def test_a_broken_command_of_another_distribution_breaks_only_itself(
    start: Callable[..., Process], distribution: Callable[..., Path], tmp_path: Path
) -> None:
    mark = tmp_path / "imported"
    site = distribution(
        "acme",
        "[impasto.commands]\nacme-broken = acme:missing\nacme-exits = acme_exits:command\n",
        f"open({str(mark)!r}, 'w').close()\n",
    )
    (site / "acme_exits.py").write_text("raise SystemExit(0)")

    def run_process(*words: str) -> tuple[int, str, str]:
        process = start(*words, PYTHONPATH=str(site))
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    code, out, _ = run_process("--help")
    assert code == 0
    assert "acme-broken" in out
    assert "(from acme 1.0)" in out
    assert not mark.exists(), "help imported another distribution's command"
    code, _, err = run_process("acme-broken")
    assert code == 2
    assert "acme 1.0 failed to load" in err
    assert "Traceback" not in err
    assert run_process("acme-exits")[0] == 2
    assert run_process("models")[0] == 0
    code, out, _ = run_process("doctor", "--json")
    broken = [each["subject"] for each in json.loads(out)["findings"] if each["state"] == "broken"]
    assert code == 1
    assert broken == [f"{COMMANDS} acme-broken", f"{COMMANDS} acme-exits"]


def test_a_command_of_another_distribution_runs(
    start: Callable[..., Process], distribution: Callable[..., Path]
) -> None:
    site = distribution(
        "acme",
        "[impasto.commands]\nhello = acme:hello\n",
        "import click\n@click.command()\ndef hello():\n    click.echo('hello from acme')\n",
    )
    process = start("hello", PYTHONPATH=str(site))
    assert process.communicate(timeout=60)[0] == "hello from acme\n"
    assert process.returncode == 0


def test_a_name_that_two_distributions_claim_is_told(
    start: Callable[..., Process], distribution: Callable[..., Path]
) -> None:
    for owner in ("acme", "other"):
        site = distribution(owner, "[impasto.operations]\nacme/paint = nowhere:paint\n")
    process = start("plugins", "--json", PYTHONPATH=str(site))
    rows = json.loads(process.communicate(timeout=60)[0])
    reasons = {row["reason"].partition(";")[0] for row in rows if row["name"] == "acme/paint"}
    assert reasons == {"'acme/paint' is declared by acme and other"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_with_130_and_tells_that_the_charge_is_unknown(
    start: Callable[..., Process], impasto_emulator: Emulator, number: signal.Signals
) -> None:
    impasto_emulator.fault("delay", seconds=30)
    process = start("generate", "stability/stable-image-core", "a lighthouse")
    while not impasto_emulator.requests:
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.2)  # the headers' leaving is noted
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "it may have been charged" in err
    assert "Interrupted." in err
    assert "Traceback" not in err


PRESSED = """
import signal, sys
from importlib.metadata import entry_points
signal.signal(signal.SIGINT, signal.default_int_handler)

class Presses:
    def find_spec(self, name, *_):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Presses())
(script,) = entry_points(group="console_scripts", name="impasto")
sys.argv = ["impasto", "--help"]
script.load()()
"""


@pytest.mark.parametrize(
    "module", ["impasto_plugins.cli.main", "click", "impasto.registry", "impasto_plugins.cli.demo.try_it"]
)
def test_interrupted_while_it_is_imported_it_ends_with_130_and_one_word(module: str) -> None:
    words = [sys.executable, "-c", PRESSED.format(module=module)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "\nInterrupted.\n")


def test_a_reader_that_leaves_early_sees_no_traceback(start: Callable[..., Process]) -> None:
    process = start("plugins", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_output_that_no_disk_takes_is_told_and_what_was_paid_for_is_named(environment: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [
                sys.executable,
                "-m",
                "impasto_plugins.cli",
                "generate",
                "stability/stable-image-core",
                "x",
                "-o",
                "x.png",
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            check=False,
        )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "No space left on device" in process.stderr
    assert "x.png" in process.stderr
    assert Path("x.png").is_file()


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_stream_that_is_closed_costs_no_picture(environment: dict[str, str], closed: str) -> None:
    command = f"'{sys.executable}' -m impasto_plugins.cli generate stability/stable-image-core x -o x.png {closed}"
    process = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert Path("x.png").is_file()


def test_a_command_that_raises_what_has_no_message_is_one_line(tmp_path: Path) -> None:
    module = """
import click

class Mute(BaseException):
    def __str__(self):
        raise SystemExit(7)

@click.command()
def command():
    raise Mute
"""
    install(tmp_path, "mute", {"impasto.commands": {"mute": "mute_command:command"}}, {"mute_command": module})
    words = [sys.executable, "-m", "impasto_plugins.cli", "mute"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: unexpected Mute in mute_command, line ")
    assert "Traceback" not in ran.stderr


def test_the_emulator_refuses_another_provider_before_anything_is_sent(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "acme-only", {OPERATIONS: {"acme/only": "acme_only:paint"}}, {"acme_only": ACME})
    monkeypatch.syspath_prepend(str(tmp_path))
    result = run("generate", "acme/only", "x", "--emulator")
    assert result.exit_code == 2
    assert "there is no emulator of acme, only of bedrock, stability; its plugin can declare one" in result.stderr
