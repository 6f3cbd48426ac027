"""What proves that a metadata folder is of the code that runs, and what is read of one."""

from __future__ import annotations

from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from impasto import Registry, metadata


@pytest.mark.parametrize(
    ("name", "text", "leads"),
    [
        ("impasto.pth", "/elsewhere\n{parent}\n", True),
        ("impasto.pth", "import site\n{parent}/\n", True),
        ("impasto.pth", "/elsewhere\n", False),
        ("impasto.pth", "core\n", False),
        ("__editable__.impasto-0.1.0.pth", "{parent}\n", True),
        ("__editable___impasto_0_1_0_finder.py", "MAPPING = {{'impasto': '{here}'}}\n", True),
        ("__editable___impasto_0_1_0_finder.py", "MAPPING = {{'impasto': '/elsewhere'}}\n", False),
        ("__editable__.txt", "{here}\n", False),
        ("finder.py", "{here}\n", False),
    ],
)
def test_a_file_of_an_editable_installation_leads_to_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, leads: bool
) -> None:
    here = tmp_path / "core/impasto"
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text.format(here=here, parent=here.parent))
    assert metadata._leads_here(tmp_path / name, here) is leads


def test_a_long_version_is_cut_and_one_that_is_missing_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    texts = {
        "other": f"Name: other\nVersion:  {'9' * 100}  \n\nVersion: of the text\n",
        "another": "name:another\r\n\r\nVersion: of the text\r\n",
    }
    for name, text in texts.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(text)
        (folder / "entry_points.txt").write_text(f"[impasto.operations]\n{name}/paint = {name}:paint\n")
    versions = {owner.name: owner.version for owner in Registry().scan.owners}
    assert (versions["other"], versions["another"]) == ("9" * 60, "unknown")


@pytest.mark.parametrize(
    ("record", "proof"),
    [
        ("impasto-0.1.0.dist-info/METADATA,,\nimpasto.pth,sha256=x,1\nother.pth,,\n", 2),
        ("impasto-0.1.0.dist-info/METADATA,,\nother.pth,,\n", 0),
        ("impasto-0.1.0.dist-info/METADATA,,\n", 0),
        ("impasto/metadata.py,,\n", 0),
        (None, 0),
    ],
)
def test_one_file_of_a_record_that_leads_to_the_code_is_proof(tmp_path: Path, record: str | None, proof: int) -> None:
    folder = tmp_path / "impasto-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: impasto\n")
    (tmp_path / "impasto.pth").write_text(f"{Path(metadata.__file__).resolve().parents[1]}\n")
    (tmp_path / "other.pth").write_text("/elsewhere\n")
    if record is not None:
        (folder / "RECORD").write_text(record)
    found = metadata.Distribution(str(folder), "impasto", "0.1.0", PathDistribution(folder), ())
    assert metadata.holds_running_code(found) == proof
