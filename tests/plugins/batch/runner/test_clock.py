"""Clocks that are set forward and back, in a run and between runs: what it measures by is no clock on a wall."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from impasto import RateLimit
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.log import Ledger, ReadPosition
from impasto_plugins.batch.ledger.recovery import restore_sends
from impasto_plugins.batch.ledger.workspace import LedgerHistory, WorkspacePaths
from impasto_plugins.batch.tasks import key_of
from impasto_plugins.emulator import Emulator
from impasto_plugins.middleware.gate import gate_of
from impasto_plugins.stability.provider import stability
from tests.images import png
from tests.plugins.batch.conftest import CREATIVE, Run, Write, ledger_rows, lines, many, row

HOUR = 3600.0
now = time.time


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets this process's clock on the wall by so many seconds."""

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now() + seconds)

    return set_clock


@pytest.mark.parametrize("seconds", [HOUR, -HOUR, -1e9])
def test_f54_a_clock_that_is_set_between_runs_changes_nothing(
    batch: Run, manifest: Write, impasto_emulator: Emulator, set_clock: Callable[[float], None], seconds: float
) -> None:
    manifest(*many(4))
    words = ("run", "manifest.jsonl", "--out", "out", "--deadline", "1h", "--rate", "1000/10s")
    assert batch(*words, "--budget", "0.06").exit_code == 1
    set_clock(seconds)
    assert batch(*words).exit_code == 0
    assert batch(*words).exit_code == 0
    assert len(impasto_emulator.charges) == 4
    assert len(lines(Path("out/results.jsonl"))) == 4


@pytest.mark.parametrize("seconds", [2 * HOUR, -2 * HOUR])
def test_f54_a_clock_that_is_set_in_a_run_ends_no_deadline_and_no_job(
    batch: Run,
    manifest: Write,
    impasto_emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    Path("small.png").write_bytes(png(64, 64))
    manifest(*many(3), row("job", model=CREATIVE, image="small.png"))
    times = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now() + (seconds if next(times) > 6 else 0.0))
    assert batch("run", "manifest.jsonl", "--out", "out", "--deadline", "1h", "--timeout", "60").exit_code == 0
    assert len(impasto_emulator.charges) == 4
    assert {kind["row"] for kind in ledger_rows(Path("out"))} == {"run", "intent", "accepted", "staged", "done"}


def _sent(folder: Path, times: list[float]) -> list[float]:
    """What a history tells of another process's sends at these times."""
    layout = WorkspacePaths(folder)
    layout.staging.mkdir(parents=True)
    ledger = Ledger(layout.ledger, Disk())
    ledger.open(ReadPosition())
    ledger.append({"row": "run", "version": 1, "at": times[0], "process": "another", "pid": 1, "strangers": {}})
    for index, at in enumerate(times):
        about = {"id": str(index), "index": 0, "usd": 0.03, "at": at, "key": "k", "line": 0, "n": 1, "request": {}}
        ledger.append({"row": "intent", **about})
    ledger.close()
    return LedgerHistory.read_ledger(layout).sent.get("k", [])


def test_f54_sends_of_the_last_minute_count_however_the_clock_was_set_back(tmp_path: Path) -> None:
    at = now()
    ages = _sent(tmp_path / "right", [at - 500, at - 70, at - 50, at - 5])
    assert [round(age) for age in ages] == [50, 5]
    ages = _sent(tmp_path / "set-back", [at + HOUR - 500, at + HOUR - 70, at + HOUR - 50, at + HOUR - 5])
    assert ages == [0.0, 0.0], "those of its last minute count as made now"
    assert _sent(tmp_path / "set-forward", [at - HOUR, at - HOUR + 5]) == []


def test_a_run_that_goes_on_counts_what_the_last_one_sent_towards_the_rate() -> None:
    """Else the first seconds of the new run meet the provider's 429."""
    limited = attrs.evolve(stability.account({"api_key": "sk-rate"}), rate_limit=RateLimit(3, 30.0))
    free = stability.account({"api_key": "sk-free"})
    history = cast(LedgerHistory, SimpleNamespace(recent_sends=lambda account: [1.0, 1.0, 1.0]))
    assert restore_sends([limited, free], history) == {key_of(limited), key_of(free)}
    assert gate_of(limited).estimate_wait(limited) > 0
    assert gate_of(free).estimate_wait(free) == 0
