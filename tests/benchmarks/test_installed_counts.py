"""What further distributions cost those who do not call them, as counts: they hold on every machine."""

from __future__ import annotations

import asyncio
import cProfile
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from benchmarks.dispatch import GIVEN, MODEL, many_installed
from benchmarks.installed import crowd
from click.testing import CliRunner

from impasto import Registry
from impasto.registry import OPERATIONS
from impasto_plugins.cli.main import main
from tests.benchmarks.test_counts import Nowhere, a_client


def calls(work: Callable[[], object]) -> int:
    profile = cProfile.Profile()
    with profile:
        work()
    return sum(entry.callcount for entry in profile.getstats())


def test_each_operation_more_costs_a_few_function_calls_when_metadata_is_read() -> None:
    """31 when this was written, some microseconds: 300 are far below the 10 ms of ``benchmarks installed``."""

    def reading(number: int) -> int:
        with many_installed(number):
            Registry().names(OPERATIONS)
            return calls(lambda: Registry().names(OPERATIONS))

    assert reading(300) - reading(0) < 40 * 300


def test_a_later_call_makes_no_more_function_calls_whatever_is_installed() -> None:
    async def later(registry: Registry) -> int:
        async with a_client(Nowhere(), registry) as client:
            await client.run(MODEL, **GIVEN)
            profile = cProfile.Profile()
            with profile:
                for _ in range(50):
                    await client.run(MODEL, **GIVEN)
        return sum(entry.callcount for entry in profile.getstats())

    counts = []
    for number in (0, 300):
        with many_installed(number) as registry:
            counts.append(asyncio.run(later(registry)))
    assert counts[1] < counts[0] + 50, "less than one for each call"


def test_a_listed_model_costs_few_function_calls_beside_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some 150 when this was written; its import alone makes thousands."""
    number = 200
    site = str(crowd(tmp_path / "site", number))
    monkeypatch.syspath_prepend(site)
    try:
        for i in range(number):
            import_module(f"crowd.model_{i}")
        assert f"crowd/model-{number - 1}" in CliRunner().invoke(main, ["models"]).stdout
        with_them = calls(lambda: CliRunner().invoke(main, ["models"]))
        sys.path.remove(site)
        CliRunner().invoke(main, ["models"])  # what is installed has changed, and is read anew once
        without = calls(lambda: CliRunner().invoke(main, ["models"]))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "crowd"]:
            del sys.modules[name]
    print((with_them - without) / number)
    assert 0 < with_them - without < 250 * number
