"""Budgets of rows whose price is unknown."""

from __future__ import annotations

import attrs
import pytest

from impasto import Cost
from impasto_plugins.emulator import Emulator
from impasto_plugins.stability import stable_image_core
from tests.plugins.batch.conftest import Run, Write, row


def test_a_model_without_a_price_is_not_run_on_a_budget(
    batch: Run, manifest: Write, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stable_image_core, "operation", attrs.evolve(stable_image_core.operation, price=None))
    manifest(row("a"))
    done = batch("run", "manifest.jsonl", "--out", "out", "--budget", "10")
    assert done.exit_code == 2
    assert "the price of stability/stable-image-core is unknown, so it can't be run with a budget" in done.stderr
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert len(impasto_emulator.charges) == 1


def test_a_row_without_a_price_is_named_if_others_of_its_model_have_one(
    batch: Run, manifest: Write, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BySeed:
        cost = None

        def quote(self, params: stable_image_core.Params) -> Cost | None:
            return None if params.seed is None else Cost(usd=0.03, as_of="2026-11-01")

    monkeypatch.setattr(stable_image_core, "operation", attrs.evolve(stable_image_core.operation, price=BySeed()))
    manifest(row("a", seed=1), row("b"), row("c"), row("d", seed=2))
    done = batch("run", "manifest.jsonl", "--out", "out", "--budget", "10")
    assert done.exit_code == 2
    assert (
        "line 2 (b) and 1 more: the price of stability/stable-image-core is unknown for these parameters, so it can't"
        " be run with a budget; leave --budget out"
    ) in done.stderr
    assert impasto_emulator.charges == []
    manifest(row("a", seed=1), row("d", seed=2))
    assert batch("run", "manifest.jsonl", "--out", "out", "--budget", "10").exit_code == 0
    manifest(row("a", seed=1), row("b"), row("d", seed=2))
    assert "line 2 (b): the price" in batch("run", "manifest.jsonl", "--out", "out", "--budget", "10").stderr
