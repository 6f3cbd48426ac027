"""A machine that loses its power: what was not synced may be gone, and nothing is paid twice or thrown away."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest

from impasto_plugins.batch.batch import Batch
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.log import Ledger, ReadPosition, rows
from impasto_plugins.batch.ledger.publication import staging_path
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.batch.conftest import Run, Write, ledger_rows, lines, many

from .volatile import PAGE, Platter, Volatile


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_f45_what_a_run_said_to_be_done_outlasts_a_loss_of_power(
    batch: Run, manifest: Write, tmp_path: Path, impasto_emulator: Emulator, seed: int
) -> None:
    impasto_emulator.fault("truncate", times=1)
    manifest(*many(6))
    words = ("run", "manifest.jsonl", "--out", str(tmp_path / "new" / "out"), "--names", "{model}/{id}")
    platter = Platter()
    with patch("impasto_plugins.batch.cli.run.Batch", partial(Batch, disk=Volatile(platter))):
        assert batch(*words).exit_code == 1
    out = tmp_path / "new" / "out"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.suffix in (".png", ".bin", ".jsonl")}
    platter.lose_power(out, random.Random(seed) if seed else None)
    assert {path: path.read_bytes() for path in before} == before
    assert len(lines(out / "results.jsonl")) == 5
    batch(*words)
    assert len(impasto_emulator.charges) == 6


def _left_with(out: Path, kinds: tuple[str, ...]) -> dict[str, object]:
    """Leave of a run's ledger the rows of these kinds, as if it had stopped there. Return the last one."""
    layout = WorkspacePaths(out)
    for path in (layout.high_water, out / "results.jsonl", out / "errors.jsonl"):
        path.unlink()  # they say that the run went on
    left = [row for _, row in rows(layout.ledger, ReadPosition()) if row["row"] in kinds]
    layout.ledger.unlink()
    ledger = Ledger(layout.ledger, Disk())
    ledger.open(ReadPosition())
    for row in left:
        ledger.append(row)
    ledger.close()
    return dict(left[-1])


def test_f45_a_picture_of_which_a_page_was_not_written_is_no_picture(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(1))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    intent = _left_with(Path("out"), ("run", "intent"))
    end = png(64, 64).index(b"IEND") - 4
    data = png(64, 64)[:end] + (3 * PAGE).to_bytes(4) + b"noIs" + b"\x01" * (3 * PAGE + 4) + png(64, 64)[end:]
    data = data[:PAGE] + bytes(PAGE) + data[2 * PAGE :]
    staging_path(WorkspacePaths(Path("out")), str(intent["id"]), 0).write_bytes(data)
    Path("out/picture-0.png").unlink()
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    (error,) = lines(Path("out/errors.jsonl"))
    assert (error["error"]["code"], error["error"]["again"]) == ("charge_unknown", False)  # type: ignore[index]
    (path,) = error["error"]["kept"]  # type: ignore[index]
    assert Path("out", path).read_bytes() == data, "it is there for whoever looks at it"
    assert len(impasto_emulator.charges) == 1


def test_f45_a_picture_that_has_its_name_and_not_the_other_any_more(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(1))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    _left_with(Path("out"), ("run", "intent", "staged"))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert ledger_rows(Path("out"))[-1]["row"] == "done"
    assert len(impasto_emulator.charges) == 1
