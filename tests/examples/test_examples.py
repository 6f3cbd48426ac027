"""The example packages, each built and installed as its own distribution: their own tests, and all three at work."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.architecture.sources import ROOT
from tests.distributions import pip_install

EXAMPLES = ROOT / "examples"
NAMES = ("impasto-cache", "impasto-cassette", "impasto-easel")
MODEL = "easel/gouache"
CONFIG = """
model_list:
  - model_name: gouache
    provider_params: {model: easel/gouache}
general_settings: {middleware: [cache], plugins: [impasto-easel, impasto-cache]}
"""
SERVING = """
import asyncio, sys
from impasto_easel.stand_in import serving

async def main():
    async with serving() as easel:
        print(easel.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(easel.charges, flush=True)

asyncio.run(main())
"""
"""Serves until its input ends, then prints the number of charges."""


@attrs.frozen
class Site:
    """Where the three are installed, and a working folder of somebody who uses them."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, module: str = "impasto_plugins.cli", **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def price_of(self, out: str, *words: str, **variables: str) -> float:
        """What one picture cost, by the command line."""
        payload = json.loads(
            self.run("generate", MODEL, "a lighthouse", "-p", "seed=7", "-o", out, "--json", *words, **variables)
        )
        usd = payload["cost"]["usd"]
        assert isinstance(usd, float)
        return usd


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("examples") / "site"
    pip_install(site, *(EXAMPLES / name for name in NAMES))
    return site


@pytest.fixture
def site(packages: Path, tmp_path: Path) -> Site:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("IMPASTO_", "PYTEST_"))}
    places = {"PYTHONPATH": str(packages), "IMPASTO_CACHE": "kept", "IMPASTO_CASSETTE": "calls.jsonl"}
    return Site(tmp_path, {**mine, **places})


@pytest.fixture
def with_provider(site: Site) -> Iterator[tuple[Site, subprocess.Popen[str]]]:
    """The same while a stand-in of the example's provider is served."""
    command = [sys.executable, "-c", SERVING]
    with subprocess.Popen(
        command, env=site.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as easel:
        assert easel.stdout is not None
        reach = {"EASEL_API_BASE": easel.stdout.readline().strip(), "EASEL_API_KEY": "any-key"}
        yield attrs.evolve(site, environment={**site.environment, **reach}), easel


def charges(easel: subprocess.Popen[str]) -> int:
    """How many pictures the provider was paid for, in all. It ends with that."""
    return int(easel.communicate(timeout=60)[0])


def test_their_own_tests_pass(site: Site) -> None:
    ini = EXAMPLES / "impasto-easel" / "pyproject.toml"
    folders = [str(EXAMPLES / name / "tests") for name in NAMES]
    result = site.run("-q", "-p", "no:cacheprovider", "-c", str(ini), *folders, module="pytest")
    passed = re.search(r"^(\d+) passed", result, re.MULTILINE)
    assert passed
    assert int(passed[1]) > 75


def test_each_is_a_distribution_of_its_own_whose_plugins_import(site: Site) -> None:
    rows = json.loads(site.run("plugins", "--json"))
    ours = {(row["distribution"], row["group"], row["name"]): row for row in rows if row["distribution"] in NAMES}
    assert set(ours) == {
        ("impasto-cache", "impasto.middleware", "cache"),
        ("impasto-cassette", "impasto.transports", "cassette"),
        ("impasto-easel", "impasto.emulators", "easel"),
        ("impasto-easel", "impasto.operations", MODEL),
        ("impasto-easel", "impasto.providers", "easel"),
    }
    assert {row["state"] for row in ours.values()} == {"declared"}
    assert all("as installed" in row["files"] for row in ours.values())
    site.run("doctor")


def test_the_emulator_of_the_example_needs_no_key(site: Site) -> None:
    assert site.price_of("free.png", "--emulator") == 0.04


def test_from_the_command_line_a_kept_or_a_replayed_picture_costs_nothing(
    with_provider: tuple[Site, subprocess.Popen[str]],
) -> None:
    site, easel = with_provider
    recording = ("--middleware", "cache", "--transport", "cassette")
    assert site.price_of("paid.png", *recording, IMPASTO_CASSETTE_MODE="auto") == 0.04
    assert site.price_of("kept.png", "--middleware", "cache") == 0
    assert charges(easel) == 1
    elsewhere = {"EASEL_API_BASE": "", "EASEL_API_KEY": ""}  # nothing is reached, and nobody's key is known
    without = attrs.evolve(site, environment={k: v for k, v in site.environment.items() if k not in elsewhere})
    assert without.price_of("replayed.png", "--transport", "cassette") == 0
    paid = (site.folder / "paid.png").read_bytes()
    assert paid.startswith(b"\x89PNG")
    assert (site.folder / "kept.png").read_bytes() == (site.folder / "replayed.png").read_bytes() == paid


def test_a_batch_pays_for_equal_rows_once_and_says_so(with_provider: tuple[Site, subprocess.Popen[str]]) -> None:
    site, easel = with_provider
    rows = [{"id": f"row-{i}", "model": MODEL, "prompt": "a lighthouse", "seed": 1 + i % 2} for i in range(6)]
    (site.folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    site.run("batch", "run", "rows.jsonl", "--out", "pictures", "--middleware", "cache", "--budget", "1")
    status = json.loads(site.run("batch", "status", "pictures", "--json"))
    assert (status["state"], status["done"], status["cost_usd"]) == ("complete", 6, 0.08)
    assert charges(easel) == 2


def test_the_gateway_serves_them(with_provider: tuple[Site, subprocess.Popen[str]]) -> None:
    site, easel = with_provider
    (site.folder / "config.yaml").write_text(CONFIG)
    words = ["-m", "impasto_plugins.cli", "serve", "--config", "config.yaml", "--port", "0", "--no-auth"]
    messages = []
    with subprocess.Popen(
        [sys.executable, *words], cwd=site.folder, env=site.environment, stdout=subprocess.PIPE, text=True
    ) as gateway:
        assert gateway.stdout is not None
        url = gateway.stdout.readline().split()[-1]
        for _ in range(2):
            payload = json.dumps({"model": "gouache", "prompt": "a lighthouse", "seed": 7}).encode()
            headers = {"content-type": "application/json"}
            request = urllib.request.Request(f"{url}/v1/images/generations", payload, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:
                messages.append((json.load(answer)["data"][0]["b64_json"], float(answer.headers["x-impasto-cost-usd"])))
        gateway.terminate()
    assert base64.b64decode(messages[0][0]).startswith(b"\x89PNG")
    assert [usd for _, usd in messages] == [0.04, 0]
    assert messages[0][0] == messages[1][0]
    assert charges(easel) == 1
