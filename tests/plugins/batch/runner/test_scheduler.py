"""A manifest becomes pictures, and a second run goes on where the first ended."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from impasto_plugins.emulator import Emulator
from tests.images import png
from tests.plugins.batch.conftest import CORE, CREATIVE, Run, Write, codes, ledger_rows, lines, many, row


def test_a_manifest_becomes_pictures(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(row("dusk", seed=5), row("dawn", aspect_ratio="16:9", output_format="webp"))
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert (done.exit_code, len(impasto_emulator.charges)) == (0, 2)
    out = Path("out")
    results = {line["custom_id"]: line for line in lines(out / "results.jsonl")}
    response = results["dusk"]["response"]
    assert isinstance(response, dict)
    (picture,) = response["body"]["data"]
    data = (out / "dusk.png").read_bytes()
    assert picture == {
        "index": 0,
        "path": "dusk.png",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "media_type": "image/png",
        "seed": 5,
        "finish_reason": "SUCCESS",
    }
    assert (response["status_code"], response["body"]["usd"], results["dusk"]["error"]) == (200, 0.03, None)
    assert (out / "dawn.webp").read_bytes().startswith(b"RIFF")
    assert lines(out / "errors.jsonl") == []


def test_a_second_run_makes_what_is_new(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    rows = many(5)
    manifest(*rows[:3])
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    manifest(*reversed(rows))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert sorted(charge.seed or 0 for charge in impasto_emulator.charges) == [1, 2, 3, 4, 5]


def test_n_pictures_of_a_row(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(row("three", n=3, seed=7))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    (line,) = lines(Path("out/results.jsonl"))
    response = line["response"]
    assert isinstance(response, dict)
    assert [(each["path"], each["seed"]) for each in response["body"]["data"]] == [
        ("three-0.png", 7),
        ("three-1.png", 8),
        ("three-2.png", 9),
    ]
    assert len(impasto_emulator.charges) == 3


def test_a_job_is_polled_and_saved(batch: Run, manifest: Write, tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(png(64, 64))
    manifest(row("big", model=CREATIVE, image="small.png"))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert [each["row"] for each in ledger_rows(Path("out"))] == ["run", "intent", "accepted", "staged", "done"]


def test_the_refusals_of_a_run_are_reported(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(row("good"), row("bad", prompt="a [content_moderation] b"), row("blurred", prompt="a [content_filtered]"))
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    errors = {line["custom_id"]: line["error"] for line in lines(Path("out/errors.jsonl"))}
    assert {id: (e["code"], e["billed"]) for id, e in errors.items() if isinstance(e, dict)} == {
        "bad": ("moderation_blocked", "no"),
        "blurred": ("moderation_blocked", "unknown"),
    }
    blurred = errors["blurred"]
    assert isinstance(blurred, dict)
    assert (Path("out") / blurred["kept"][0]).read_bytes().startswith(b"\x89PNG"), "what came is kept"
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 1
    assert len(impasto_emulator.requests) == 3, "what moderation refused is never sent again"


@pytest.mark.parametrize("json_too", [False, True])
def test_status(batch: Run, manifest: Write, json_too: bool) -> None:
    manifest(row("good"), row("bad", prompt="a [content_moderation] b"))
    batch("run", "manifest.jsonl", "--out", "out")
    found = batch("status", "out", *(["--json"] if json_too else []))
    if json_too:
        status = json.loads(found.stdout)
        assert {name: status[name] for name in ("state", "total", "done", "filtered", "pending", "cost_usd")} == {
            "state": "complete",
            "total": 2,
            "done": 1,
            "filtered": 1,
            "pending": 0,
            "cost_usd": 0.03,
        }
    else:
        assert found.stdout == "complete: 1 of 2 done, 1 filtered, charged: 0.03 USD\n"


def test_two_runs_in_one_folder(batch: Run, manifest: Write, tmp_path: Path) -> None:
    import fcntl

    manifest(row("a"))
    batch("run", "manifest.jsonl", "--out", "out")
    with (tmp_path / "out" / ".impasto" / "lock").open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        second = batch("run", "manifest.jsonl", "--out", "out")
        assert second.exit_code == 2
        assert "'out' is locked" in second.stderr
        assert json.loads(batch("status", "out", "--json").stdout)["state"] == "running"


def test_the_same_id_with_other_content(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(row("a"), row("b"))
    batch("run", "manifest.jsonl", "--out", "out")
    manifest(row("b", prompt="a windmill"), json.dumps({"prompt": "a lighthouse", "model": CORE, "id": "a"}))
    second = batch("run", "manifest.jsonl", "--out", "out")
    assert second.exit_code == 2
    assert "1 of 2 rows can't be run" in second.stderr
    assert "line 1 (b): id: is the id of other content in an earlier run of this folder" in second.stderr
    assert len(impasto_emulator.charges) == 2


@pytest.mark.parametrize("change", ["removed", "emptied", "altered", "touched"])
def test_f53_a_picture_that_is_gone_is_told_and_not_paid_for_again(
    batch: Run, manifest: Write, impasto_emulator: Emulator, change: str
) -> None:
    manifest(*many(3))
    batch("run", "manifest.jsonl", "--out", "out")
    path = Path("out/picture-1.png")
    data = path.read_bytes()
    match change:
        case "removed":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "altered":
            path.write_bytes(data[:-1] + b"\0")
        case _:
            path.write_bytes(data)
    done = batch("run", "manifest.jsonl", "--out", "out")
    assert len(impasto_emulator.charges) == 3
    if change == "touched":
        assert (done.exit_code, done.stderr) == (0, "")
        return
    assert done.exit_code == 1
    assert "picture-1: picture-1.png is missing or has changed" in done.stderr
    assert codes(Path("out")) == {"file_gone"}
    path.write_bytes(data)
    assert batch("run", "manifest.jsonl", "--out", "out").exit_code == 0
    assert codes(Path("out")) == set()
