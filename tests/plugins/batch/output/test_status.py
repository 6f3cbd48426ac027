"""The status of a folder: an image that a run was at when it was killed is not through, whatever its last row."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from impasto_plugins.batch.ledger.index import TaskIndex
from impasto_plugins.batch.ledger.states import TaskState
from impasto_plugins.batch.output.status import status_of
from impasto_plugins.emulator import Emulator
from impasto_plugins.stability import stable_image_core
from tests.plugins.batch.conftest import Run, Start, Write, many, row


@pytest.mark.parametrize("state", [TaskState.INTENT, TaskState.ACCEPTED, TaskState.STAGED])
@pytest.mark.parametrize("running", [True, False])
def test_an_image_that_a_run_is_at_is_pending(state: TaskState, running: bool) -> None:
    count = {state: 1, TaskState.DONE: 2}
    pictures = cast(TaskIndex, SimpleNamespace(count=count, usd=0.06, charges_unknown=0, unpriced=0))
    status = status_of(pictures, 3, {}, running=running)
    assert (status.done, status.pending, status.in_flight) == (2, 1, 1)
    assert status.state == ("running" if running else "stopped")
    assert status.charges_unknown == (0 if running else 1)


def test_status_after_a_kill_counts_what_was_in_flight(
    start: Start, batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("delay", seconds=60)
    manifest(*many(5))
    run = start("run", "manifest.jsonl", "--out", "out", "--concurrency", "3")
    until = time.monotonic() + 60
    while len(impasto_emulator.requests) < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    run.kill()
    run.communicate()
    found = json.loads(batch("status", "out", "--json").stdout)
    assert (found["state"], found["total"], found["done"], found["in_flight"]) == ("stopped", 5, 0, 3)
    assert (found["charges_unknown"], found["cost_usd"]) == (3, 0.09)
    assert (
        "3 in flight when the run stopped (may have been charged), charged: 0.09 USD" in batch("status", "out").stdout
    )
    impasto_emulator.clear_faults()
    batch("run", "manifest.jsonl", "--out", "out")
    after = json.loads(batch("status", "out", "--json").stdout)
    assert (after["ambiguous"], after["charges_unknown"], after["cost_usd"]) == (3, 3, 0.15), "as status said before"


def test_a_charge_of_unknown_price_is_not_reported_as_free(
    batch: Run, manifest: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stable_image_core, "operation", attrs.evolve(stable_image_core.operation, price=None))
    words = ("run", "manifest.jsonl", "--out", "out")
    manifest(row("a"))
    done = batch(*words)
    assert done.stdout == "complete: 1 of 1 done, charged: price unknown\n"
    assert batch("status", "out").stdout == done.stdout
    assert "0.00" not in Path("out/report.html").read_text("utf-8")
    manifest(row("a"), row("b", model="stability/sd3.5-large"))
    done = batch(*words)
    assert done.stdout == "complete: 2 of 2 done, charged: 0.07 USD and 1 of unknown price\n"
    assert batch("status", "out").stdout == done.stdout
    found = json.loads(batch("status", "out", "--json").stdout)
    assert (found["cost_usd"], found["unpriced"]) == (0.065, 1)


def test_a_run_with_ambiguous_images_ends_with_the_option_that_requests_them_again(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("reset", charged=True, times=2)
    manifest(*many(3))
    words = ("run", "manifest.jsonl", "--out", "out")
    hint = "2 may have been charged and did not come: run again with --retry-ambiguous"
    assert hint in batch(*words).stderr.splitlines()[-1]
    assert hint in batch("status", "out").stderr.splitlines()[-1]
    done = batch(*words, "--retry-ambiguous")
    assert (done.exit_code, done.stderr) == (0, "")
    assert batch("status", "out").stderr == ""
