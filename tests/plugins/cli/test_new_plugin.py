"""What `impasto new-plugin` writes: built and installed as anybody's distribution, it passes its own tests at once and
is called from the command line, through the gateway and by the batch runner."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import attrs
import pytest

from impasto_plugins.cli.main import main
from tests.distributions import install
from tests.plugins.cli.conftest import Run

CONFIG = """
model_list:
  - model_name: paint
    provider_params: {model: acme-studio/paint}
"""
SERVING = """
import asyncio
from impasto_acme_studio.stand_in import serve

async def main():
    async with serve() as url:
        print(url, flush=True)
        await asyncio.sleep(300)

asyncio.run(main())
"""

PATIENT = """
from impasto.testing import OperationSuite

OperationSuite.seconds = 60  # other tests use the processor at the same time
"""


@attrs.frozen
class NewPlugin:
    """A package that was written and installed, and the variables of whoever uses it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, module: str = "impasto_plugins.cli") -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> NewPlugin:
    """Written, built by its own build backend and installed, beside whatever else is installed."""
    folder = tmp_path_factory.mktemp("made") / "impasto-acme-studio"
    main(["new-plugin", "acme-studio", "-o", str(folder)], standalone_mode=False)
    (folder / "conftest.py").write_text(PATIENT)
    site = folder.parent / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, str(folder)], check=True, capture_output=True)
    names = {"PYTHONPATH": str(site), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    mine = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}  # those of this run
    return NewPlugin(folder, {**mine, **names})


@pytest.fixture
def with_emulator(plugin: NewPlugin) -> Iterator[NewPlugin]:
    """The same while its stand-in of the provider is served."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVING], env=plugin.environment, stdout=subprocess.PIPE, text=True
    ) as stand_in:
        assert stand_in.stdout is not None
        base = {"ACME_STUDIO_API_BASE": stand_in.stdout.readline().strip(), "ACME_STUDIO_API_KEY": "any-key"}
        yield attrs.evolve(plugin, environment={**plugin.environment, **base})
        stand_in.terminate()


def test_its_own_tests_pass_at_once(plugin: NewPlugin) -> None:
    result = plugin.run("-q", "-p", "no:cacheprovider", module="pytest")
    assert re.search(r"^(5\d) passed", result, re.MULTILINE)


def test_its_tests_run_without_pytest_asyncio(plugin: NewPlugin) -> None:
    """With it they run in all other tests: it warns before the first one, and warnings are errors."""
    plugin.run("-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "-k", "wrong_key", module="pytest")


def test_its_types_are_strict(plugin: NewPlugin) -> None:
    plugin.run("--strict", "src", "tests", module="mypy")


def test_its_tests_install_what_the_suite_needs(plugin: NewPlugin) -> None:
    extras = tomllib.loads((plugin.folder / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "impasto[gateway]" in extras["test"], "the suite starts a gateway"


def test_its_stand_in_is_its_emulator(plugin: NewPlugin) -> None:
    payload = json.loads(plugin.run("generate", "acme-studio/paint", "a fox", "-o", "free.png", "--json", "--emulator"))
    assert [Path(each["path"]).name for each in payload["files"]] == ["free.png"]


def test_it_holds_no_word_of_the_template(plugin: NewPlugin) -> None:
    written = [path for path in plugin.folder.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".png")]
    written = [path for path in written if ".mypy_cache" not in path.parts]
    assert len(written) > 10
    for path in written:
        text = path.read_text("utf-8")
        assert not re.search(r"\$(?!\{\{)\w", text), path
        assert not re.search(r"PACKAGE|DOT|\.template", str(path.relative_to(plugin.folder)))


def test_it_is_called_from_the_command_line(with_emulator: NewPlugin) -> None:
    assert "acme-studio/paint" in with_emulator.run("models")
    payload = json.loads(with_emulator.run("generate", "acme-studio/paint", "a lighthouse", "-o", "made.png", "--json"))
    assert payload["cost"]["usd"] == 0.02
    assert (with_emulator.folder / "made.png").read_bytes().startswith(b"\x89PNG")


def test_the_batch_runner_takes_it(with_emulator: NewPlugin) -> None:
    (with_emulator.folder / "rows.jsonl").write_text(
        '{"id": "one", "model": "acme-studio/paint", "prompt": "a lighthouse"}\n'
    )
    with_emulator.run("batch", "run", "rows.jsonl", "--out", "pictures")
    assert [path.name for path in (with_emulator.folder / "pictures").rglob("one*.png")]


def test_the_gateway_serves_it(with_emulator: NewPlugin) -> None:
    (with_emulator.folder / "config.yaml").write_text(CONFIG)
    words = ["-m", "impasto_plugins.cli", "serve", "--config", "config.yaml", "--port", "0", "--no-auth"]
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=with_emulator.folder,
        env=with_emulator.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as gateway:
        assert gateway.stdout is not None
        url = gateway.stdout.readline().split()[-1]
        payload = json.dumps({"model": "paint", "prompt": "a lighthouse", "style": "ink"}).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/images/generations", payload, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            picture = json.load(answer)["data"][0]
        gateway.terminate()
    assert base64.b64decode(picture["b64_json"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["Acme", "acme_studio", "-acme", "acme--x", "", "../acme", "a" * 41])
def test_a_name_that_can_be_no_package_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    result = run("new-plugin", "--", name)
    assert result.exit_code == 2
    assert "lower-case letters, digits and single dashes" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "impasto-acme").mkdir()
    (tmp_path / "impasto-acme" / "mine.txt").write_text("mine")
    result = run("new-plugin", "acme")
    assert result.exit_code == 2
    assert "'impasto-acme' is not empty" in result.output
    assert [path.name for path in (tmp_path / "impasto-acme").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "taken"),
    [("plugins", "the module impasto_plugins"), ("stability", "the provider stability"), ("bedrock", "the provider")],
)
def test_a_name_that_would_overwrite_ours_is_refused(run: Run, name: str, taken: str) -> None:
    result = run("new-plugin", name)
    assert result.exit_code == 2
    assert f"{taken}" in result.stderr
    assert "is installed already; choose another name" in " ".join(result.stderr.split())
    assert not Path(f"impasto-{name}").exists()


@pytest.mark.parametrize("name", ["openai", "batch", "gateway", "cli", "media", "images", "middleware"])
def test_no_plugin_lands_in_a_package_of_ours(run: Run, name: str) -> None:
    assert run("new-plugin", name).exit_code == 0
    assert [path.name for path in Path(f"impasto-{name}/src").iterdir()] == [f"impasto_{name}"]
    assert find_spec(f"impasto_{name}") is None


@pytest.mark.parametrize("kind", ["--job", "--transport", "--middleware"])
def test_the_other_kinds_pass_their_own_tests(tmp_path: Path, kind: str) -> None:
    folder, name = tmp_path / "package", f"acme{kind[1:]}"
    main(["new-plugin", name, kind, "-o", str(folder)], standalone_mode=False)
    (folder / "conftest.py").write_text(PATIENT)
    points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    quoted = {group: {f"{key}": value for key, value in names.items()} for group, names in points.items()}
    install(folder / "src", f"impasto-{name}", quoted, {})
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
