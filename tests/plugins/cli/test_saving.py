"""Nothing is overwritten unasked, and nothing that was paid for is dropped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click import ClickException

from impasto import Artifact
from impasto_plugins.cli.saving import Saving

PICTURE = Artifact(data=b"paid for", media_type="image/png", seed=7)


def test_a_folder_that_went_away_meanwhile_costs_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    out = tmp_path / "gone" / "x.png"
    path = Saving(model="stability/sd3", out=out).save(PICTURE)
    assert path != out
    assert path.name == "x.png"
    assert path.read_bytes() == b"paid for"


def test_where_nothing_can_be_written_the_seed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone too"))
    with pytest.raises(ClickException, match="could not be saved: No such file or directory; its seed was 7"):
        Saving(model="stability/sd3", out=tmp_path / "gone" / "x.png").save(PICTURE)


def test_a_file_that_came_up_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    saving = Saving(model="stability/sd3", out=out)
    assert list(saving.problems()) == []
    out.write_text("precious")
    assert saving.save(PICTURE) == tmp_path / "x-2.png"
    assert out.read_text() == "precious"


@pytest.mark.parametrize(
    ("model", "name"),
    [("stability/stable-image-inpaint-v1:0", "stable-image-inpaint-v1-0-7.png"), ("stability/sd3", "sd3-7.png")],
)
def test_a_name_of_its_own(model: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Saving(model=model, out=None).save(PICTURE) == Path(name)


def test_every_numbered_file_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "x-2.png").touch()
    saving = Saving(model="stability/sd3", out=tmp_path / "x.png", n=3)
    (problem,) = saving.problems()
    assert "x-2.png" in problem.message


def test_a_picture_that_no_disk_takes_leaves_no_torn_file(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment["TMPDIR"] = str(tmp_path_factory.mktemp("temporary"))
    command = (
        f"ulimit -f 0; exec '{sys.executable}' -m impasto_plugins.cli generate stability/stable-image-core x -p seed=7"
    )
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "'stable-image-core-7.png' could not be saved: File too large; its seed was 7" in done.stderr
    assert list(Path().iterdir()) == []


def test_overwriting_is_all_or_nothing(tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    out.write_text("old")
    assert Saving(model="stability/sd3", out=out, force=True).save(PICTURE) == out
    assert out.read_bytes() == b"paid for"
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
