"""``python -m benchmarks [case ...] [--peers] [--against PYTHON] [--rounds N] [--json]``.

Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version

import attrs

from .measure import Ratio

CASES = {
    "dispatch": "what a call costs before and after the network",
    "imports": "start-up, and the command line's help",
    "installed": "what further distributions cost those who do not call them",
    "call": "CPU of a call over a real socket",
    "bedrock": "the same on Bedrock, and the loop's lag",
    "inflight": "calls in flight: their memory, how soon they are through, their order",
    "polls": "how late the polls of many jobs are",
    "lag": "how long the loop is held up by large answers",
    "batch": "what a batch's row costs, how fast a manifest is looked at and a run taken up",
    "emulator": "how long the emulator takes for a call",
    "state": "CPU of operations on a store of state",
    "gateway": "answers a second, memory and start of impasto serve",
}
"""Each is a module of this package with ``ROUNDS`` and ``async def run(rounds) -> list[Ratio]``.

Where it has peers, with ``async def peers(rounds)`` too; where another installation of impasto can be measured beside
this one, with ``async def against(rounds, python)``.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help="; ".join(f"{n}: {what}" for n, what in CASES.items()))
    parser.add_argument("--rounds", type=int, default=0, help="pairs to measure (each case has a default)")
    parser.add_argument("--peers", action="store_true", help="other people's software too, in environments of its own")
    parser.add_argument("--against", metavar="PYTHON", help="the interpreter of another installation of impasto")
    parser.add_argument("--json", action="store_true", help="one object a line")
    asked = parser.parse_args()
    if unknown := set(asked.cases) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    if asked.json:
        print(json.dumps({"about": about()}), flush=True)
    missed = False
    for name in asked.cases or CASES:
        case = import_module(f"benchmarks.{name}")
        runs = [case.run, *([case.peers] if asked.peers and hasattr(case, "peers") else [])]
        if asked.against and hasattr(case, "against"):
            runs.append(partial(case.against, python=asked.against))
        for run in runs:
            ratios: list[Ratio] = asyncio.run(run(asked.rounds or case.ROUNDS))
            for ratio in ratios:
                missed |= not ratio.held
                told = json.dumps({"case": name, **attrs.asdict(ratio)}) if asked.json else shown(ratio)
                print(told, flush=True)
    return int(missed)


def about() -> str:
    """The machine and the versions, for whoever reads the figures later."""
    names = ("aiohttp", "aiobotocore", "attrs", "cattrs", "click", "pluggy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    load = f"load {os.getloadavg()[0]:.1f} when it began"
    system = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores, {load}"
    return f"{datetime.now(UTC):%Y-%m-%d}: {system}; Python {platform.python_version()}, {versions}."


def shown(r: Ratio) -> str:
    """A ratio as a line."""
    bound = f"  at most {r.most:g}" if r.most is not None else f"  at least {r.least:g}" if r.least is not None else ""
    target = bound and f"{bound}: {'held' if r.held else 'MISSED'}"
    return (
        f"{r.name:52} {r.ratio:6.2f}  [{r.low:.2f}..{r.high:.2f}]  "
        f"{r.ours:,.1f} / {r.floor:,.1f} {r.unit}, {r.pairs} pairs{target}"
    )


if __name__ == "__main__":
    sys.exit(main())
