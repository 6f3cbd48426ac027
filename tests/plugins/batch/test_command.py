"""The command's words: what is refused as usage, what a dry run tells, what pipes and programs get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from impasto.registry import OPERATIONS
from impasto_plugins.batch.cli.run import _duration, _rate
from impasto_plugins.emulator import Emulator
from tests.distributions import ACME, install

from .conftest import CORE, Run, Start, Write, ledger_rows, many, row


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--concurrency", "0"), "must be a whole number from 1 to 1,000, not '0'"),
        (("--concurrency", "-1"), "must be a whole number from 1 to 1,000, not '-1'"),
        (("--concurrency", "1e6"), "must be a whole number from 1 to 1,000, not '1e6'"),
        (("--concurrency", "1000000"), "must be a whole number from 1 to 1,000, not '1000000'"),
        (("--budget", "nan"), "budget must be a number of USD above 0"),
        (("--budget", "inf"), "budget must be a number of USD above 0"),
        (("--budget", "-1"), "budget must be a number of USD above 0"),
        (("--budget", "0"), "budget must be a number of USD above 0"),
        (("--budget", "ten"), "must be a number, not 'ten'"),
        (("--max-failures", "many"), "max-failures must be a number such as 20, or a share such as 5%"),
        (("--max-failures", "101%"), "max-failures must be"),
        (("--max-failures", "1.5"), "max-failures must be"),
        (("--max-failures", "-1"), "max-failures must be"),
        (("--max-failures", "nan%"), "max-failures must be"),
        (("--timeout", "0"), "timeout must be a number of seconds above 0"),
        (("--timeout", "nan"), "timeout must be a number of seconds above 0"),
        (("--deadline", "soon"), "deadline must be a time such as 90s, 30m or 2h, not 'soon'"),
        (("--deadline", "0"), "deadline must be a time"),
        (("--rate", "150"), "rate must be requests in a time, such as 150/10s"),
        (("--rate", "0/10s"), "rate must be requests in a time, such as 150/10s, not '0/10s'"),
        (("--names", "{prompt}"), "names: '{prompt}' contains {prompt}, which is not a field"),
        (("--names", "../{id}"), "is not a path inside the folder"),
        (("--emulator", "--api-base", "http://127.0.0.1:9"), "give --api-base or --emulator, not both"),
        (("--emulator", "--transport", "https"), "give --transport or --emulator, not both"),
        (("--out", "s3://Bucket_/shots"), "'Bucket_' is not a bucket name; S3 allows 3 to 63 lowercase letters"),
        (("--out", "s3://a/shots"), "'a' is not a bucket name; S3 allows 3 to 63 lowercase letters"),
        (("--out", "s3://bucket/../shots"), "invalid prefix; allowed are up to 200 ASCII letters"),
        (("--out", "s3://bucket/x", "--s3-endpoint", "minio"), "--s3-endpoint must be a URL"),
        (("--staging", "x"), "--staging needs --out s3://bucket/prefix"),
        (("--api-base", "ftp://x"), "api_base must begin with https://"),
    ],
)
def test_b54_options_that_can_not_be(
    batch: Run, manifest: Write, impasto_emulator: Emulator, words: tuple[str, ...], message: str
) -> None:
    manifest(row("a"))
    done = batch("run", "manifest.jsonl", "--out", "out", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert impasto_emulator.requests == []
    assert not Path("out").exists()


def test_times_and_rates() -> None:
    assert [_duration(text) for text in ("90", "90s", "1.5m", "2h", "1d")] == [90, 90, 90, 7200, 86_400]
    assert (_rate("150/10s").requests, _rate("150/10s").seconds, _rate("9000/1h").seconds) == (150, 10, 3600)


@pytest.mark.parametrize("path", ["none.jsonl", "folder", "empty.jsonl"])
def test_b53_a_manifest_that_is_none(batch: Run, tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jsonl").touch()
    done = batch("run", path, "--out", "out")
    assert done.exit_code == 2
    assert f"the manifest {path!r}" in done.stderr


def test_an_output_folder_that_can_not_be(batch: Run, manifest: Write, tmp_path: Path) -> None:
    manifest(row("a"))
    (tmp_path / "file").touch()
    for words in ((), ("--dry-run",)):
        done = batch("run", "manifest.jsonl", "--out", "file/out", *words)
        assert done.exit_code == 2
        assert "'file/out'" in done.stderr


def test_the_poll_interval_of_the_environment_counts_with_the_emulator_too(batch: Run, manifest: Write) -> None:
    manifest(row("good"))
    done = batch("run", "manifest.jsonl", "--out", "out", "--emulator", "--dry-run", IMPASTO_POLL_INTERVAL="soon")
    assert done.exit_code == 2
    assert "IMPASTO_POLL_INTERVAL must be a number of seconds, not 'soon'" in done.stderr


def test_a_key_that_is_missing_is_told_first(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(row("a"))
    for words in ((), ("--dry-run",)):
        done = batch("run", "manifest.jsonl", "--out", "out", *words, STABILITY_API_KEY=None)
        assert done.exit_code == 2
        assert "set STABILITY_API_KEY" in done.stderr
    assert impasto_emulator.requests == []


def test_a_dry_run_changes_nothing(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(*many(3), row("sd", model="stability/sd3.5-large", n=2))
    done = batch("run", "manifest.jsonl", "--out", "out", "--dry-run")
    assert (done.exit_code, Path("out").exists(), impasto_emulator.requests) == (0, False, [])
    assert done.stdout.splitlines() == [
        "stability/stable-image-core: 3 images, 3 to do, 0.03 USD each",
        "stability/sd3.5-large: 2 images, 2 to do, 0.065 USD each",
        "5 images in 4 rows, 5 to do for 0.22 USD",
        "Nothing was sent.",
    ]
    batch("run", "manifest.jsonl", "--out", "out")
    before = ledger_rows(Path("out"))
    plan = json.loads(batch("run", "manifest.jsonl", "--out", "out", "--dry-run", "--json").stdout)
    assert (plan["pictures"], plan["to_do"], plan["usd"]) == (5, 0, 0)
    assert ledger_rows(Path("out")) == before


def test_rows_that_are_wrong_are_passed_over_if_asked(batch: Run, manifest: Write, impasto_emulator: Emulator) -> None:
    manifest(row("good"), "{", row("bad", sede=1), row("good"))
    done = batch("run", "manifest.jsonl", "--out", "out", "--skip-invalid", "--dedupe")
    assert (done.exit_code, len(impasto_emulator.charges)) == (1, 1)
    assert done.stdout == "complete: 1 of 1 done, 2 invalid rows skipped, charged: 0.03 USD\n"
    assert "skipped: line 2: is invalid JSON" in done.stderr
    assert "skipped: line 3 (bad): unknown parameter 'sede'" in done.stderr
    assert "line 4 (good): is a duplicate of line 1 and was skipped" in done.stderr
    errors = [json.loads(line) for line in Path("out/errors.jsonl").read_text().splitlines()]
    assert [(e["custom_id"], e["line"], e["error"]["code"]) for e in errors] == [
        (None, 2, "invalid_request"),
        ("bad", 3, "invalid_request"),
    ]


def test_a_parameter_without_a_field_is_dropped_on_demand(
    batch: Run, manifest: Write, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    body = {"model": CORE, "prompt": "a lighthouse", "style": "natural"}
    path = manifest({"custom_id": "a", "method": "POST", "url": "/v1/images/generations", "body": body})
    refused = batch("run", str(path), "--out", str(tmp_path / "out"))
    assert refused.exit_code == 2
    assert "style" in refused.stderr
    assert list(impasto_emulator.charges) == []
    assert batch("run", str(path), "--out", str(tmp_path / "out"), "--drop-params").exit_code == 0
    assert len(impasto_emulator.charges) == 1
    assert "style" in (tmp_path / "out" / "results.jsonl").read_text("utf-8")


def test_a_program_is_told_in_json_lines(batch: Run, manifest: Write) -> None:
    manifest(row("good"), row("bad", prompt="a [content_moderation]"))
    done = batch("run", "manifest.jsonl", "--out", "out", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0] == {"event": "plan", "rows": 2, "pictures": 2, "to_do": 2, "usd": 0.06}
    assert {e["id"]: (e["state"], e["path"], e["code"]) for e in events if e["event"] == "picture"} == {
        "good": ("done", "out/good.png", None),
        "bad": ("filtered", None, "moderation_blocked"),
    }
    assert events[-1]["event"] == "end"
    assert (events[-1]["state"], events[-1]["done"], events[-1]["reason"]) == ("complete", 1, None)


def test_a_terminal_has_a_line_that_moves(start: Start, manifest: Write, environment: dict[str, str]) -> None:
    import os
    import pty
    import subprocess
    import sys

    manifest(*many(4))
    main, terminal = pty.openpty()
    words = [sys.executable, "-m", "impasto_plugins.cli", "batch", "run", "manifest.jsonl", "--out", "out"]
    with subprocess.Popen(words, stderr=terminal, stdout=subprocess.PIPE, env={**os.environ, **environment}) as run:
        os.close(terminal)
        data = b""
        while True:
            try:
                piece = os.read(main, 4096)
            except OSError:  # the other end was closed
                break
            if not piece:
                break
            data += piece
        assert run.stdout is not None
        output = run.stdout.read().decode()
    os.close(main)
    assert run.returncode == 0
    assert output == "complete: 4 of 4 done, charged: 0.12 USD\n"
    assert "4 images in 4 rows, 4 to do for 0.12 USD" in data.decode()
    assert b"\r" in data


def test_status_of_what_is_no_batch(batch: Run, tmp_path: Path) -> None:
    done = batch("status", "nothing")
    assert done.exit_code == 2
    assert "'nothing' is not a batch folder" in done.stderr


@pytest.fixture
def acme(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's model, installed."""
    site = tmp_path_factory.mktemp("site")
    install(site, "Acme_Paint", {OPERATIONS: {"acme/paint": "acme_batched:paint"}}, {"acme_batched": ACME})
    monkeypatch.syspath_prepend(site)


@pytest.mark.usefixtures("acme")
def test_another_address_is_that_of_the_models_own_provider(
    batch: Run, manifest: Write, impasto_emulator: Emulator
) -> None:
    manifest(row("a", model="acme/paint"))
    words = ("run", "manifest.jsonl", "--out", "out", "--api-base", impasto_emulator.url)
    assert batch(*words, ACME_KEY="any").exit_code == 1  # the emulator has no such model
    assert {each.target for each in impasto_emulator.requests} == {"/paint"}


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_another_address_of_several_providers_is_refused(
    batch: Run, manifest: Write, impasto_emulator: Emulator, more: tuple[str, ...]
) -> None:
    manifest(row("a", model="acme/paint"), row("b"))
    done = batch("run", "manifest.jsonl", "--out", "out", "--api-base", impasto_emulator.url, *more, ACME_KEY="any")
    assert done.exit_code == 2
    assert "--api-base is the address of one provider, but the models belong to acme, stability" in done.stderr
    assert not impasto_emulator.requests


EMPTY_NAME = "the output folder has an empty name; give a folder, such as . for the current one"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "manifest.jsonl", "--out", ""),
        ("run", "manifest.jsonl", "--out", "s3://bucket/x", "--staging", ""),
        ("status", ""),
        ("report", ""),
        ("export", "out", "--out", ""),
    ],
)
def test_an_empty_name_is_not_the_current_folder(
    batch: Run, manifest: Write, impasto_emulator: Emulator, words: tuple[str, ...]
) -> None:
    """As a shell writes a variable without a value."""
    manifest(row("a"))
    done = batch(*words)
    assert (done.exit_code, done.stderr) == (2, f"Error: {EMPTY_NAME}\n")
    assert impasto_emulator.requests == []
    assert [path.name for path in Path().iterdir()] == ["manifest.jsonl"]
