"""What the README shows, runs: its Python and its commands, in their order, in one folder, against the emulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import impasto
from impasto.registry import OPERATIONS, PROVIDERS
from impasto_emulator import SHORT, Emulator, serve
from tests.conftest import KEY
from tests.recorder import Recorder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """One whose pictures are large enough to be edited."""
    with serve(attrs.evolve(SHORT, picture_scale=0.25)) as emulator:
        yield emulator


@pytest.fixture
def environment(emulator: Emulator) -> dict[str, str]:
    """A user's, whose provider is the emulator and whose PATH has impasto on it."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "STABILITY_API_KEY": KEY,
        "STABILITY_API_BASE": emulator.url,
    }


def ran(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    return done.stdout


def test_there_are_two_set_up_commands_and_each_can_be_found() -> None:
    installing = [line for block in blocks("sh") for line in block.splitlines() if "pip install" in line]
    assert len(installing) == 2
    for heading, end in (("## See it work", "bin/impasto try"), ("## Run the tests", "bin/pytest")):
        (command,) = blocks("sh", README.partition(heading)[2])[0].splitlines()
        assert command.endswith(end)
        assert command in installing


def test_the_python_runs(tmp_path: Path, environment: dict[str, str], emulator: Emulator) -> None:
    examples = [block for block in blocks("python") if "impasto_acme" not in block]
    assert len(examples) == 4
    said = ""
    for number, block in enumerate(examples):
        path = tmp_path / f"test_example_{number}.py"
        path.write_text(block)
        runner = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"] if "def test_" in block else []
        said += ran([sys.executable, "-W", "error", *runner, str(path)], tmp_path, environment)
    assert (tmp_path / "lighthouse.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "wide.webp").read_bytes().startswith(b"RIFF")
    assert "grow_mask must be a number from 0 to 100, not 500" in said
    assert "sede is no parameter of this model; did you mean seed?" in said
    assert len(emulator.charges) == 5, "of three examples: 2, 3, 0"


def test_the_commands_run(tmp_path: Path, environment: dict[str, str]) -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(("impasto ", "printf "))]
    assert len(lines) == 13
    for line in lines:
        said = ran(["sh", "-c", line], tmp_path, environment)
        assert said or " > " in line


async def test_the_plugin_works(recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block for block in blocks("python") if "impasto_acme" in block]
    made: dict[str, object] = {}
    exec(source, made)
    registry = impasto.Registry()
    registry.add(OPERATIONS, "acme/watercolour", made["watercolour"])
    registry.add(PROVIDERS, "acme", made["acme"])
    (declared,) = blocks("toml")
    assert '"acme/watercolour" = "impasto_acme:watercolour"' in declared
    monkeypatch.setenv("ACME_API_KEY", KEY)
    providers = {"acme": {"api_base": recorder.url}}
    async with impasto.Client(registry=registry, providers=providers) as client:
        result = await client.run("acme/watercolour", prompt="a lighthouse", paper="rough")
        with pytest.raises(impasto.InvalidRequest, match="paper: must be one of rough, smooth"):
            await client.run("acme/watercolour", prompt="a lighthouse", paper="wet")
    assert result.artifacts[0].media_type == "image/png"
    (sent,) = recorder.seen
    assert sent.path == "/v1/paint"
    assert sent.fields == {"prompt": "a lighthouse", "paper": "rough"}
    assert sent.header("authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_what_a_page_points_at_is_there(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target
    named = re.findall(r"`((?:core|plugins|tests|benchmarks|docs|\.ci)/[\w./-]+)`", text)
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_picture_is_small() -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert (ROOT / picture).stat().st_size < 400_000
