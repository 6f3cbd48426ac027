"""Damage to a batch's folder between two runs: the next run pays nothing twice without being asked to.

The emulator's account of charges is the witness: it knows nothing of ledgers.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from impasto_plugins.batch.ledger.log import ReadPosition, rows
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.emulator import Emulator
from tests.plugins.batch.conftest import Run, Write, ledger_rows, lines, many, row

OUT = Path("out")
LAYOUT = WorkspacePaths(OUT)
RUN = ("run", "manifest.jsonl", "--out", "out", "--concurrency", "1")


@pytest.fixture
def stopped(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    """A run that ended half-way: images, one that may have been charged, one that moderation refused."""
    first, *others = many(9)
    manifest(first, row("blocked", prompt="a [content_moderation]", seed=50), *others)
    impasto_emulator.fault("reset", charged=True, times=1)
    assert batch(*RUN, "--budget", "0.15", "--no-report").exit_code == 1
    assert len(impasto_emulator.charges) == 5


def charged(emulator: Emulator, since: int = 0) -> list[int]:
    """The seeds of what was charged, each image's its own."""
    return [charge.seed or 0 for charge in list(emulator.charges)[since:]]


def stops(batch: Run, emulator: Emulator, *more: str) -> str:
    """Run again: nothing may be sent. Return what was said."""
    requests = len(emulator.requests)
    for words in ((*RUN, "--dry-run", *more), (*RUN, *more)):
        done = batch(*words)
        assert done.exit_code == 2, done.output
        assert "--start-over" in done.stderr
    assert len(emulator.requests) == requests
    return done.stderr


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def nuls(share: float) -> None:
    data = LAYOUT.ledger.read_bytes()
    remaining = int(len(data) * (1 - share))
    LAYOUT.ledger.write_bytes(data[:remaining] + bytes(len(data) - remaining))


def without_tail(number: int) -> None:
    """Cut whole rows off."""
    remaining = LAYOUT.ledger.read_bytes().splitlines(keepends=True)[:-number]
    LAYOUT.ledger.write_bytes(b"".join(remaining))


def doubled_tail() -> None:
    data = LAYOUT.ledger.read_bytes()
    LAYOUT.ledger.write_bytes(data + b"".join(data.splitlines(keepends=True)[-3:]))


def state_folder_emptied() -> None:
    remove(LAYOUT.hidden)
    LAYOUT.hidden.mkdir()


def change(how: Callable[[bytes], bytes]) -> None:
    LAYOUT.ledger.write_bytes(how(LAYOUT.ledger.read_bytes()))


def folder_in_its_place() -> None:
    LAYOUT.ledger.unlink()
    LAYOUT.ledger.mkdir()


def fifo_in_its_place() -> None:
    LAYOUT.ledger.unlink()
    os.mkfifo(LAYOUT.ledger)


def of_another_manifest(batch: Run, manifest: Write) -> None:
    manifest(*(row(f"other-{number}", seed=200 + number) for number in range(40)), name="other.jsonl")
    assert batch("run", "other.jsonl", "--out", "other").exit_code == 0
    shutil.copy(WorkspacePaths(Path("other")).ledger, LAYOUT.ledger)
    WorkspacePaths(Path("other")).ledger.unlink()


DAMAGE: dict[str, Callable[[], object]] = {
    "ledger removed": LAYOUT.ledger.unlink,
    "ledger emptied": lambda: LAYOUT.ledger.write_bytes(b""),
    "state folder removed": lambda: remove(LAYOUT.hidden),
    "state folder renamed": lambda: LAYOUT.hidden.rename(OUT / "impasto.old"),
    "state folder emptied": state_folder_emptied,
    "NULs over its last third": lambda: nuls(0.3),
    "NULs over its last row": lambda: nuls(0.02),
    "NULs over all of it": lambda: nuls(1.0),
    "half of it cut off": lambda: os.truncate(LAYOUT.ledger, LAYOUT.ledger.stat().st_size // 2),
    "its last byte cut off": lambda: os.truncate(LAYOUT.ledger, LAYOUT.ledger.stat().st_size - 1),
    "its last row cut off": lambda: without_tail(1),
    "rows cut off": lambda: without_tail(6),
    "its tail doubled": doubled_tail,
    "line ends of Windows": lambda: change(lambda data: data.replace(b"\n", b"\r\n")),
    "a byte order mark before it": lambda: change(lambda data: b"\xef\xbb\xbf" + data),
    "an empty line behind it": lambda: change(lambda data: data + b"\n"),
    "UTF-16": lambda: change(lambda data: data.decode().encode("utf-16")),
    "compressed": lambda: change(gzip.compress),
    "all of it twice": lambda: change(lambda data: data * 2),
    "its rows sorted": lambda: change(lambda data: b"".join(sorted(data.splitlines(keepends=True)))),
    "a folder in its place": folder_in_its_place,
    "a FIFO in its place": fifo_in_its_place,
}


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_ledger_that_is_missing_cut_or_damaged_stops_the_run_with_advice(
    batch: Run, impasto_emulator: Emulator, damage: Callable[[], object]
) -> None:
    damage()
    message = stops(batch, impasto_emulator)
    assert "it is unknown which images were paid for, and nothing was sent" in message
    assert "Traceback" not in message


BEYOND_THE_MARK = {
    "its last row cut off",
    "its last byte cut off",
    "NULs over its last row",
}
"""Without the mark these look as a write that was cut short does, or as an older ledger that knows of all charges."""


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("name", sorted(DAMAGE.keys() - BEYOND_THE_MARK))
def test_results_tell_of_charges_if_the_mark_is_gone_too(batch: Run, impasto_emulator: Emulator, name: str) -> None:
    DAMAGE[name]()
    LAYOUT.high_water.unlink()
    stops(batch, impasto_emulator)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("name", ["ledger removed", "ledger emptied", "state folder removed", "rows cut off"])
@pytest.mark.parametrize("template", ["{id}", "{model}/{id}-{seed}"])
def test_images_tell_of_charges_if_everything_else_is_gone(
    batch: Run, impasto_emulator: Emulator, name: str, template: str
) -> None:
    if template != "{id}":
        remove(OUT)
        before = len(impasto_emulator.charges)
        batch(*RUN, "--budget", "0.15", "--no-report", "--names", template)
        assert len(impasto_emulator.charges) > before
    DAMAGE[name]()
    for path in list(OUT.iterdir()):
        if path.suffix != ".png" and path.is_file():
            path.unlink()
    message = stops(batch, impasto_emulator, "--names", template)
    assert "which rows of the manifest ask for" in message


@pytest.mark.usefixtures("stopped")
@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_ledger_that_may_not_be_read(batch: Run, impasto_emulator: Emulator) -> None:
    LAYOUT.ledger.chmod(0)
    assert "can't be read (Permission denied)" in stops(batch, impasto_emulator)


@pytest.mark.usefixtures("stopped")
def test_the_ledger_of_another_manifest(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    of_another_manifest(batch, manifest)
    assert "is not the ledger that this folder had before" in stops(batch, impasto_emulator)
    LAYOUT.high_water.unlink()
    assert "is an older copy: results.jsonl or errors.jsonl name" in stops(batch, impasto_emulator)


def test_the_state_folder_and_the_mark_of_another_folder(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(3))
    assert batch(*RUN).exit_code == 0
    manifest(*(row(f"other-{number}", seed=200 + number) for number in range(2)), name="other.jsonl")
    assert batch("run", "other.jsonl", "--out", "other").exit_code == 0
    results = (OUT / "results.jsonl").read_bytes()
    remove(LAYOUT.hidden)
    other = WorkspacePaths(Path("other"))
    shutil.copytree(other.hidden, LAYOUT.hidden)
    shutil.copy(other.high_water, LAYOUT.high_water)
    assert "is another folder's, or an older copy: results.jsonl or errors.jsonl name 'picture-0'" in stops(
        batch, impasto_emulator
    )
    assert (OUT / "results.jsonl").read_bytes() == results
    assert batch(*RUN, "--start-over", "--budget", "0.03").exit_code == 1
    assert len(impasto_emulator.charges) == 3 + 2 + 1
    assert results in [path.read_bytes() for path in (OUT / "kept").iterdir()], "nothing is thrown away"
    assert batch(*RUN).exit_code == 0, "it goes on without --start-over"
    assert len(impasto_emulator.charges) == 3 + 2 + 3


def test_a_ledger_that_was_started_over_goes_on_before_it_has_results(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    """As after a kill: the results of the ledger before must not stop it."""
    manifest(*many(3))
    assert batch(*RUN).exit_code == 0
    LAYOUT.ledger.unlink()
    assert batch(*RUN, "--start-over", "--budget", "0.03").exit_code == 1
    for name in ("results.jsonl", "errors.jsonl"):
        remove(OUT / name)
    assert batch(*RUN).exit_code == 0
    assert len(impasto_emulator.charges) == 3 + 3


@pytest.mark.parametrize("what", ["ledger", "state folder"])
@pytest.mark.parametrize("mark", [True, False], ids=["with the mark", "without the mark"])
def test_an_older_copy_that_was_put_back(
    batch: Run, manifest: Write, impasto_emulator: Emulator, what: str, mark: bool
) -> None:
    manifest(*many(9))
    assert batch(*RUN, "--budget", "0.06").exit_code == 1
    source = LAYOUT.ledger if what == "ledger" else LAYOUT.hidden
    shutil.copytree(source, "old") if source.is_dir() else shutil.copy(source, "old")
    assert batch(*RUN, "--budget", "0.15").exit_code == 1
    remove(source)
    Path("old").rename(source)
    if not mark:
        LAYOUT.high_water.unlink()
    message = stops(batch, impasto_emulator)
    assert ("it was cut or removed, or is an older copy" if mark else "is an older copy: results.jsonl") in message
    assert len(charged(impasto_emulator)) == 5


def test_an_older_ledger_does_not_pay_again_for_what_may_have_been_charged(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(*many(2))
    impasto_emulator.fault("reset", charged=True, times=1)
    assert batch(*RUN).exit_code == 1
    (line,) = lines(OUT / "errors.jsonl")
    remove(LAYOUT.high_water)
    (OUT / "results.jsonl").unlink()
    LAYOUT.ledger.write_bytes(LAYOUT.ledger.read_bytes().splitlines(keepends=True)[0])  # as of before the first image
    assert f"is an older copy: results.jsonl or errors.jsonl name {line['custom_id']!r}" in stops(
        batch, impasto_emulator
    )


@pytest.mark.usefixtures("stopped")
def test_staged_files_that_were_removed_are_paid_for_once(batch: Run, impasto_emulator: Emulator) -> None:
    """The folder of what is on its way is made again; what was asked for and is not there may have been charged."""
    remove(LAYOUT.staging)
    assert batch(*RUN).exit_code == 1  # one is ambiguous, one refused
    assert sorted(set(charged(impasto_emulator))) == sorted(charged(impasto_emulator)), "none twice"


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("name", ["ledger removed", "NULs over its last third", "a folder in its place"])
def test_start_over_pays_again_and_throws_nothing_away(batch: Run, impasto_emulator: Emulator, name: str) -> None:
    before = {path: path.read_bytes() for path in OUT.glob("*.png")}
    DAMAGE[name]()
    assert batch(*RUN, "--start-over", "--budget", "0.09").exit_code == 1
    assert len(charged(impasto_emulator)) == 5 + 3
    assert {path: path.read_bytes() for path in before} == before, "images of the first run stay as they are"
    again = batch(*RUN, "--start-over")  # the same command goes on
    assert "--start-over has no effect" in again.stderr
    assert len(charged(impasto_emulator)) == 5 + 9
    names = {picture["path"] for line in lines(OUT / "results.jsonl") for picture in line["response"]["body"]["data"]}  # type: ignore[index]
    assert len(names) == 9
    assert not names & {path.name for path in before}
    assert batch(*RUN).stderr == ""


@pytest.mark.usefixtures("stopped")
def test_a_mark_that_is_lost_or_damaged_stops_nothing_by_itself(batch: Run, impasto_emulator: Emulator) -> None:
    for damage in (LAYOUT.high_water.unlink, lambda: LAYOUT.high_water.write_bytes(b"\0" * 35)):
        damage()
        assert batch(*RUN).exit_code == 1
        assert len(charged(impasto_emulator)) == len(set(charged(impasto_emulator))) == 9


def test_a_folder_with_somebodys_own_files_is_a_folder_for_a_first_run(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    OUT.mkdir()
    (OUT / "notes.txt").write_text("mine")
    (OUT / "holiday.png").write_bytes(b"mine")
    manifest(*many(2))
    assert batch(*RUN).exit_code == 0
    assert (OUT / "holiday.png").read_bytes() == b"mine"
    assert len(impasto_emulator.charges) == 2


def test_an_image_that_its_own_row_edits_is_no_result(batch: Run, manifest: Write, tmp_path: Path) -> None:
    from tests.images import png

    (tmp_path / "cat.png").write_bytes(png(64, 64))
    manifest(row("cat", model="stability/remove-background", image="cat.png", prompt=None))
    assert batch("run", "manifest.jsonl", "--out", ".").exit_code == 0
    assert (tmp_path / "cat.png").read_bytes() == png(64, 64)
    assert (tmp_path / "cat-1.png").exists()


async def test_from_a_program(stopped: None, batch: Run, impasto_emulator: Emulator) -> None:
    import impasto
    from tests.conftest import KEY

    requests = many(9)
    async with impasto.Client(api_key=KEY, api_base=impasto_emulator.url) as client:
        LAYOUT.ledger.unlink()
        with pytest.raises(impasto.ConfigError, match="is missing, but had"):
            await anext(client.batch(requests, out=OUT))
        LAYOUT.high_water.unlink()
        with pytest.raises(impasto.ConfigError, match="is missing, and earlier runs left"):
            await anext(client.batch(requests, out=OUT))
        (OUT / "results.jsonl").unlink()
        (OUT / "errors.jsonl").unlink()
        outcomes = [outcome async for outcome in client.batch(requests, out=OUT)]
        there = [outcome for outcome in outcomes if outcome.state == "refused"]
        assert len(there) == 4
        assert "exists in the folder, but not in its ledger" in str(there[0].error)
        assert len(impasto_emulator.charges) == 5 + 5, "the one whose answer was lost left nothing to know it by"


def damage_at_random(chance: random.Random) -> str:
    """Do to the ledger what disks, file systems and people do. Return what it was."""
    data = LAYOUT.ledger.read_bytes()
    begin, end = sorted(chance.sample(range(len(data) + 1), 2))
    rows = data.splitlines(keepends=True)
    first, last = sorted(chance.sample(range(len(rows) + 1), 2))
    kinds = {
        "cut": data[:begin],
        "cut between rows": b"".join(rows[:first]),
        "NULs": data[:begin] + bytes(end - begin) + data[end:],
        "NULs to the end": data[:begin] + bytes(len(data) - begin),
        "noise": data[:begin] + chance.randbytes(end - begin) + data[end:],
        "a bit": data[:begin] + bytes([(data + b"\0")[begin] ^ 1 << chance.randrange(8)]) + data[begin + 1 :],
        "bytes taken out": data[:begin] + data[end:],
        "rows taken out": b"".join(rows[:first] + rows[last:]),
        "bytes put in": data[:begin] + chance.randbytes(7) + data[begin:],
        "rows doubled": b"".join(rows[:last] + rows[first:last] + rows[last:]),
        "noise behind": data + chance.randbytes(100),
        "half a row behind": data + rows[-1][: chance.randrange(1, len(rows[-1]))],
        "NULs behind": data + bytes(chance.randrange(1, 9000)),
        "rows moved": b"".join(rows[first:last] + rows[:first] + rows[last:]),
        "emptied": b"",
    }
    kind = chance.choice(list(kinds))
    LAYOUT.ledger.write_bytes(kinds[kind])
    if chance.random() < 0.5:
        LAYOUT.high_water.unlink()
        kind += ", without the mark"
    return kind


@pytest.mark.usefixtures("stopped")
def test_whatever_happens_to_its_bytes_nothing_is_paid_for_twice(batch: Run, impasto_emulator: Emulator) -> None:
    shutil.copytree(OUT, "before")
    paid = set(charged(impasto_emulator))
    states = {each["id"]: each["row"] for each in ledger_rows(OUT) if "id" in each}
    chance, counts = random.Random(12), {0: 0, 1: 0, 2: 0}
    for _ in range(60):
        remove(OUT)
        shutil.copytree("before", OUT)
        kind, since = damage_at_random(chance), len(impasto_emulator.charges)
        done = batch(*RUN, "--no-report")
        new = charged(impasto_emulator, since)
        assert not paid & set(new), f"{kind}: paid for again"
        assert len(new) == len(set(new)), kind
        counts[done.exit_code] += 1
        if done.exit_code == 2:
            assert "--start-over" in done.stderr, kind
            assert not new, kind
        else:  # it went on: what it says of each image is what came of it
            now = {each["id"]: each["row"] for _, each in rows(LAYOUT.ledger, ReadPosition()) if "id" in each}
            assert len(now) == 10, kind
            assert all(now[id] == state for id, state in states.items() if state == "done"), kind
    assert min(counts[1], counts[2]) > 2, "some of it can be gone on from, and some can't"
