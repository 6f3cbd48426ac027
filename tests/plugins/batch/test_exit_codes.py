"""Exit codes of the batch commands: 0 means that nothing is left undone, and all commands agree on that."""

from __future__ import annotations

import json
import signal
import tarfile
import time
from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from tests.plugins.batch.conftest import Run, Start, Write, many, row

RUN = ("run", "manifest.jsonl", "--out", "out", "--no-report")


@pytest.mark.parametrize("again", [False, True])
def test_rows_that_were_passed_over_are_work_undone(
    batch: Run, manifest: Write, impasto_emulator: Emulator, again: bool
) -> None:
    manifest(row("good"), "{", row("bad", sede=1))
    done = batch(*RUN, "--skip-invalid")
    if again:
        done = batch(*RUN, "--skip-invalid")
    assert done.exit_code == 1
    assert done.stdout == "complete: 1 of 1 done, 2 invalid rows skipped, charged: 0.03 USD\n"
    found = batch("status", "out", "--json")
    assert (found.exit_code, json.loads(found.stdout)["passed_over"]) == (1, 2)
    assert batch("status", "out").stdout == done.stdout
    manifest(row("good"))
    assert batch(*RUN, "--skip-invalid").exit_code == 0
    assert batch("status", "out").exit_code == 0
    assert len(impasto_emulator.charges) == 1


def test_a_dry_run_names_the_rows_that_would_be_passed_over(batch: Run, manifest: Write) -> None:
    manifest(row("good"), row("bad", sede=1))
    done = batch(*RUN, "--skip-invalid", "--dry-run")
    assert done.exit_code == 1
    assert "skipped: line 2 (bad): unknown parameter 'sede'" in done.stderr
    done = batch(*RUN, "--skip-invalid", "--dry-run", "--json")
    assert (done.exit_code, json.loads(done.stdout)["passed_over"]) == (1, 1)


def test_rows_that_come_twice_leave_nothing_undone(batch: Run, manifest: Write) -> None:
    manifest(row("good"), row("good"))
    assert batch(*RUN, "--dedupe").exit_code == 0
    assert batch("status", "out").exit_code == 0


@pytest.mark.parametrize("change", ["removed", "altered", "a folder", "unreadable name"])
def test_an_image_that_is_missing_is_named_by_all_commands(batch: Run, manifest: Write, change: str) -> None:
    manifest(*many(3))
    assert batch(*RUN).exit_code == 0
    path = Path("out/picture-1.png")
    data = path.read_bytes()
    match change:
        case "removed":
            path.unlink()
        case "altered":
            path.write_bytes(data[:-8] + bytes(8))
        case "a folder":
            path.unlink()
            path.mkdir()
        case _:
            path.rename("out/picture-1.png.bak")
    for words in (("status", "out"), RUN, ("status", "out")):
        done = batch(*words)
        assert done.exit_code == 1
        assert "picture-1: picture-1.png is missing or has changed" in done.stderr
        assert done.stdout == "complete: 3 of 3 done, 1 missing, charged: 0.09 USD\n"
    assert json.loads(batch("status", "out", "--json").stdout)["missing"] == 1


def test_many_missing_images_are_counted(batch: Run, manifest: Write) -> None:
    manifest(*many(12))
    assert batch(*RUN).exit_code == 0
    for path in Path("out").glob("*.png"):
        path.unlink()
    message = batch("status", "out").stderr
    assert message.count("is missing or has changed") == 10
    assert "2 more images are missing" in message


def test_images_that_failed_are_undone_once_the_batch_is_complete(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(row("a"), row("b", prompt="a [content_moderation]"), row("c"))
    impasto_emulator.fault("status", status=402, times=1)
    assert batch(*RUN, "--concurrency", "1").exit_code == 1
    assert batch("status", "out").exit_code == 0, "it is not over yet"
    assert batch(*RUN).exit_code == 1
    assert batch("status", "out").exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_images_given_up_is_interrupted_though_none_is_left(
    start: Start, manifest: Write, impasto_emulator: Emulator, number: signal.Signals
) -> None:
    impasto_emulator.fault("delay", seconds=60)
    manifest(*many(2))
    run = start(*RUN)
    until = time.monotonic() + 60
    while len(impasto_emulator.requests) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert run.stderr is not None
    run.send_signal(number)
    assert "a second signal stops at once" in run.stderr.readline()
    run.send_signal(number)
    assert (
        run.communicate(timeout=60)[0]
        == "complete: 0 of 2 done, 2 ambiguous, charged: 0.06 USD (2 charges uncertain)\n"
    )
    assert run.returncode == 130


@pytest.mark.parametrize("name", ["results.jsonl", "report.html"])
def test_results_that_could_not_be_written_are_work_undone(
    batch: Run, manifest: Write, impasto_emulator: Emulator, name: str
) -> None:
    manifest(row("a"))
    Path("out", name).mkdir(parents=True)
    done = batch(*RUN[:-1])
    assert done.exit_code == 1
    assert "could not be written" in done.stderr
    Path("out", name).rmdir()
    assert batch(*RUN[:-1]).exit_code == 0
    assert len(impasto_emulator.charges) == 1


def test_an_export_names_the_images_that_it_leaves_out(batch: Run, manifest: Write) -> None:
    manifest(*many(3))
    assert batch(*RUN).exit_code == 0
    Path("out/picture-0.png").unlink()
    path = Path("out/picture-1.png")
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    done = batch("export", "out", "--out", "set", "--form", "webdataset")
    assert done.exit_code == 1
    assert {line.partition(" is missing")[0] for line in done.stderr.splitlines() if line} == {
        "Warning: left out: picture-0: picture-0.png",
        "Warning: left out: picture-1: picture-1.png",
    }
    with tarfile.open("set/00000.tar") as tar:
        (name,) = (each for each in tar.getnames() if each.endswith(".json"))
        file = tar.extractfile(name)
        assert file is not None
        assert json.load(file)["id"] == "picture-2"


def test_the_first_failure_of_each_kind_is_reported_with_its_reason_and_charge(batch: Run, manifest: Write) -> None:
    blocked = (row(f"blocked-{number}", prompt=f"[content_moderation] {number}") for number in range(3))
    manifest(row("good"), *blocked)
    done = batch("run", "manifest.jsonl", "--out", "out", "--concurrency", "1")
    assert done.exit_code == 1
    assert done.stdout == "complete: 1 of 4 done, 3 filtered, charged: 0.03 USD\n"
    reason = "stability/stable-image-core: content_moderation (HTTP 403): prompt: was flagged by moderation"
    assert done.stderr == f"Warning: blocked-0: {reason}\nIt was not charged.\n"
