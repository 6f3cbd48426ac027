"""Start-up: a fresh interpreter that imports impasto, or makes a first call, over the least that does the same."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping

from .measure import Ratio, compared, in_pairs
from .server import running

SMALL_THREE = "import attrs, cattrs, pluggy"
WITH_CLICK = "import attrs, cattrs, pluggy, click"
CLIENT = "from impasto import Client"
HELP = "import sys; sys.argv = ['impasto', '--help']; from impasto_plugins.cli.main import main; main()"

FIRST = """
import asyncio, impasto
async def main():
    async with impasto.Client(api_key="k", api_base={url!r}) as client:
        await client.run("stability/stable-image-core", prompt="a lighthouse")
asyncio.run(main())
"""
FIRST_BY_HAND = """
import asyncio
from benchmarks.floors import loop
async def main():
    async with loop.session() as session:
        await loop.post(session, {url!r} + "/v2beta/stable-image/generate/core", {{"prompt": "a lighthouse"}})
asyncio.run(main())
"""

ROUNDS = 15


CASES = (
    ("import impasto", "import impasto", SMALL_THREE, 2.0),
    ("from impasto import Client", CLIENT, SMALL_THREE, None),
    ("from impasto import Client, floor with asyncio and ssl", CLIENT, f"{SMALL_THREE}, asyncio, ssl", None),
    ("impasto --help", HELP, WITH_CLICK, 1.3),
)


async def run(rounds: int) -> list[Ratio]:
    """CPU of whole processes, all of whose modules are compiled, as those of what is installed are."""
    with tempfile.TemporaryDirectory() as compiled:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        env.pop("PYTHONDONTWRITEBYTECODE", None)

        def measured(code: str) -> Callable[[], Awaitable[float]]:
            async def once() -> float:
                return cpu(code, env)

            return once

        with running() as url:
            first = ("import and first call", FIRST.format(url=url), FIRST_BY_HAND.format(url=url), None)
            return [
                compared(name, await in_pairs(measured(ours), measured(floor), rounds), unit="ms CPU", most=most)
                for name, ours, floor, most in (*CASES, first)
            ]


def cpu(code: str, env: Mapping[str, str]) -> float:
    """Milliseconds of CPU of an interpreter that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3
