"""Start-up: a fresh interpreter that imports impasto, over one that imports what impasto is made of."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from .measure import Ratio, compared, in_pairs

SMALL_THREE = "import attrs, cattrs, pluggy"
WITH_CLICK = "import attrs, cattrs, pluggy, click"
HELP = "import sys; sys.argv = ['impasto', '--help']; from impasto_cli.main import main; main()"

ROUNDS = 15


async def run(rounds: int) -> list[Ratio]:
    """CPU of whole processes."""
    return [
        await _over("import impasto", "import impasto", SMALL_THREE, rounds, 2.0),
        await _over("from impasto import Client", "from impasto import Client", SMALL_THREE, rounds),
        await _over(
            "from impasto import Client, floor with asyncio and ssl",
            "from impasto import Client",
            f"{SMALL_THREE}, asyncio, ssl",
            rounds,
        ),
        await _over("impasto --help", HELP, WITH_CLICK, rounds, 1.3),
    ]


async def _over(name: str, ours: str, floor: str, rounds: int, most: float | None = None) -> Ratio:
    async def first() -> float:
        return _cpu(ours)

    async def second() -> float:
        return _cpu(floor)

    return compared(name, await in_pairs(first, second, rounds), unit="ms CPU", most=most)


def _cpu(code: str) -> float:
    """Milliseconds of CPU of an interpreter that runs ``code``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3
