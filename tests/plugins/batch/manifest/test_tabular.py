"""Manifests that are tables are run as JSON lines are."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pytest
from pyarrow import parquet

from impasto import ManifestError, MissingExtra, Registry
from impasto_plugins.batch.ledger.workspace import LedgerHistory, WorkspacePaths
from impasto_plugins.batch.manifest.planner import Plan, Planner
from impasto_plugins.batch.manifest.reader import Manifest
from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.batch.conftest import CORE, Run

REGISTRY = Registry()


def planned(path: Path) -> Plan:
    return Planner(
        manifest=Manifest(path, REGISTRY.operation), history=LedgerHistory(WorkspacePaths(path.parent))
    ).plan()


def test_a_csv_file(batch: Run, tmp_path: Path, impasto_emulator: Emulator) -> None:
    (tmp_path / "small.png").write_bytes(png(64, 64))
    (tmp_path / "m.csv").write_bytes(
        "\ufeffid,model,prompt,seed,n,image,strength\r\n"
        f'a,{CORE},"a lighthouse, at dusk",7,2,,\r\n'
        "b,stability/sd3.5-large,a kite,,,small.png,0.5\r\n".encode()
    )
    assert batch("run", "m.csv", "--out", "out").exit_code == 0
    sent = [request.fields for request in impasto_emulator.requests]
    assert sorted(each["prompt"] for each in sent) == ["a kite", "a lighthouse, at dusk", "a lighthouse, at dusk"]
    assert sorted(each["seed"] for each in sent if "seed" in each) == ["7", "8"]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"a-0.png", "a-1.png", "b.png"}
    assert batch("run", "m.csv", "--out", "out").exit_code == 0
    assert len(impasto_emulator.charges) == 3


@pytest.mark.parametrize("seed", ["1.0", "1e3", " 7", "+7", "0x7", "07", "seven", "-1", "4294967295"])
def test_a_number_is_plain_decimal_text(tmp_path: Path, seed: str) -> None:
    (tmp_path / "m.csv").write_text(f"id,model,prompt,seed\na,{CORE},p,{seed}\n")
    (bad,) = planned(tmp_path / "m.csv").invalid
    assert "seed: must be a whole number" in str(bad)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,id\na,b\n", "its first line names 'id' twice"),
        ("id,\na,b\n", "its first line has a column without a name"),
        ('id,model\n"a,b\n', "is invalid CSV"),
        ("", "has no rows"),
        ("id,model,prompt\n", "has no rows"),
    ],
)
def test_a_csv_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=message):
        planned(tmp_path / "m.csv")


def test_empty_lines_of_a_spreadsheet_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"id,model,prompt\r\na,{CORE},p\r\n,,\r\n\r\n,,,,,\r\n")
    plan = planned(tmp_path / "m.csv")
    assert (plan.rows, plan.invalid) == (1, [])


def test_rows_of_a_csv_file_that_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"id,model,prompt\na,{CORE},p\nb,{CORE}\nc,none/such,p\n")
    plan = planned(tmp_path / "m.csv")
    assert str(plan.invalid[0]) == "line 3: has 2 cells, but the first line names 3"
    assert "model: unknown model 'none/such'" in str(plan.invalid[1])
    (tmp_path / "latin.csv").write_bytes("id,model,prompt\na,x,\xe9\n".encode("latin-1"))
    with pytest.raises(ManifestError, match="is not UTF-8 text"):
        planned(tmp_path / "latin.csv")


def test_a_parquet_file(batch: Run, tmp_path: Path, impasto_emulator: Emulator) -> None:
    rows = [
        {"id": "a", "model": CORE, "prompt": "a lighthouse", "seed": 7},
        {"id": "b", "model": CORE, "prompt": "a kite", "seed": None},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    assert batch("run", "m.parquet", "--out", "out").exit_code == 0
    assert sorted(request.fields["prompt"] for request in impasto_emulator.requests) == ["a kite", "a lighthouse"]
    (tmp_path / "none.parquet").write_text("PAR1")
    assert "is not a valid Parquet file" in batch("run", "none.parquet", "--out", "out").stderr


def test_parquet_without_its_extra_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "m.parquet").touch()
    with pytest.raises(MissingExtra, match=r"pip install 'impasto\[batch\]'"):
        planned(tmp_path / "m.parquet")


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons (;)"), ("\t", "tabs"), ("|", "bars (|)")])
def test_a_csv_with_another_separator_is_refused_by_its_name(
    batch: Run, tmp_path: Path, separator: str, name: str
) -> None:
    lines = ("id,model,prompt,seed", "a,stability/stable-image-core,a lighthouse,1")
    (tmp_path / "m.csv").write_text("\n".join(line.replace(",", separator) for line in lines))
    done = batch("run", "m.csv", "--out", "out")
    assert done.exit_code == 2
    assert f"separates its cells with {name}: separate them with commas" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_csv_of_one_column_may_hold_them_in_its_cells(batch: Run, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id\na;b\n")
    assert "model: required" in batch("run", "m.csv", "--out", "out").stderr
