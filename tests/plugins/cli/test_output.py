"""Output that can't be written, entrances other than the script, `-o -`, and messages that fit a shell."""

from __future__ import annotations

import io
import os
import pty
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from impasto.fields import Field
from impasto_plugins.emulator import Emulator
from tests.plugins.cli.conftest import Process, Run

COMMAND = (sys.executable, "-m", "impasto")
LISTINGS = (
    ("--help",),
    ("--version",),
    ("models",),
    ("models", "--json"),
    ("describe", "stability/sd3"),
    ("plugins", "--json"),
    ("doctor",),
    ("batch", "--help"),
    ("serve", "--help"),
    ("new-plugin", "acme"),
)


def variables(buffered: bool) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not buffered or name != "PYTHONUNBUFFERED"} | (
        {} if buffered else {"PYTHONUNBUFFERED": "1"}
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("words", LISTINGS)
def test_output_that_no_disk_takes_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], buffered: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, env=variables(buffered), check=False
        )
    assert ran.returncode == 1
    assert ran.stderr.splitlines() in (
        ["Error: No space left on device"],
        ["Error: the output could not be written: No space left on device"],
    )


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("words", LISTINGS[:4])
def test_a_reader_that_has_left_sees_no_more(words: tuple[str, ...], buffered: bool) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [*COMMAND, *words], stdout=write, stderr=subprocess.PIPE, text=True, env=variables(buffered), check=False
    )
    os.close(write)
    assert (ran.returncode, ran.stderr) == (1, "")


def test_python_m_impasto_is_the_command() -> None:
    script = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert script.stdout.startswith("impasto ")
    unknown = subprocess.run([*COMMAND, "generat"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "Did you mean generate?" in unknown.stderr


def test_without_metadata_python_m_impasto_says_so(tmp_path: Path) -> None:
    code = (
        "import sys, runpy, importlib.metadata as m; m.MetadataPathFinder.find_distributions = lambda *_: ();"
        "runpy.run_module('impasto', run_name='__main__')"
    )
    ran = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.strip() == "impasto's own metadata was not found, so it has no commands; install impasto again"


def emulated(*words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, "generate", "stability/stable-image-core", "a fox", "--emulator", *words]
    return subprocess.run(command, check=False, stdout=stdout, stderr=subprocess.PIPE)


def test_a_dash_writes_the_image_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = emulated("-o", "-", "-p", "output_format=webp")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert Image.open(io.BytesIO(ran.stdout)).format == "WEBP"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-n", "2"), "- takes one output, not 2; give a file"),
        (("--json",), "- can't be combined with --json, which also prints to standard output; give a file"),
    ],
)
def test_a_dash_is_refused_for_what_can_not_be_one_stream(run: Run, words: tuple[str, ...], message: str) -> None:
    result = run("generate", "stability/stable-image-core", "x", "-o", "-", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_dash_is_refused_on_a_terminal() -> None:
    parent, child = pty.openpty()
    ran = emulated("-o", "-", stdout=child)
    os.close(child)
    os.close(parent)
    assert ran.returncode == 2
    assert b"a terminal; redirect it" in ran.stderr


def test_an_image_that_its_reader_does_not_take_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    read, write = os.pipe()
    os.close(read)
    ran = emulated("-o", "-", stdout=write)
    os.close(write)
    (saved,) = tmp_path.glob("impasto-*/*.png")
    assert str(saved).encode() in ran.stderr
    Image.open(saved).verify()


def test_an_interrupted_job_is_resumed_by_a_command(
    start: Callable[..., Process], impasto_emulator: Emulator, tmp_path: Path
) -> None:
    from tests.images import png

    (tmp_path / "in.png").write_bytes(png(512, 512))
    impasto_emulator.fault("delay", seconds=60, method="GET")
    process = start(
        "edit", "stability/upscale-creative", str(tmp_path / "in.png"), "--prompt", "x", IMPASTO_POLL_INTERVAL="0.05"
    )
    while not any(each.method == "GET" for each in impasto_emulator.requests):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "client.resume" not in err
    assert "Fetch the job's result with: impasto resume stability/upscale-creative " in err


def test_a_missing_key_is_asked_for_as_a_shell_can_give_it(run: Run) -> None:
    result = run("generate", "stability/stable-image-core", "x", STABILITY_API_KEY=None)
    assert result.exit_code == 2
    assert result.stderr.strip().endswith("no key for stability: set STABILITY_API_KEY")


def test_a_length_that_must_be_exact_is_said_so() -> None:
    assert Field(kind="text", minimum=64, maximum=64).describe_constraint() == "text of exactly 64 characters"


def test_help_cuts_no_summary(run: Run) -> None:
    assert "..." not in run("--help", COLUMNS="80").stdout.partition("Commands:")[2]


def test_doctor_names_no_extra_for_development(run: Run) -> None:
    output = run("doctor").stdout
    for name in ("dev", "docs", "benchmarks"):
        assert f" {name}: " not in output


def test_no_file_for_readers_names_a_package_indexs_host() -> None:
    root = Path(__file__).parents[3]
    texts = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("examples/*/*.md")]
    texts += [*root.glob("plugins/**/*.template"), *root.glob("*.toml"), *root.glob("examples/*/*.toml")]
    hosts = ("pypi" + ".org", "python" + "hosted", "npmjs" + ".com")
    assert [str(path) for path in texts if any(host in path.read_text("utf-8") for host in hosts)] == []


@pytest.mark.parametrize("text", ["", "new-folder/", "./"])
def test_a_place_that_can_be_no_file_is_refused(run: Run, text: str) -> None:
    result = run("generate", "stability/stable-image-core", "x", "--emulator", "-o", text)
    assert result.exit_code == 2
    assert f"{text}image.png" in result.stderr
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_gateway_runs_without_streams(tmp_path: Path, closed: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    config = tmp_path / "config.yaml"
    key = "sk-" + "0123456789abcdef" * 2
    config.write_text(
        "model_list:\n  - model_name: a\n    litellm_params: {model: stability/sd3, api_key: sk-abc}\n"
        f"general_settings: {{master_key: {key}, data_dir: {tmp_path / 'data'}}}\n"
    )
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "serve", "--config", str(config), "--port", str(port)]
    )
    try:
        while True:
            assert process.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness") as answer:
                    assert answer.status == 200
                break
            except OSError:
                time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
