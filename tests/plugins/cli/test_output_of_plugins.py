"""Plugins that print, close or replace the streams, or fail at exit: the output stays the command's."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from tests.distributions import install

NOISE = {
    "prints": "print('noise'); import os; os.write(1, b'noise'); os.system('echo noise')",
    "closes_stdout": "sys.stdout.close()",
    "closes_both": "sys.stdout.close(); sys.stderr.close()",
    "closes_descriptors": "if 'once' not in globals(): import os; globals()['once'] = os.closerange(1, 3)",
    "replaces_stdout": "sys.stdout = sys.stderr = Broken()",
    "fails_at_exit": "import atexit; atexit.register(leave); atexit.register(print, 'noise')",
    "replaces_at_exit": "import atexit; atexit.register(lambda: setattr(sys, 'stdout', Broken()))",
}
LOUD = """
import sys
import attrs
from impasto_plugins.stability.stable_image_core import operation


class Broken:
    def __getattr__(self, name):
        raise RuntimeError(name)


def leave():
    raise SystemExit(7)


def noise():
    {}


noise()


@attrs.frozen
class Loud:
    quiet: object = operation.dialect

    def __getattr__(self, name):
        noise()
        return getattr(self.quiet, name)


loud = attrs.evolve(operation, id="acme/loud", dialect=Loud())
"""


CONFIG = """
model_list:
  - model_name: loud
    litellm_params: {model: acme/loud, api_key: sk-tests-tests-tests}
"""


def install_loud(folder: Path, noise: str) -> None:
    install(
        folder / "site",
        "acme-loud",
        {"impasto.operations": {"acme/loud": "loud:loud"}},
        {"loud": LOUD.format(NOISE[noise])},
    )


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "impasto", *words],
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def run(folder: Path, noise: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    install_loud(folder, noise)
    return subprocess.run(
        [sys.executable, "-m", "impasto", *words],
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("noise", NOISE)
def test_json_stays_json(tmp_path: Path, noise: str) -> None:
    ran = run(tmp_path, noise, "describe", "acme/loud", "--json")
    assert json.loads(ran.stdout)["model"] == "acme/loud"
    assert ran.returncode == 0
    assert b"Traceback" not in ran.stderr
    assert b"fault in" not in ran.stderr
    assert (b"noise" in ran.stderr) is (noise in ("prints", "fails_at_exit"))


@pytest.mark.parametrize("noise", NOISE)
def test_an_image_on_standard_output_stays_whole(tmp_path: Path, noise: str) -> None:
    ran = run(tmp_path, noise, "generate", "acme/loud", "x", "--emulator", "-o", "-")
    assert ran.stdout.startswith(b"\x89PNG")
    assert ran.stdout.endswith(b"IEND\xaeB`\x82")
    Image.open(io.BytesIO(ran.stdout)).verify()
    assert ran.returncode == 0


def test_an_error_is_reported_although_a_plugin_closed_the_streams(tmp_path: Path) -> None:
    ran = run(tmp_path, "closes_both", "generate", "acme/loud", "x", "-p", "seed=no", "--json")
    assert json.loads(ran.stdout)["error"]["problems"][0]["field"] == "seed"
    assert b"Error: " in ran.stderr
    assert ran.returncode == 2


def test_a_batch_reports_json_although_plugins_print(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "model": "acme/loud", "prompt": "x"}\n')
    ran = run(tmp_path, "prints", "batch", "run", "rows.jsonl", "--out", "out", "--emulator", "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout.splitlines()[-1])["done"] == 1
    assert b"noise" in ran.stderr


@pytest.mark.parametrize("noise", ["prints", "closes_both"])
def test_the_check_of_a_configuration_prints_its_result_only(tmp_path: Path, noise: str) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    ran = run(tmp_path, noise, "serve", "--config", "c.yaml", "--no-auth", "--check")
    assert (ran.returncode, ran.stdout) == (0, b"c.yaml is valid: 1 model\n"), ran.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("noise", ["prints", "closes_descriptors", "replaces_stdout"])
def test_a_gateway_prints_its_address_and_its_log_only(tmp_path: Path, noise: str, workers: str) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    install_loud(tmp_path, noise)
    with start(tmp_path, "serve", "--config", "c.yaml", "--no-auth", "--port", "0", "--workers", workers) as gateway:
        assert gateway.stdout is not None
        words = gateway.stdout.readline().split()
        assert words[:2] == ["RUNNING", "on"]
        body = json.dumps({"model": "loud", "prompt": "x", "seed": "no"}).encode()
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(f"{words[2]}/v1/images/generations", body, {"content-type": "application/json"}))
        refused.value.close()
        gateway.terminate()
        lines = gateway.stdout.read().splitlines()
    assert [json.loads(line)["status"] for line in lines] == [400]
    assert gateway.returncode == 0


def test_a_plugin_that_fails_at_the_end_of_the_process_is_named(tmp_path: Path) -> None:
    ran = run(tmp_path, "fails_at_exit", "describe", "acme/loud")
    assert b"Warning: an error in loud.leave was ignored: SystemExit: 7" in ran.stderr


def test_a_fault_of_a_plugins_command_names_its_distribution(tmp_path: Path) -> None:
    module = "import click\n@click.command()\ndef command():\n    print('result')\n    raise ValueError('no')\n"
    install(
        tmp_path / "site", "acme-tools", {"impasto.commands": {"acme": "acme_tools:command"}}, {"acme_tools": module}
    )
    ran = subprocess.run(
        [sys.executable, "-m", "impasto", "acme"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "result\n")
    assert ran.stderr.splitlines() == [
        "Error: unexpected ValueError in acme_tools, line 5: no",
        "This is a fault in acme-tools 1.0; please report it to its authors.",
    ]
