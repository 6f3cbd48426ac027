"""Node.js with packages from npm, for tests whose client is JavaScript."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def find_node(*packages: str) -> str:
    """Return the command of a Node.js that finds these packages; skip the test if there is none.

    Where NODE_PATH is set, as .ci/run does, a package that is missing fails the test instead.
    """
    command = shutil.which("node")
    script = "".join(f"require({package!r});" for package in packages)
    if command is not None:
        found = subprocess.run([command, "-e", script], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return command
        assert "NODE_PATH" not in os.environ, found.stderr
    pytest.skip(f"needs Node.js and npm install --prefix DIR {' '.join(packages)}; NODE_PATH=DIR/node_modules")


async def run_node_tests(command: str, script: Path, **environment: str) -> None:
    """Run a script's tests with ``node --test``."""
    process = await asyncio.create_subprocess_exec(
        *(command, "--test", "--test-reporter=tap", str(script)),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, out.decode()
    assert b"# fail 0" in out
