"""OpenAI's JavaScript SDK against the gateway, where Node.js and the package are found."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from tests.pictures import drawn

from .conftest import MASTER, Running

SCRIPT = Path(__file__).with_name("sdk.test.cjs")


@pytest.fixture(scope="session")
def node() -> str:
    """Node.js, which finds the package."""
    command = shutil.which("node")
    look = [command or "", "-e", "require('openai')"]
    if command is None or subprocess.run(look, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs Node.js and its package openai: npm install --prefix DIR openai; NODE_PATH=DIR/node_modules")
    return command


async def test_the_javascript_sdk(node: str, gateway: Running, impasto_emulator: Emulator, tmp_path: Path) -> None:
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    picture.write_bytes(drawn("PNG", size=(128, 128)))
    mask.write_bytes(drawn("PNG", "LA", size=(128, 128)))
    told = {"GATEWAY": gateway.url, "KEY": MASTER, "EMULATOR": impasto_emulator.url}
    process = await asyncio.create_subprocess_exec(
        *(node, "--test", "--test-reporter=tap", str(SCRIPT)),
        env={**os.environ, **told, "PICTURE": str(picture), "MASK": str(mask)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    assert b"# fail 0" in out
