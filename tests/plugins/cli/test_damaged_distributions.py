"""Every command with damaged distributions and hostile plugins installed: it answers, and help and doctor name them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.damage import damage
from tests.distributions import install

HOSTILE = {
    "loops": "while True: pass",
    "exits": "import os; os._exit(0)",
    "aborts": "import os; os.abort()",
    "closes": "import os, sys; sys.stdout.close(); os.closerange(0, 3)",
    "raises": "raise GeneratorExit",
}


def run(site: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, "-m", "impasto_plugins.cli", *words],
        env={**os.environ, "PYTHONPATH": str(site), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in ran.stderr
    return ran


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for seed in range(60):
        damage(folder, seed)
    for name in ("impasto-0.0.9.dist-info", "~mpasto-0.0.9.dist-info"):
        (folder / name).mkdir()
    (folder / "impasto-0.0.9.dist-info" / "entry_points.txt").write_text("[impasto.commands]\nmodels = evil:models\n")
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, source in HOSTILE.items():
        points: Mapping[str, Mapping[str, str]] = {
            "impasto.operations": {f"{name}/paint": f"{name}_plugin:paint"},
            "impasto.providers": {name: f"{name}_plugin:provider"},
            "impasto.commands": {name: f"{name}_plugin:command"},
        }
        install(folder, name, points, {f"{name}_plugin": source})
    return folder


@pytest.mark.parametrize("allow", ["all", "none", "not a name", ""])
def test_help_and_doctor_work_and_name_the_folder(site: Path, allow: str) -> None:
    done = run(site, "--help", IMPASTO_PLUGINS=allow)
    assert done.returncode == 0
    assert "impasto-0.0.9.dist-info" in "".join(done.stdout.split())
    assert "List the installed models." in done.stdout
    done = run(site, "doctor", "--json", IMPASTO_PLUGINS=allow)
    assert done.returncode == 1
    found = {each["subject"]: each["text"] for each in json.loads(done.stdout)["findings"]}
    for name in ("impasto-0.0.9.dist-info", "~mpasto-0.0.9.dist-info"):
        assert found[str(site / name)]
    assert ("IMPASTO_PLUGINS" in found) == (allow == "not a name")


@pytest.mark.parametrize("allow", ["all", "none"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("models", "--json"), 0),
        (("plugins",), 0),
        (("describe", "stability/sd3"), 0),
        (("describe", "damaged3/paint"), 2),
        (("new-plugin", "x", "-o", "-/"), 0),
        (("account",), 2),
        (("generate", "stability/sd3", "x"), 2),
    ],
)
def test_other_commands_do_as_ever(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, allow: str, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(site, *words, IMPASTO_PLUGINS=allow)
    assert ran.returncode == code, ran.stderr
    assert ran.stdout if code == 0 else ran.stderr.startswith(("Error: ", "Usage: "))


@pytest.mark.parametrize("words", [("--help",), ("models",), ("models", "--json"), ("plugins",), ("try", "--help")])
def test_listing_imports_nothing_of_others(hostile: Path, words: tuple[str, ...]) -> None:
    ran = run(hostile, *words)
    assert (ran.returncode, ran.stderr) == (0, "")
    if words == ("models",):
        assert "aborts/paint  from aborts 1.0" in ran.stdout


def test_doctor_outlives_every_import(hostile: Path) -> None:
    code = (
        "import impasto_plugins.cli.checks.imports as p; p.LONGEST_SECONDS = 1.0\n"
        "import impasto_plugins.cli.main as m; m.main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": str(hostile)},
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 1
    found = {each["subject"]: (each["state"], each["text"]) for each in json.loads(ran.stdout)["findings"]}
    for name in HOSTILE:
        assert found[f"impasto.operations {name}/paint"][0] == "broken"


@pytest.mark.parametrize("name", ["raises", "closes"])
def test_calling_one_says_what_is_wrong(hostile: Path, name: str) -> None:
    ran = run(hostile, "describe", f"{name}/paint")
    assert ran.returncode != 0
    assert name == "closes" or "'raises/paint' of raises 1.0 failed to load" in ran.stderr
