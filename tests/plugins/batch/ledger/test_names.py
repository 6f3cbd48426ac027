"""No two images share a file: not on their way, not in the folder, not on file systems that fold case or forms."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path

import pytest

from impasto_plugins.batch import filenames
from impasto_plugins.batch.filenames import TakenNames, case_folded
from impasto_plugins.batch.ledger import publication, recorder
from impasto_plugins.batch.ledger.group_commit import WriteSteps
from impasto_plugins.batch.ledger.log import Row
from impasto_plugins.batch.ledger.publication import staging_path
from impasto_plugins.batch.ledger.workspace import Workspace, WorkspacePaths
from impasto_plugins.emulator import Emulator
from tests.plugins.batch.conftest import Run, Write, codes, lines, many, row

OUT = Path("out")
RUN = ("run", "manifest.jsonl", "--out", "out")
COLLIDING = ("id85616", "id1251081")
"""The first 40 bits of their SHA-256 are the same."""

ALIKE = [
    "A",
    "a",
    "stra\u00dfe",
    "STRASSE",
    "strasse",
    "\ufb01",
    "fi",
    "FI",
    "\u00c5",
    "A\u030a",
    "\u212b",
    "\u00e5",
    "CON",
    "con",
]
"""Ids whose names are one name where case or Unicode forms are folded."""


def pictures() -> dict[str, str]:
    """The path of each image in the results, whose digest is that of its file."""
    found = {}
    for line in lines(OUT / "results.jsonl"):
        (picture,) = line["response"]["body"]["data"]  # type: ignore[index]
        assert hashlib.sha256((OUT / picture["path"]).read_bytes()).hexdigest() == picture["sha256"]
        found[str(line["custom_id"])] = str(picture["path"])
    return found


def test_ids_whose_digests_begin_alike_keep_both_images(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    one, other = (hashlib.sha256(id.encode()).hexdigest()[:10] for id in COLLIDING)
    assert one == other
    manifest(*(row(id, seed=number) for number, id in enumerate(COLLIDING, 1)))
    assert batch(*RUN).exit_code == 0
    assert len(impasto_emulator.charges) == 2
    found = pictures()
    assert found.keys() == {*COLLIDING}
    assert len({(OUT / path).read_bytes() for path in found.values()}) == 2
    assert staging_path(WorkspacePaths(OUT), COLLIDING[0], 0) != staging_path(WorkspacePaths(OUT), COLLIDING[1], 0)


def test_unusable_answers_whose_ids_look_alike_are_all_saved(batch: Run, manifest: Write) -> None:
    manifest(*(row(id, prompt="a [content_filtered]", seed=number) for number, id in enumerate(COLLIDING, 1)))
    assert batch(*RUN).exit_code == 1
    saved_path = [path for line in lines(OUT / "errors.jsonl") for path in line["error"]["kept"]]  # type: ignore[index]
    assert len({*saved_path}) == len(saved_path) == len(list((OUT / "kept").iterdir())) == 2


@pytest.mark.parametrize("names", ["{id}", "{model}/{id}", "{id}/{seed}", "all/{seed}", "x{id}.", "com{seed}"])
def test_names_stay_distinct_where_case_and_unicode_forms_are_folded(
    batch: Run, manifest: Write, impasto_emulator: Emulator, names: str
) -> None:
    manifest(*(row(id, seed=7) for id in ALIKE))
    assert batch(*RUN, "--names", names, "--budget", "0.20").exit_code == 1
    assert batch(*RUN, "--names", names).exit_code == 0  # names of an earlier run are taken too
    assert len(impasto_emulator.charges) == len(ALIKE)
    found = pictures()
    assert found.keys() == {*ALIKE}
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        alike = {unicodedata.normalize(form, path).casefold() for path in found.values()}
        assert len(alike) == len(ALIKE), form
    for path in found.values():
        for part in path.split("/"):
            stem = part.partition(".")[0].rstrip(" ").upper()
            assert stem not in ("CON", "COM7"), "Windows keeps these names for itself"
            assert not part.endswith((".", " "))


LONG = [f"{'x' * 100}{number:03}" for number in range(12)]
"""Ids of 103 bytes that begin alike: three of them are too long for one name."""


@pytest.mark.parametrize("names", ["{id}-{id}-{id}", "{id}{id}{id}", "{id}-{id}-{id}/{id}-{id}-{seed}-{id}"])
def test_names_that_a_template_makes_too_long_are_shortened_and_stay_distinct(
    batch: Run, manifest: Write, impasto_emulator: Emulator, names: str
) -> None:
    manifest(*(row(id, seed=7) for id in LONG))
    assert batch(*RUN, "--names", names).exit_code == 0
    assert len(impasto_emulator.charges) == len(LONG)
    found = pictures()
    assert found.keys() == {*LONG}
    assert len({*found.values()}) == len(LONG)
    assert all(len(part.encode()) <= 204 for path in found.values() for part in path.split("/"))


def test_staged_images_with_names_that_are_too_long_are_published_by_the_next_run(
    batch: Run, manifest: Write, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("--names", "{id}-{id}-{id}")
    manifest(*(row(id, seed=7) for id in LONG))
    with monkeypatch.context() as patch:
        patch.setattr(filenames, "_component", str)  # as an earlier version did
        done = batch(*RUN, *names, "--concurrency", "2")
    assert done.exit_code == 1
    assert "File name too long" in done.stderr
    charged = len(impasto_emulator.charges)
    assert 0 < charged < len(LONG)
    status = json.loads(batch("status", "out", "--json").stdout)
    assert status["cost_usd"] == pytest.approx(0.03 * charged), "a staged image is paid for"
    assert batch(*RUN, *names).exit_code == 0
    assert len(impasto_emulator.charges) == len(LONG), "none is paid for twice"
    assert pictures().keys() == {*LONG}
    status = json.loads(batch("status", "out", "--json").stdout)
    assert status["cost_usd"] == pytest.approx(0.03 * len(LONG))


def test_names_of_a_bucket_are_all_remembered(tmp_path: Path) -> None:
    taken = TakenNames(tmp_path)
    taken.add("a.png", is_local=False)
    assert [taken.claim(name) for name in ("A.png", "a.png", "\uff21.png")] == ["A-1.png", "a-2.png", "\uff21-3.png"]


def test_a_name_without_a_file_is_taken_by_the_first_who_claims_it(tmp_path: Path) -> None:
    taken = TakenNames(tmp_path)
    assert taken.claim("sub/Big.png") == "sub/Big.png"
    assert taken.claim("sub/big.png") == "sub/big-1.png"
    taken.add("sub/big-1.png", is_local=True)
    (tmp_path / "small.png").touch()
    assert taken.claim("SMALL.png") == "SMALL-1.png", "a file of an earlier run"
    assert case_folded("\ufb00") == case_folded("FF")


@pytest.mark.parametrize("id", ["results.jsonl", "errors.jsonl", "report.html", "Report-2.html", "kept"])
def test_no_folder_of_images_has_the_name_of_a_file_of_the_batch(batch: Run, manifest: Write, id: str) -> None:
    manifest(row(id), row("bad", prompt="a [content_filtered]"))
    assert batch(*RUN, "--names", "{id}/{seed}").exit_code == 1
    assert pictures().keys() == {id}
    assert (OUT / "report.html").is_file()
    assert batch(*RUN, "--names", f"{id}/{{id}}").exit_code == 2


def test_a_staged_image_that_was_changed_is_not_published(
    batch: Run, manifest: Write, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest in the ledger is that of the file, or there is no such row."""
    publish_file = publication.publish

    def changing(folder: Workspace, staged: Path, row: Row) -> WriteSteps[Path]:
        staged.write_bytes(staged.read_bytes()[:-1] + b"\0")
        return (yield from publish_file(folder, staged, row))

    manifest(*many(1))
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "publish", changing)
        done = batch(*RUN)
    assert done.exit_code == 1
    assert "was changed by another program" in done.stderr
    saved = Path(done.stderr.partition("it is saved in '")[2].partition("'")[0])
    assert saved.read_bytes().startswith(b"\x89PNG"), "what was paid for is not lost"
    saved.unlink()
    saved.parent.rmdir()
    assert not list(OUT.glob("*.png"))
    assert batch(*RUN).exit_code == 1
    assert codes(OUT) == {"charge_unknown"}
    assert len(impasto_emulator.charges) == 1


def test_ids_of_result_lines_are_unique_and_sums_are_right(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(
        row("good", n=2),
        row("blocked", prompt="a [content_moderation]", n=3),
        row("blurred", prompt="a [content_filtered]"),
        row("twice", sede=1),
        row("twice", sede=2),
        "{",
        "[",
    )
    assert batch(*RUN, "--skip-invalid").exit_code == 1
    results, errors = lines(OUT / "results.jsonl"), lines(OUT / "errors.jsonl")
    ids = [line["id"] for line in (*results, *errors)]
    assert len(ids) == len(set(ids)) == 1 + 3 + 1 + 4
    free = [line["error"] for line in errors if line["error"]["billed"] == "no"]  # type: ignore[index]
    assert len(free) == 7
    assert {error.get("usd", 0) for error in free} == {0}  # type: ignore[attr-defined]
    usd = sum(line["response"]["body"]["usd"] for line in results)  # type: ignore[index]
    usd += sum(line["error"].get("usd", 0) for line in errors)  # type: ignore[attr-defined]
    status = json.loads(batch("status", "out", "--json").stdout)
    assert usd == pytest.approx(status["cost_usd"]) == pytest.approx(0.09)
