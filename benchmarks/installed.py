"""What further distributions cost those who do not call them: a process's first call, and ``impasto models``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from impasto import Registry
from impasto.registry import OPERATIONS
from impasto_plugins.cli.declarations import declared

from .imports import cpu
from .measure import Ratio, compared, in_pairs

FEW, MANY = 300, 3_000
ALLOWED_MS = 10.0
"""What 300 operations more may add to a first call."""

ROUNDS = 9

FIRST = """
import asyncio, impasto
class Nowhere:
    @impasto.hookimpl
    async def send(self, wire):
        with wire.call.sending(paid=True):
            raise impasto.NotSent("nowhere", retryable=False)
async def main():
    async with impasto.Client(api_key="k", api_base="http://127.0.0.1:9", transport=Nowhere()) as client:
        try:
            await client.run("stability/stable-image-core", prompt="a lighthouse")
        except impasto.NotSent:
            pass
asyncio.run(main())
"""
MODELS = "import sys; sys.argv = ['impasto', 'models']; from impasto_plugins.cli.main import main; main()"
MUST = """
import click, impasto
from importlib import import_module
for module in {modules}:
    import_module(module)
"""

MODULE = '''
import attrs
from impasto import Cost, FlatPrice, Operation
from impasto.fields import integer, text
from . import crowd, dialect

@attrs.frozen(kw_only=True)
class Params:
    """What it takes."""

    prompt: str = text(1, 2_000, required=True, role="prompt")
    seed: int | None = integer(0, 2**32 - 1)

operation = Operation(id="crowd/model-{i}", title="Model {i}", params=Params, target="/v1/{i}", provider=crowd,
    dialect=dialect, price=FlatPrice(cost=Cost(usd=0.02, as_of="2026-01-01")))
'''
PACKAGE = """
from impasto import Provider
crowd = Provider(name="crowd", base_url="https://crowd.example", key_variable="CROWD_KEY")
dialect = None  # nobody calls them
"""


async def run(rounds: int) -> list[Ratio]:
    """Whole processes, whose modules are compiled; the bounds are those of installing them."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = crowd(Path(folder, "few"), FEW), crowd(Path(folder, "many"), MANY)
        env = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(folder, "compiled"))}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        ours = {each.value.partition(":")[0] for each in declared(Registry(), OPERATIONS)}
        must = MUST.format(modules=sorted(ours | {f"crowd.model_{i}" for i in range(MANY)}))

        def measured(code: str, site: Path | None = None) -> Callable[[], Awaitable[float]]:
            async def once() -> float:
                return cpu(code, env if site is None else {**env, "PYTHONPATH": str(site)})

            return once

        first = await in_pairs(measured(FIRST, few), measured(FIRST), rounds)
        listed = await in_pairs(measured(MODELS, many), measured(must, many), rounds)
    allowed = [(ours, floor + ALLOWED_MS) for ours, floor in first]
    return [
        compared(f"first call, {FEW} more installed, over none and 10 ms", allowed, unit="ms CPU", most=1.0),
        compared(f"impasto models, {MANY:,} more, over importing them", listed, unit="ms CPU", most=1.3),
    ]


def crowd(site: Path, number: int) -> Path:
    """A folder with an installed distribution of so many operations, each a module."""
    package, info = site / "crowd", site / "crowd-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text(PACKAGE)
    for i in range(number):
        (package / f"model_{i}.py").write_text(MODULE.replace("{i}", str(i)))
    points = "\n".join(f"crowd/model-{i} = crowd.model_{i}:operation" for i in range(number))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crowd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{OPERATIONS}]\n{points}\n")
    return site
