"""``--workers auto``: one process for each processor that may be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from impasto_plugins.cli.main import main
from impasto_plugins.concurrency.processors import usable_processors


@pytest.mark.parametrize(
    ("quota", "most"),
    [("max 100000\n", 64), ("200000 100000\n", 2), ("150000 100000", 2), ("1000 100000", 1), ("", 64)],
)
def test_a_containers_quota_limits_the_processors(tmp_path: Path, quota: str, most: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_processors(file) == min(len(os.sched_getaffinity(0)), most)


def test_outside_of_a_container_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_processors(tmp_path / "none") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("count", ["0", "65", "many", "1.5"])
def test_another_number_of_workers_is_refused(count: str) -> None:
    ran = CliRunner().invoke(main, ["serve", "--config", "x.yaml", "--workers", count])
    assert ran.exit_code == 2
    assert "must be a whole number from 1 to 64" in ran.output
    assert "auto" in ran.output
