"""Evidence of what was paid for: results that were not changed are not read again, others are, and images count too."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import impasto
from impasto_plugins.batch.ledger import evidence
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.high_water import Mark
from impasto_plugins.batch.ledger.log import UntrustedLedger
from impasto_plugins.batch.ledger.workspace import Workspace, WorkspacePaths
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.plugins.batch.conftest import Run, Write, many, row
from tests.plugins.batch.ledger.test_damage import LAYOUT, OUT, RUN, remove, stops


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files of results that were read."""
    names, lines = list[str](), evidence._lines

    def spied(path: Path) -> Iterator[dict[str, object]]:
        names.append(path.name)
        return lines(path)

    monkeypatch.setattr(evidence, "_lines", spied)
    return names


def test_results_that_nobody_changed_are_not_read_again(batch: Run, manifest: Write, read: list[str]) -> None:
    manifest(row("a"), row("b", prompt="a [content_moderation]"))
    assert batch(*RUN).exit_code == 1
    assert batch(*RUN).exit_code == 1
    assert batch("status", "out").exit_code == 1
    assert read == []
    (OUT / "results.jsonl").touch()
    assert batch(*RUN).exit_code == 1
    assert read == ["results.jsonl", "errors.jsonl"]
    assert batch(*RUN).exit_code == 1
    assert len(read) == 2, "they were written again"


def test_results_that_were_changed_are_read_up_to_a_few_unknown_images(
    batch: Run, manifest: Write, impasto_emulator: Emulator, read: list[str]
) -> None:
    manifest(row("a"))
    assert batch(*RUN).exit_code == 0
    path = OUT / "results.jsonl"
    (line,) = path.read_text().splitlines()
    others = [json.dumps({**json.loads(line), "custom_id": f"other-{number}"}) for number in range(9)]
    path.write_text("\n".join([line, *others, "{", "[]"]))
    message = stops(batch, impasto_emulator)
    assert "results.jsonl or errors.jsonl name 'other-0', 'other-1', 'other-2': it is" in message
    assert "other-3" not in message
    assert set(read) == {"results.jsonl"}, "the other was not changed, and there is enough to say"


@pytest.mark.parametrize("index", [-1, 10**15, True, 0.5, "0", None])
def test_results_with_an_index_that_no_image_has(
    batch: Run, manifest: Write, impasto_emulator: Emulator, index: object
) -> None:
    """They are somebody's own, or damaged: the run neither breaks nor hangs."""
    manifest(row("a"))
    assert batch(*RUN).exit_code == 0
    error = {"code": "charge_unknown", "billed": "unknown"}
    (OUT / "errors.jsonl").write_text(json.dumps({"custom_id": "b", "index": index, "error": error}))
    assert "name 'b'" in stops(batch, impasto_emulator)
    data = [{"index": index}, None, 7]
    (OUT / "errors.jsonl").write_text(json.dumps({"custom_id": "a", "error": None, "response": {"body": data}}))
    assert batch(*RUN).exit_code == 0


def test_lines_of_results_that_prove_no_charge_stop_nothing(batch: Run, manifest: Write) -> None:
    manifest(row("a"))
    assert batch(*RUN).exit_code == 0
    lines: list[object] = [
        {"custom_id": "b", "index": 0, "error": {"code": "content_filtered", "billed": "no"}},
        {"custom_id": 7, "index": 0, "error": None},
        {"error": None},
    ]
    (OUT / "errors.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert batch(*RUN).exit_code == 0


def of_other(batch: Run, manifest: Write, *rows: dict[str, object]) -> WorkspacePaths:
    manifest(*rows, name="other.jsonl")
    batch("run", "other.jsonl", "--out", "other", "--no-report")
    return WorkspacePaths(Path("other"))


@pytest.mark.parametrize("blocked", [True, False], ids=["that has no image", "with images"])
def test_images_tell_of_charges_under_another_folders_ledger_without_results(
    batch: Run, manifest: Write, impasto_emulator: Emulator, blocked: bool
) -> None:
    manifest(*many(3))
    assert batch(*RUN, "--no-report").exit_code == 0
    other = of_other(batch, manifest, row("x", seed=99, prompt="a [content_moderation]" if blocked else "a cat"))
    remove(LAYOUT.hidden)
    shutil.copytree(other.hidden, LAYOUT.hidden)
    shutil.copy(other.high_water, LAYOUT.high_water)
    for name in ("results.jsonl", "errors.jsonl"):
        (OUT / name).unlink()
    assert "does not know 'picture-" in stops(batch, impasto_emulator)
    assert batch(*RUN, "--start-over", "--dry-run").exit_code == 2, (
        "its ledger is whole: another folder has to be given"
    )


def test_images_tell_of_charges_if_ledger_and_mark_are_older_copies(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(3))
    assert batch(*RUN, "--budget", "0.04", "--no-report").exit_code == 1
    shutil.copytree(LAYOUT.hidden, "old")
    shutil.copy(LAYOUT.high_water, "old-mark")
    assert batch(*RUN, "--no-report").exit_code == 0
    remove(LAYOUT.hidden)
    Path("old").rename(LAYOUT.hidden)
    Path("old-mark").replace(LAYOUT.high_water)
    assert "is another folder's, or an older copy: results.jsonl" in stops(batch, impasto_emulator)
    for name in ("results.jsonl", "errors.jsonl"):
        (OUT / name).unlink()
    assert "does not know 'picture-1.png', 'picture-2.png', which rows" in stops(batch, impasto_emulator)
    (OUT / "picture-1.png").unlink()
    (OUT / "picture-2.png").rename(OUT / "else.png")
    assert batch(*RUN).exit_code == 0, "nothing tells of them any more"


def test_a_mark_of_a_ledger_without_rows_vouches_for_nothing(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    """As a process leaves it that was killed before its first row."""
    manifest(*many(1))
    assert batch(*RUN).exit_code == 0
    LAYOUT.ledger.write_bytes(b"")
    LAYOUT.high_water.write_bytes(Mark(0, 0).line)
    assert "is empty, and earlier runs left 'errors.jsonl', 'report.html', 'results.jsonl'" in stops(
        batch, impasto_emulator
    )


def test_somebodys_own_images_beside_the_batchs(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(1))
    assert batch(*RUN).exit_code == 0
    for name in ("mine.png", "yours.jpg"):
        (OUT / name).write_bytes(b"mine")
    manifest(*many(2))
    assert batch(*RUN).exit_code == 0
    assert len(impasto_emulator.charges) == 2
    LAYOUT.high_water.unlink()
    for words in (("status", "out"), (*RUN, "--dry-run"), RUN):
        assert batch(*words).exit_code == 0, words


def test_a_deleted_image_and_new_rows_go_on(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(3))
    assert batch(*RUN).exit_code == 0
    (OUT / "picture-1.png").unlink()
    manifest(*many(5))
    done = batch(*RUN)
    assert done.exit_code == 1
    assert done.stdout.startswith("complete: 5 of 5 done, 1 missing")
    assert len(impasto_emulator.charges) == 5


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ((), "it was cut or removed"),
        ((".impasto-mark",), "is missing, and earlier runs left 'errors.jsonl', 'results.jsonl'"),
        ((".impasto-mark", "results.jsonl", "errors.jsonl"), "it has no ledger (.impasto/ledger.jsonl)"),
    ],
)
def test_status_names_the_ledger_that_is_missing(
    batch: Run, manifest: Write, also: tuple[str, ...], message: str
) -> None:
    manifest(*many(2))
    assert batch(*RUN, "--no-report").exit_code == 0
    for name in (".impasto", *also):
        remove(OUT / name)
    for words in (("status", "out"), ("report", "out")):
        done = batch(*words)
        assert done.exit_code == 2
        assert message in done.stderr
        assert "put" in done.stderr.lower(), "and what to do"


@pytest.mark.parametrize("damage", ["removed", "emptied", "a folder"])
def test_without_the_stamp_results_are_read(batch: Run, manifest: Write, read: list[str], damage: str) -> None:
    manifest(row("a"))
    assert batch(*RUN).exit_code == 0
    LAYOUT.stamp.unlink()
    if damage == "emptied":
        LAYOUT.stamp.touch()
    elif damage == "a folder":
        LAYOUT.stamp.mkdir()
    assert batch(*RUN).exit_code == 0
    assert read == ["results.jsonl", "errors.jsonl"]
    assert batch(*RUN).exit_code == 0
    assert len(read) == (4 if damage == "a folder" else 2)


def test_a_stamp_counts_only_with_the_ledger_that_wrote_it(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(2))
    assert batch(*RUN, "--budget", "0.04").exit_code == 1
    old = LAYOUT.ledger.read_bytes()
    assert batch(*RUN).exit_code == 0
    LAYOUT.ledger.write_bytes(old)
    LAYOUT.high_water.unlink()
    (OUT / "picture-1.png").unlink()
    assert "is an older copy: results.jsonl or errors.jsonl name 'picture-1'" in stops(batch, impasto_emulator)


async def test_a_gateways_batch_that_has_begun_owns_every_image_in_its_folder(
    environment: dict[str, str], impasto_emulator: Emulator
) -> None:
    async def opens() -> bool:
        async with await Workspace.open(OUT, Disk(), is_begun=True):
            return True

    async with impasto.Client(api_key=KEY, api_base=impasto_emulator.url) as client:
        assert [outcome.state async for outcome in client.batch(many(2), out=OUT)] == ["done", "done"]
    LAYOUT.high_water.unlink()
    assert await opens()
    LAYOUT.high_water.unlink()
    (OUT / "other.png").write_bytes(b"")
    with pytest.raises(UntrustedLedger, match=r"does not know 'other\.png'"):
        await opens()
    for name in ("other.png", "results.jsonl", "errors.jsonl"):
        (OUT / name).unlink()
    LAYOUT.ledger.unlink()
    with pytest.raises(UntrustedLedger, match="is missing"):
        await opens()


@pytest.mark.parametrize("kind", ["a FIFO", "a folder"])
def test_a_mark_that_is_no_file_is_named_so(batch: Run, manifest: Write, kind: str) -> None:
    manifest(*many(1))
    assert batch(*RUN).exit_code == 0
    LAYOUT.high_water.unlink()
    os.mkfifo(LAYOUT.high_water) if kind == "a FIFO" else LAYOUT.high_water.mkdir()
    done = batch(*RUN)
    assert done.exit_code == 2
    assert "it is not a file" in done.stderr
