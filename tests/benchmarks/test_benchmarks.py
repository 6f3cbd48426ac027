"""The benchmarks run, and say what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from benchmarks import page, state
from benchmarks.__main__ import CASES
from benchmarks.measure import compared


def test_a_case_prints_a_ratio_with_its_spread() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "dispatch", "--rounds", "2", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,  # 1 where a target is missed: on a busy machine it may be
    )
    assert done.returncode in (0, 1)
    about, *ratios = [json.loads(line) for line in done.stdout.splitlines()]
    assert "cores" in about["about"]
    assert {ratio["case"] for ratio in ratios} == {"dispatch"}
    assert {"dispatch", "dispatch, 3,000 operations installed over 2"} <= {ratio["name"] for ratio in ratios}
    assert all(0 < ratio["low"] <= ratio["ratio"] <= ratio["high"] for ratio in ratios)


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_a_module_with_what_the_command_calls(name: str) -> None:
    module = __import__(f"benchmarks.{name}", fromlist=["run"])
    assert callable(module.run)
    assert module.ROUNDS >= 2


async def test_the_state_on_sqlite_is_compared_with_another_installation() -> None:
    (ratio,) = await state.against(2, sys.executable)
    assert (ratio.pairs, ratio.unit) == (2, "ms CPU")
    assert min(ratio.ours, ratio.floor) > 0


def test_an_unknown_case_is_refused_by_name() -> None:
    command = [sys.executable, "-m", "benchmarks", "speed"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "speed" in done.stderr


def test_a_ratio_is_the_median_of_its_pairs() -> None:
    ratio = compared("x", [(2.0, 1.0), (9.0, 3.0), (4.0, 4.0)], unit="s", most=1.9)
    assert (ratio.ratio, ratio.low, ratio.high) == (2.0, 1.0, 3.0)
    assert not ratio.held


def test_the_page_has_what_was_measured_and_says_what_was_missed(tmp_path: Path) -> None:
    comparison = compared("held", [(1.0, 2.0), (1.0, 2.0)], unit="s", most=1)
    missed = compared("missed", [(3.0, 2.0), (3.0, 2.0)], unit="s", most=1)
    lines = [{"about": "a machine"}, *({"case": "call", **attrs.asdict(ratio)} for ratio in (comparison, missed))]
    (tmp_path / "run").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = page.tables(*page.read([tmp_path / "run"]))
    assert "a machine\n" in text
    assert "| held | at most 1 | 0.50 [0.50..0.50] | 1.0 s | 2.0 | 2 |\n" in text
    assert "| missed | at most 1 | **1.50** missed [1.50..1.50] |" in text
