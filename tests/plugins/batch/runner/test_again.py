"""What the next run takes up, and what only if it is asked to."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from impasto import RateLimit
from impasto_plugins.batch.ledger import workspace
from impasto_plugins.batch.ledger.workspace import LedgerHistory, WorkspacePaths
from impasto_plugins.emulator import Emulator
from impasto_plugins.middleware.gate import Gate
from tests.images import png
from tests.plugins.batch.conftest import CREATIVE, Run, Start, Write, codes, ledger_rows, many, row

OTHER_KEY = "sk-other-" + "x" * 24


def count(batch: Run) -> dict[str, int]:
    found: dict[str, int] = json.loads(batch("status", "out", "--json").stdout)
    return found


def test_a_possible_charge_is_requested_again_only_on_demand(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("reset", charged=True, times=2)
    manifest(*many(4))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    assert codes(Path("out")) == {"charge_unknown"}
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    assert (len(impasto_emulator.charges), count(batch)["ambiguous"]) == (4, 2)
    assert batch("run", "manifest.jsonl", "--out", "out", "--retry-ambiguous").exit_code == 0
    assert len(impasto_emulator.charges) == 6, "two were paid for twice, as was asked for"
    found = count(batch)
    assert (found["done"], found["charges_unknown"], found["cost_usd"]) == (4, 2, 0.18)


def test_a_permanent_refusal_is_requested_again_only_on_demand(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("status", status=422, times=1)
    manifest(row("a"), row("blocked", prompt="[content_moderation]"))
    batch("run", "manifest.jsonl", "--out", "out")
    batch("run", "manifest.jsonl", "--out", "out")
    number = len(impasto_emulator.requests)
    batch("run", "manifest.jsonl", "--out", "out", "--retry-failed")
    assert len(impasto_emulator.requests) <= number + 1, "what moderation refused is never sent again"
    assert count(batch)["filtered"] == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_provider_in_trouble_is_asked_again(
    batch: Run, manifest: Write, impasto_emulator: Emulator, status: int
) -> None:
    impasto_emulator.fault("status", status=status, headers={"retry-after": "0"}, times=3)
    manifest(*many(3))
    batch("run", "manifest.jsonl", "--out", "out")
    batch("run", "manifest.jsonl", "--out", "out")
    assert (count(batch)["done"], len(impasto_emulator.charges)) == (3, 3)


def test_f26_a_job_of_another_key_is_left_to_it(
    start: Start, batch: Run, manifest: Write, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    (tmp_path / "small.png").write_bytes(png(64, 64))
    manifest(row("job", model=CREATIVE, image="small.png"))
    run = start("run", "manifest.jsonl", "--out", "out", IMPASTO_POLL_INTERVAL="60")
    until = time.monotonic() + 30
    while not any(each["row"] == "accepted" for each in ledger_rows(Path("out"))):
        assert time.monotonic() < until
        time.sleep(0.02)
    run.kill()
    run.communicate()
    polls = len(impasto_emulator.requests)
    other = batch("run", "manifest.jsonl", "--out", "out", STABILITY_API_KEY=OTHER_KEY)
    assert other.exit_code == 1
    assert "not polling 1 job of another key or address" in other.stderr
    assert len(impasto_emulator.requests) == polls
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert len(impasto_emulator.charges) == 1


def test_requests_of_an_earlier_process_count_towards_the_rate(
    batch: Run, manifest: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalled: list[tuple[int, RateLimit]] = []
    monkeypatch.setattr(Gate, "restore_history", lambda self, ages, limit: recalled.append((len(ages), limit)))
    manifest(*many(5))
    batch("run", "manifest.jsonl", "--out", "out", "--rate", "1000/10s", "--budget", "0.09")
    assert recalled == [], "nobody sent before"
    batch("run", "manifest.jsonl", "--out", "out", "--rate", "1000/10s", "--budget", "0.12")
    assert recalled == [], "this process sent them, and has counted them"
    monkeypatch.setattr(workspace, "_PROCESS", "another")
    batch("run", "manifest.jsonl", "--out", "out", "--rate", "1000/10s")
    assert recalled == [(4, RateLimit(1000, 10.0))]


def test_sends_of_long_ago_count_for_nothing(batch: Run, manifest: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest(row("a"))
    batch("run", "manifest.jsonl", "--out", "out")
    monkeypatch.setattr(workspace, "_PROCESS", "another")
    assert len(LedgerHistory.read_ledger(WorkspacePaths(Path("out"))).sent) == 1
    monkeypatch.setattr(workspace, "RESTORED_SECONDS", 0.0)
    assert LedgerHistory.read_ledger(WorkspacePaths(Path("out"))).sent == {}
