"""The pytest plugin, as somebody else's test suite uses it: a process of its own, with no conftest of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUITE = """
import asyncio
import impasto
import pytest

async def call(emulator, **params):
    async with impasto.Client(api_base=emulator.url, api_key="any", poll_interval=0.02) as client:
        return await client.run("stability/stable-image-core", prompt="x", **params)

def test_without_a_loop(impasto_emulator):
    asyncio.run(call(impasto_emulator))
    assert impasto_emulator.credits == 3

async def test_with_a_loop(impasto_emulator):
    assert impasto_emulator.requests == [], "it forgets everything between tests"
    result = await call(impasto_emulator, seed=5)
    assert result.artifacts[0].seed == impasto_emulator.charges[0].seed == 5

def test_faults(impasto_emulator):
    impasto_emulator.fault("status", status=402)
    with pytest.raises(impasto.PaymentRequired):
        asyncio.run(call(impasto_emulator))

def test_faults_end_with_their_test(impasto_emulator):
    asyncio.run(call(impasto_emulator))
"""
OVERRIDE = """
import pytest

@pytest.fixture(scope="session")
def impasto_emulator_settings():
    return {"credits": 1.0}
"""


def _pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_fixture_serves_tests_with_and_without_a_loop(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = _pytest(tmp_path)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_its_settings_can_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(OVERRIDE)
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = _pytest(tmp_path, "-k", "with_a_loop or without")
    assert "2 failed" in done.stdout
    assert "PaymentRequired" in done.stdout


def test_it_costs_nothing_until_it_is_used(tmp_path: Path) -> None:
    code = (
        "import impasto.testing.plugin, sys;"
        "print(*(m for m in ('aiohttp', 'PIL', 'cattrs', 'impasto_plugins.emulator') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
