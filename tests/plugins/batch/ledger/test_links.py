"""Links inside a batch's folder lead nowhere: they are refused before anything is sent or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from impasto_plugins.batch.ledger.group_commit import WriteSteps
from impasto_plugins.batch.ledger.log import Row
from impasto_plugins.batch.ledger.recorder import LedgerRecorder
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.batch.tasks import ImageTask, Outcome
from impasto_plugins.emulator import Emulator
from tests.plugins.batch.conftest import CORE, Run, Write, many

OUT, ELSEWHERE = Path("out"), Path("elsewhere")
LAYOUT = WorkspacePaths(OUT)
MODEL = CORE.partition("/")[2]
PLACES = {
    "the state folder": LAYOUT.hidden,
    "the ledger": LAYOUT.ledger,
    "the lock": LAYOUT.lock,
    "the mark": LAYOUT.high_water,
    "the staging folder": LAYOUT.staging,
    "a staged file": LAYOUT.staging / "0",
    "the reserve": LAYOUT.reserve,
    "a file on its way": LAYOUT.hidden / "results.jsonl.part",
    "the results": OUT / "results.jsonl",
    "the errors": OUT / "errors.jsonl",
    "the report": OUT / "report.html",
    "the folder of what came instead": LAYOUT.salvage,
    "an image": OUT / "picture-0.png",
    "a folder of images": OUT / MODEL,
    "an image in a folder": OUT / MODEL / "picture-0.png",
}


def to_a_folder(place: Path) -> None:
    place.symlink_to(ELSEWHERE.absolute(), target_is_directory=True)


def to_a_file(place: Path) -> None:
    place.symlink_to((ELSEWHERE / "file").absolute())


def to_nothing(place: Path) -> None:
    place.symlink_to((ELSEWHERE / "nothing").absolute())


@pytest.fixture(autouse=True)
def elsewhere(environment: dict[str, str]) -> None:
    ELSEWHERE.mkdir()
    (ELSEWHERE / "file").write_text("somebody's")


@pytest.mark.parametrize("plant", [to_a_folder, to_a_file, to_nothing])
def test_a_link_in_the_folder_is_refused_before_anything_is_sent(
    batch: Run, manifest: Write, impasto_emulator: Emulator, plant: Callable[[Path], None]
) -> None:
    manifest(*many(1))
    for what, place in PLACES.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        plant(place)
        for more in ((), ("--dry-run",), ("--start-over",)):
            done = batch("run", "manifest.jsonl", "--out", "out", "--names", "{model}/{id}", *more)
            assert done.exit_code == 2, what
            assert f"{str(place)!r} is a link, through which images" in done.stderr, what
        place.unlink()
    assert impasto_emulator.requests == []
    assert {path.name: path.read_text() for path in ELSEWHERE.iterdir()} == {"file": "somebody's"}


def test_the_folder_itself_may_be_a_link(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(2))
    OUT.symlink_to(ELSEWHERE.absolute())
    for _ in range(2):
        assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert len(impasto_emulator.charges) == len(list(ELSEWHERE.glob("*.png"))) == 2


def test_a_link_that_is_put_there_during_the_run_is_not_followed(
    batch: Run, manifest: Write, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = LedgerRecorder._stage

    def planting(self: LedgerRecorder, unit: ImageTask, outcome: Outcome) -> WriteSteps[Row]:
        if not (OUT / MODEL).is_symlink():
            to_a_folder(OUT / MODEL)
        return (yield from stage(self, unit, outcome))

    monkeypatch.setattr(LedgerRecorder, "_stage", planting)
    manifest(*many(1))
    done = batch("run", "manifest.jsonl", "--out", "out", "--names", "{model}/{id}")
    assert done.exit_code == 1
    assert "the folder can't be written" in done.stderr
    assert [path.name for path in ELSEWHERE.iterdir()] == ["file"]


def test_a_report_follows_no_link(batch: Run, manifest: Write) -> None:
    manifest(*many(1))
    batch("run", "manifest.jsonl", "--out", "out")
    (OUT / "report.html").unlink()
    to_a_file(LAYOUT.hidden / "report.html.part")
    assert batch("report", "out").exit_code == 2
    assert (ELSEWHERE / "file").read_text() == "somebody's"


def test_links_in_folders_that_are_not_the_batchs_are_nobodys_business(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    (OUT / "mine").mkdir(parents=True)
    to_a_folder(OUT / "mine" / "link")
    manifest(*many(1))
    for words in (("run", "manifest.jsonl", "--out", "out"), ("report", "out"), ("status", "out")):
        assert batch(*words).exit_code == 0, words
    refused = batch("run", "manifest.jsonl", "--out", "out", "--names", "{model}/{id}")
    assert refused.exit_code == 2, "images may go there now"
    assert len(impasto_emulator.charges) == 1
