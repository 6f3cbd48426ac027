"""Every code block that a user reads is run: its Python, its commands, its requests and its configuration."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import impasto
from impasto import records
from impasto.registry import OPERATIONS, PROVIDERS
from impasto_plugins.cli.demo.tour import STEPS
from impasto_plugins.emulator import SHORT, Emulator, serve
from tests.architecture.sources import ROOT
from tests.conftest import KEY
from tests.docs.pages import MODELS, OWN_TESTS, PAGES, Block, blocks
from tests.docs.reader import GATEWAY, Reader
from tests.images import drawn, png
from tests.media import mp3, wav
from tests.recorder import Recorder

NOT_RUN = {
    ("README.md", "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/impasto try"): "test_try tries it",
    (
        "README.md",
        "python3 -m venv .venv-dev && .venv-dev/bin/pip install -e '.[dev]' && .venv-dev/bin/pytest",
    ): ".ci/run runs it: it is all of this",
    ("README.md", ". .venv/bin/activate  # puts impasto on the PATH"): "it changes the reader's own shell",
    ("docs/quickstart.md", "python3 -m venv .venv && . .venv/bin/activate && pip install '.[gateway]'"): "as above",
    (
        "CONTRIBUTING.md",
        ".venv-dev/bin/pytest tests/core            # some of them, on all cores; -n 0 runs them in one process",
    ): ".ci/run runs the checks",
    ("docs/plugins.md", "impasto new-plugin acme"): "test_new_plugin does it, with its tests",
}
"""What can't be run here, and why."""

QUICK = attrs.evolve(SHORT, image_scale=0.15)
"""An emulator's settings: short times, and pictures that are large enough to be edited."""

ACME = '"""impasto_acme.py"""'
PICTURES = ("lighthouse", "fox", "mask", "sketch", "thumbnail", "city")
TRIED = {
    **{f"{name}.png": drawn("PNG", size=(160, 96)) for name in PICTURES},
    "mountains.jpg": drawn("JPEG", size=(160, 96)),
    "tune.wav": wav(12),
}
"""What stands where ``impasto try --all`` has been, as far as calls take it."""

OWN = {f"{name}.png": drawn("PNG", size=(160, 96)) for name in ("beach", "sky", "chair")}
OWN |= {"tune.mp3": mp3(12), "prompt.txt": b"a lighthouse at dusk\n"}
"""What the help of the command line takes for a user's own."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with serve(QUICK) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def variables(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's, whose providers are the emulator and whose PATH has impasto on it."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state")),
        "IMPASTO_POLL_INTERVAL": "0.05",
        "IMPASTO_MASTER_KEY": KEY,
        "KEY": KEY,
        "STABILITY_API_KEY": KEY,
        "STABILITY_API_BASE": emulator.url,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": emulator.url,
        "AWS_REGION": "us-west-2",
        "AWS_ACCESS_KEY_ID": "emulator",
        "AWS_SECRET_ACCESS_KEY": "emulator",
    }


@pytest.fixture(scope="module")
def gateway(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one gateway with every model that the models' pages configure."""
    path = tmp_path_factory.mktemp("gateway") / "config.yaml"
    entries = [block.text.removeprefix("model_list:\n") for page in MODELS for block in blocks(page, "yaml")]
    path.write_text("model_list:\n" + "".join(entries) + "general_settings: {master_key: os.environ/KEY}\n")
    words = [sys.executable, "-m", "impasto_plugins.cli", "serve", "--config", str(path), "--port", "0"]
    with subprocess.Popen(words, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
        process.terminate()


Read = Callable[[str], Reader]


@pytest.fixture
def at_home(variables: dict[str, str], emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh folder, the user's variables, and an account of charges that is empty."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "impasto_plugins.emulator.transport.EmulatorSettings.from_mapping", lambda fields: attrs.evolve(QUICK, **fields)
    )
    emulator.reset()


@pytest.fixture
def read(at_home: None, gateway: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Read]:
    """Reads a page from top to end."""
    reader = Reader(tmp_path, {GATEWAY: gateway}, request.getfixturevalue)

    def read(page: str) -> Reader:
        holder = TRIED if page in MODELS else OWN if page == "docs/reference/cli.md" else {}
        for name, data in holder.items():
            (tmp_path / name).write_bytes(data)
        for block in blocks(page):
            if not _elsewhere(page, block):
                reader.read(block)
        return reader

    yield read
    reader.close()


def _elsewhere(page: str, block: Block) -> bool:
    """Whether a block is listed with a reason, or has a test of its own."""
    return (page, block.begins) in NOT_RUN or block.begins == ACME or block.text in _METHODS


_METHODS = [block.text for block in blocks("docs/reference/hooks.md", "python")]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in (*MODELS, *OWN_TESTS, "README.md") and blocks(page)]
)
def test_a_page_does_what_it_shows(page: str, read: Read) -> None:
    read(page)


@pytest.mark.parametrize("page", [page for page in MODELS if blocks(page)])
def test_a_models_page_calls_it_in_each_form(page: str, read: Read, emulator: Emulator) -> None:
    read(page)
    calls = [block for block in blocks(page) if block.language in ("python", "sh")]
    assert len(emulator.charges) == len(calls) >= 3


def test_the_readme_does_what_it_shows(read: Read, emulator: Emulator, tmp_path: Path) -> None:
    message = read("README.md").output
    assert (tmp_path / "lighthouse.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "wide.webp").read_bytes().startswith(b"RIFF")
    assert "grow_mask must be a number from 0 to 100, not 500" in message
    assert "unknown parameter 'sede'; did you mean 'seed'?" in message
    assert len(emulator.charges) == 5 + 5 + 2, "Python: 2, 3, 0; commands; a batch"


def test_the_blocks_that_are_not_run_exist_and_are_few() -> None:
    for page, begins in NOT_RUN:
        assert begins in [block.begins for block in blocks(page)], f"{page} has no such block any more"
    assert len(NOT_RUN) < 9


def test_the_pages_with_their_own_tests_are_run_there() -> None:
    assert [page for page, path in OWN_TESTS.items() if f'"{page}"' not in (ROOT / path).read_text("utf-8")] == []


def test_the_files_are_those_of_impasto_try() -> None:
    names = {str(step.file) for step in STEPS} | {"mask.png", "sketch.png", "thumbnail.png", "tune.wav"}
    assert set(TRIED) <= names


def test_there_are_two_set_up_commands_and_each_can_be_found() -> None:
    installing = [
        line for block in blocks("README.md", "sh") for line in block.text.splitlines() if "pip install" in line
    ]
    assert len(installing) == 2
    for heading, end in (("## Install", "bin/impasto try"), ("## Run the tests", "bin/pytest")):
        command = PAGES["README.md"].partition(heading)[2].split("```sh\n")[1].partition("\n")[0]
        assert command.endswith(end)
        assert command in installing


async def test_the_readmes_plugin_works(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block.text for block in blocks("README.md", "python") if block.begins == ACME]
    results: dict[str, object] = {}
    exec(source, results)
    registry = impasto.Registry()
    registry.add(OPERATIONS, "acme/watercolour", results["watercolour"])
    registry.add(PROVIDERS, "acme", results["acme"])
    (declared,) = blocks("README.md", "toml")
    assert '"acme/watercolour" = "impasto_acme:watercolour"' in declared.text
    monkeypatch.setenv("ACME_API_KEY", KEY)
    providers = {"acme": {"api_base": recorder.url}}
    async with impasto.Client(registry=registry, providers=providers) as client:
        result = await client.run("acme/watercolour", prompt="a lighthouse", paper="rough")
        with pytest.raises(impasto.InvalidRequest, match="paper: must be one of rough, smooth"):
            await client.run("acme/watercolour", prompt="a lighthouse", paper="wet")
    assert result.artifacts[0].media_type == "image/png"
    (sent,) = recorder.requests
    assert sent.path == "/v1/paint"
    assert sent.fields == {"prompt": "a lighthouse", "paper": "rough"}
    assert sent.header("authorization") == f"Bearer {KEY}"


class Tokens:
    async def get(self, account: object, *, refused: bool) -> str:
        return "fresh" if refused else "stored"


def test_the_hooks_examples_make_a_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {**vars(records), **{name: getattr(impasto, name) for name in dir(impasto)}}
    names |= {"PNG": png(64, 64), "tokens": Tokens()}
    of = {re.findall(r"def (\w+)", text)[0]: textwrap.indent(text, "    ") for text in _METHODS}
    exec(f"class Carrier:\n{of.pop('send')}", names)
    exec(f"class Layer:\n{of.pop('middleware')}", names)
    exec("class Model(Operation):\n" + "\n".join(of.values()), names)
    core = impasto.Registry().operation("stability/stable-image-core")
    plugin = names["Model"](**{a.name: getattr(core, a.name) for a in attrs.fields(impasto.Operation) if a.init})
    registry = impasto.Registry()
    registry.add(OPERATIONS, "mine/painted", plugin)

    async def call() -> impasto.Result:
        async with impasto.Client(
            registry=registry, api_key=KEY, transport=names["Carrier"](), middleware=[names["Layer"]()]
        ) as client:
            return await client.run("mine/painted", prompt="a lighthouse")

    assert asyncio.run(call()).artifacts[0].data == png(64, 64)
    assert capsys.readouterr().out == "Stable Image Core 200\n"
