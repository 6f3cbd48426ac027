"""Images and prompts from standard input: `-`, in place of a file or a text."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from impasto_plugins.cli.main import main
from impasto_plugins.emulator import Emulator
from tests.images import png

PIPED = png(64, 64)


def edit(environment: dict[str, str], *words: str, stdin: bytes = PIPED) -> Result:
    return CliRunner().invoke(main, ["edit", *words], env=environment, input=stdin)


@pytest.mark.parametrize("words", [["-"], ["/dev/stdin"], ["-p", "image=-", "-"]])
def test_a_dash_reads_the_image_from_standard_input(
    environment: dict[str, str], impasto_emulator: Emulator, words: list[str]
) -> None:
    result = edit(environment, "stability/remove-background", *words)
    if len(words) == 1:
        assert result.exit_code == 0, result.output
        assert impasto_emulator.requests[0].files["image"].bytes == len(PIPED)
    else:
        assert (result.exit_code, "image: is set twice" in result.output) == (2, True)


def test_standard_input_fills_one_field_only(environment: dict[str, str]) -> None:
    result = edit(environment, "stability/inpaint", "-", "--mask", "-", "--prompt", "x")
    assert result.exit_code == 2
    assert "mask: standard input can be read for one field only" in result.stderr


def test_empty_or_too_long_input_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    error = edit(environment, "stability/remove-background", "-", stdin=b"")
    assert (error.exit_code, "image: standard input is empty" in error.stderr) == (2, True)
    long = edit(environment, "stability/remove-background", "-", stdin=b"x" * (11 << 20))
    assert (long.exit_code, "image: standard input has more than " in long.stderr) == (2, True)
    assert "x" * 100 not in long.output


def test_a_terminal_is_not_waited_for(tmp_path: Path) -> None:
    parent, child = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-m", "impasto", "edit", "stability/remove-background", "-", "--emulator"],
        stdin=child,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=60,
    )
    os.close(child)
    os.close(parent)
    assert ran.returncode == 2
    assert "image: - is standard input, which is a terminal; redirect a file to it" in ran.stderr


@pytest.mark.parametrize(
    ("stdin", "sent"),
    [
        ("a cat\n", "a cat"),
        ("a cat\r\n", "a cat"),
        ("\ufeffein Kätzchen", "ein Kätzchen"),
        ("two\nlines\n\n", "two\nlines\n"),
        ("-", "-"),
    ],
)
def test_a_dash_reads_the_prompt_from_standard_input(
    environment: dict[str, str], impasto_emulator: Emulator, stdin: str, sent: str
) -> None:
    words = ["generate", "stability/stable-image-core", "-", "-o", "x.png"]
    result = CliRunner().invoke(main, words, env=environment, input=stdin.encode())
    assert result.exit_code == 0, result.output
    assert impasto_emulator.requests[0].fields["prompt"] == sent


@pytest.mark.parametrize("words", [["--prompt", "-"], ["-p", "prompt=@-"], ["--prompt=x", "-p", "negative_prompt=-"]])
def test_every_text_can_come_from_standard_input(
    environment: dict[str, str], impasto_emulator: Emulator, words: list[str]
) -> None:
    Path("in.png").write_bytes(PIPED)
    result = edit(environment, "stability/inpaint", "in.png", *words, stdin=b"fog")
    assert result.exit_code == 0, result.output
    assert "fog" in impasto_emulator.requests[0].fields.values()


def test_a_prompt_that_is_no_text_is_refused(environment: dict[str, str], impasto_emulator: Emulator) -> None:
    for stdin, reason in (
        (PIPED, "is not UTF-8 text"),
        (b"", "is empty"),
        (b"\n", "must be text of 1 to 10,000 characters"),
    ):
        words = ["generate", "stability/stable-image-core", "-"]
        result = CliRunner().invoke(main, words, env=environment, input=stdin)
        assert (result.exit_code, reason in result.stderr) == (2, True), result.stderr
    assert impasto_emulator.requests == []
