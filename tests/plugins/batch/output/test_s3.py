"""``--out s3://bucket/prefix``: what goes up, what stays, and what a bucket that fails costs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import impasto
from impasto import BatchOptions, ConfigError, StorageError
from impasto_plugins.batch.ledger import recorder
from impasto_plugins.batch.ledger.recorder import LedgerRecorder
from impasto_plugins.batch.ledger.workspace import WorkspacePaths
from impasto_plugins.batch.output import s3 as batch_s3
from impasto_plugins.emulator import Emulator
from impasto_plugins.transports import s3 as s3_module
from tests.plugins.batch.conftest import Run, Write, ledger_rows, many, row
from tests.s3 import FakeS3, pretending_aside

TO = "s3://pictures/shots/of a fox"


@pytest.fixture
def s3(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    monkeypatch.setattr(s3_module, "_PAUSE", 0.001)
    monkeypatch.setattr(s3_module, "_MAX_PAUSE", 0.01)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    environment |= {
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pretending_aside() as fake:
        environment |= fake.environment
        yield fake


Used = Callable[..., str]


@pytest.fixture
def used(batch: Run, manifest: Write, impasto_emulator: Emulator) -> Used:
    """What is said of a target that can't be used."""

    def used(to: str, *more: str, **variables: str | None) -> str:
        done = batch("run", str(manifest(row("a"))), "--out", to, *more, **variables)
        assert done.exit_code == 2, done.output
        assert impasto_emulator.requests == []
        return done.output

    return used


def staging() -> Path:
    return batch_s3.BucketTarget.parse(TO).staging


def pictures(s3: FakeS3) -> dict[str, bytes]:
    return {name: data for name, data in s3.objects("shots/of a fox/").items() if name.endswith(".png")}


def results(s3: FakeS3) -> list[dict[str, object]]:
    objects = s3.objects("shots/of a fox/")
    lines = [json.loads(line) for line in objects["results.jsonl"].splitlines()]
    found = []
    for line in lines:
        for picture in line["response"]["body"]["data"]:
            assert hashlib.sha256(objects[picture["path"]]).hexdigest() == picture["sha256"]
            found.append(picture)
    return found


async def test_from_a_program(
    s3: FakeS3, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with impasto.Client() as client:
        first = [outcome async for outcome in client.batch(many(3), out=TO)]
        assert {outcome.url for outcome in first} == {f"{TO}/picture-{number}.png" for number in range(3)}
        assert {outcome.path for outcome in first} == {None}
        assert len(pictures(s3)) == len(results(s3)) == 3
        again = {outcome.id: outcome async for outcome in client.batch(many(4), out=TO)}
        assert again["picture-0"].url == f"{TO}/picture-0.png"
        assert len(impasto_emulator.charges) == len(results(s3)) == 4
        wrongs: dict[str, BatchOptions] = {
            "was run with out s3://pictures/": {"out": staging()},
            "contains another batch": {"out": TO, "staging": tmp_path / "else"},
            "^staging needs out s3://": {"out": tmp_path / "local", "staging": tmp_path / "else"},
            "^s3_endpoint must be a URL": {"out": TO, "s3_endpoint": "minio"},
        }
        for message, options in wrongs.items():
            with pytest.raises(ConfigError, match=message):
                _ = [outcome async for outcome in client.batch(many(5), **options)]
        assert len(impasto_emulator.charges) == 4


async def test_from_a_program_whose_results_cant_go_up(
    s3: FakeS3, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, impasto_emulator: Emulator
) -> None:
    async def fails(*args: object) -> None:
        raise OSError(5, "the bucket is away")

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(batch_s3.ImageBucket, "publish", fails)
    async with impasto.Client() as client:
        outcomes = client.batch(many(2), out=TO)
        assert [(await anext(outcomes)).state, (await anext(outcomes)).state] == ["done", "done"]
        with pytest.raises(StorageError, match="results could not be uploaded: the bucket is away; the next run"):
            await anext(outcomes)


def test_pictures_and_results_go_up(batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator) -> None:
    path = str(manifest(row("a"), row("b", n=2), row("ünïcode (1)")))
    done = batch("run", path, "--out", TO)
    assert done.exit_code == 0, done.output
    assert {"a.png", "b-0.png", "b-1.png"} < set(pictures(s3))
    assert len(pictures(s3)) == len(results(s3)) == 4
    objects = s3.objects("shots/of a fox/")
    assert objects["errors.jsonl"] == b""
    assert objects["report.html"].count(b"data:image/webp") == 4
    assert [path.name for path in WorkspacePaths(staging()).staging.iterdir()] == []
    status = json.loads(batch("status", TO, "--json").output)
    assert (status["state"], status["done"]) == ("complete", 4)
    before = len(s3.methods)
    assert batch("run", path, "--out", TO).exit_code == 0  # nothing is left to do
    assert len(impasto_emulator.charges) == 4
    assert len(s3.methods) - before < 8


def test_only_the_reports_pictures_stay_here(
    batch: Run, manifest: Write, s3: FakeS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("impasto_plugins.batch.batch.A_PAGE", 2)
    path = str(manifest(*many(5)))
    assert batch("run", path, "--out", TO).exit_code == 0
    assert len(pictures(s3)) == 5
    assert len(list(staging().glob("*.png"))) == 2
    refused = batch("export", TO, "-o", "set", "--form", "webdataset")
    assert refused.exit_code == 2
    assert "s3://pictures/shots/of a fox has 3 images that the local folder lacks" in refused.output
    for name, data in pictures(s3).items():
        (staging() / name).write_bytes(data)
    assert batch("export", TO, "-o", "set", "--form", "webdataset").exit_code == 0
    assert batch("run", path, "--out", TO).exit_code == 0


def test_another_folder_for_the_ledger(batch: Run, manifest: Write, s3: FakeS3, tmp_path: Path) -> None:
    path = str(manifest(row("a")))
    assert batch("run", path, "--out", TO, "--staging", "here").exit_code == 0
    assert json.loads(batch("status", "here", "--json").output)["done"] == 1
    other = batch("run", path, "--out", TO, "--staging", "there")
    assert other.exit_code == 2
    assert "contains another batch" in other.output
    plain = batch("run", path, "--out", "here")
    assert plain.exit_code == 2
    assert f"was run with --out {TO}" in plain.output


@pytest.mark.parametrize(
    ("to", "variables", "message"),
    [
        ("s3://nothing-there/x", {}, "the bucket does not exist"),
        (TO, {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no AWS credentials"),
        (TO, {"AWS_SECRET_ACCESS_KEY": "of-another"}, "the secret access key does not match"),
        (TO, {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "it is not writable"),
    ],
    ids=["bucket", "no key", "wrong secret", "nobody"],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.usefixtures("s3")
def test_a_bucket_that_can_not_be_used_is_told_before_anything_is_spent(
    used: Used, to: str, variables: dict[str, str | None], message: str, more: tuple[str, ...]
) -> None:
    output = used(to, *more, **variables)
    assert f"--out {to}: " in output
    assert message in output
    assert "of-another" not in output


def test_an_older_copy_of_the_whole_local_folder_pays_nothing_again(
    batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator, tmp_path: Path
) -> None:
    path = str(manifest(*many(6)))
    assert batch("run", path, "--out", TO, "--budget", "0.06", "--concurrency", "1").exit_code == 1
    shutil.copytree(staging(), tmp_path / "old")
    assert batch("run", path, "--out", TO, "--budget", "0.12", "--concurrency", "1").exit_code == 1
    shutil.rmtree(staging())
    shutil.copytree(tmp_path / "old", staging())
    for words in ((), ("--dry-run",)):
        done = batch("run", path, "--out", TO, *words)
        assert done.exit_code == 2
        assert "it is an older copy" in done.stderr
    assert len(impasto_emulator.charges) == 4
    shutil.rmtree(staging())
    assert "contains another batch" in batch("run", path, "--out", TO).stderr
    assert len(impasto_emulator.charges) == 4


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_damaged_ledger_of_a_bucket(
    batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator, damage: str
) -> None:
    path = str(manifest(*many(4)))
    assert batch("run", path, "--out", TO, "--budget", "0.06", "--concurrency", "1").exit_code == 1
    ledger = WorkspacePaths(staging()).ledger
    if damage == "removed":
        ledger.unlink()
    else:
        ledger.write_bytes(ledger.read_bytes()[:700])
    assert batch("run", path, "--out", TO).exit_code == 2
    assert len(impasto_emulator.charges) == 2
    before = pictures(s3)
    for _ in range(2):
        assert batch("run", path, "--out", TO, "--start-over").exit_code == 0
    assert len(impasto_emulator.charges) == 6
    assert before.items() <= pictures(s3).items()
    assert len(pictures(s3)) == 6


@pytest.mark.parametrize("refused", ["PUT", "GET"])
def test_permissions_are_looked_at_before_anything_is_spent(used: Used, s3: FakeS3, refused: str) -> None:
    s3.forbidden = refused
    assert "access denied: these credentials need s3:PutObject and s3:GetObject there" in used(TO)


def test_a_bucket_that_asks_for_less_is_waited_for(
    batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator
) -> None:
    s3.statuses = [503] * 5
    assert batch("run", str(manifest(*many(3))), "--out", TO).exit_code == 0
    assert len(results(s3)) == len(impasto_emulator.charges) == 3


TRANSIENT: list[int | tuple[int, str]] = [
    (409, "ConditionalRequestConflict"),
    (409, "OperationAborted"),
    (503, "SlowDown"),
    (429, "SlowDown"),
    (500, "InternalError"),
    (400, "RequestTimeout"),
    (200, "InternalError"),
    (200, "SlowDown"),
    0,
]
"""What Amazon's S3 documentation says to send again; 0: a connection that is reset."""


@pytest.mark.parametrize("failure", TRANSIENT, ids=str)
def test_one_failure_of_the_bucket_that_passes_stops_nothing(
    batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator, failure: int | tuple[int, str]
) -> None:
    path = str(manifest(*many(2)))
    s3.reads = [failure]  # of the mark, which says whose prefix it is
    s3.statuses = [failure, failure]
    done = batch("run", path, "--out", TO)
    assert done.exit_code == 0, done.output
    assert len(results(s3)) == len(impasto_emulator.charges) == 2
    before = len(pictures(s3))
    s3.statuses = [failure] * 3  # of results and report
    assert batch("run", path, "--out", TO).exit_code == 0
    assert len(pictures(s3)) == before


def test_a_page_of_a_proxy_is_no_upload(batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator) -> None:
    s3.statuses = [(200, "<!doctype html><html>Sign in</html>")] * 3
    done = batch("run", str(manifest(*many(2))), "--out", TO)
    assert done.exit_code == 0, done.output
    assert len(pictures(s3)) == len(results(s3)) == len(impasto_emulator.charges) == 2


def test_results_that_could_not_go_up_are_work_undone(batch: Run, manifest: Write, s3: FakeS3) -> None:
    path = str(manifest(row("a")))
    s3.uploads_left = 2  # the mark, and the image
    done = batch("run", path, "--out", TO)
    assert done.exit_code == 1
    assert "results and report could not be uploaded" in done.stderr
    s3.uploads_left = None
    assert batch("run", path, "--out", TO).exit_code == 0
    assert len(results(s3)) == 1


def test_an_upload_whose_answer_is_lost_is_one_object(
    batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator
) -> None:
    s3.loses_answers = 3
    done = batch("run", str(manifest(*many(4))), "--out", TO)
    assert done.exit_code == 0, done.output
    assert len(pictures(s3)) == len(results(s3)) == len(impasto_emulator.charges) == 4


def test_a_bucket_that_vanishes_stops_the_run_and_loses_nothing(
    batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator
) -> None:
    s3.uploads_left = 3  # the mark, and two pictures
    path = str(manifest(*many(30)))
    done = batch("run", path, "--out", TO, "--concurrency", "2")
    assert done.exit_code == 1
    assert "s3://pictures/shots/of a fox: HTTP 404 NoSuchBucket" in done.output
    assert "the next run uploads it" in done.output
    paid = len(impasto_emulator.charges)
    assert 3 <= paid < 30
    staged = [path for path in WorkspacePaths(staging()).staging.iterdir() if path.stat().st_size]
    assert len(staged) == paid - 2
    refused = batch("run", path, "--out", TO)
    assert refused.exit_code == 2
    assert len(impasto_emulator.charges) == paid
    s3.uploads_left = None
    done = batch("run", path, "--out", TO)
    assert done.exit_code == 0, done.output
    assert len(results(s3)) == len(impasto_emulator.charges) == 30


def broken(*_: object) -> Iterator[None]:
    raise OSError(5, "Input/output error")
    yield


def test_an_upload_before_its_row_was_written_is_repeated(
    batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two is a run whose ledger can't be written just then."""
    path = str(manifest(row("a")))
    with monkeypatch.context() as patch:
        patch.setattr(LedgerRecorder, "_write_uploaded", broken)
        assert batch("run", path, "--out", TO).exit_code == 1
    assert list(pictures(s3)) == ["a.png"]
    done = batch("run", path, "--out", TO)
    assert done.exit_code == 0, done.output
    assert list(pictures(s3)) == ["a.png"]
    assert len(results(s3)) == len(impasto_emulator.charges) == 1


def test_an_image_that_a_kill_left_whole_is_known_to_be_charged_before_it_goes_up(
    batch: Run, manifest: Write, s3: FakeS3, impasto_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(manifest(row("a")))
    with monkeypatch.context() as patch:  # a kill between the image's last byte and its row
        patch.setattr(recorder, "artifact_row", broken)
        patch.setattr(LedgerRecorder, "save_elsewhere", lambda self, unit, outcome: asyncio.sleep(0, outcome))
        assert batch("run", path, "--out", TO).exit_code == 1
    assert [each["row"] for each in ledger_rows(staging())].count("staged") == 0
    s3.uploads_left = 1  # the mark alone goes up
    assert batch("run", path, "--out", TO).exit_code == 2
    found = json.loads(batch("status", TO, "--json").stdout)
    assert (found["pending"], found["cost_usd"]) == (1, 0.03)
    s3.uploads_left = None
    done = batch("run", path, "--out", TO)
    assert done.stdout == "complete: 1 of 1 done, charged: 0.03 USD\n"
    assert len(results(s3)) == len(impasto_emulator.charges) == 1


def test_no_object_is_overwritten(batch: Run, manifest: Write, s3: FakeS3) -> None:
    s3.stored["/pictures/shots/of a fox/a.png"] = b"somebody's", "image/png"
    assert batch("run", str(manifest(row("a"), row("b", seed=1), row("c", seed=1))), "--out", TO).exit_code == 0
    assert pictures(s3)["a.png"] == b"somebody's"
    assert {"a-1.png", "b.png", "c.png"} < set(pictures(s3))
    assert len(results(s3)) == 3
    kinds = [each["row"] for each in ledger_rows(staging())]
    assert kinds.count("done") == 3
