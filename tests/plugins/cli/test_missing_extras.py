"""Without an extra a command ends with 2 before anything is sent, and names the command that installs the extra."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import sys
for name in {modules!r}:
    sys.modules[name] = None  # as if it were not installed
sys.argv = ["impasto", *{words!r}]
from impasto_plugins.cli.main import main
main(prog_name="impasto")
"""
AWS = ("aiobotocore", "botocore")
CASES = [
    (("lameenc",), "audio stability/stable-audio-2.5/text-to-audio rain --emulator", "emulator"),
    (("lameenc",), "audio stability/stable-audio-3/text-to-audio rain --emulator -n 2", "emulator"),
    (("yaml",), "serve --config none.yaml --check", "gateway"),
    (("pybase64",), "serve --config none.yaml --check", "gateway"),
    (("prometheus_client",), "serve --config none.yaml --check", "gateway"),
    (AWS, "generate bedrock/stability.sd3-5-large-v1:0 x --emulator", "bedrock"),
    (("pybase64",), "generate bedrock/stability.sd3-5-large-v1:0 x --emulator", "bedrock"),
    (AWS, "batch run m.jsonl --out s3://bucket/x --staging st --emulator", "s3"),
    (("pyarrow",), "batch run m.parquet --out out --emulator", "batch"),
]


@pytest.mark.parametrize(("modules", "words", "extra"), CASES)
def test_a_missing_extra_is_named_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...], words: str, extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.jsonl").write_text('{"id": "a", "model": "stability/stable-image-core", "prompt": "x"}\n')
    Path("m.parquet").write_text("")
    code = WITHOUT.format(modules=modules, words=words.split())
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert ran.returncode == 2, ran.stderr
    assert f"pip install 'impasto[{extra}]'" in ran.stderr
    assert ran.stdout == ""
    assert not list(tmp_path.glob("**/*.bin"))
