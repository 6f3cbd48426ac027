"""Batches on Ray: rows in, images out, and a worker that dies in between pays for nothing twice."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

import impasto
from impasto import ConfigError, ManifestError, MissingExtra
from tests.campaigns.provider import Provider
from tests.campaigns.ray_kills import kill_workers
from tests.docs.pages import blocks
from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import CORE, Run, Start, Write, many, row as request
from tests.plugins.batch.shared.conftest import results
from tests.plugins.batch.shared.test_deaths import wait_for

pytestmark = [
    pytest.mark.waits,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
]

Rows = list[dict[str, object]]


def rows(number: int) -> Rows:
    return [{"id": f"image-{index}", "prompt": "a lighthouse", "seed": index + 1} for index in range(number)]


def generate(ray: ModuleType, requests: Rows, bucket: Bucket, place: Path, **options: object) -> Rows:
    """The rows that come out, in the order of the ids."""
    options = {"model": CORE, "workers": 2, "concurrency": 4, "staging": place, **options}
    ds = impasto.ray.generate(ray.data.from_items(requests), out=bucket.out, **options)  # type: ignore[arg-type]  # mixed
    return sorted(ds.take_all(), key=lambda row: (len(str(row["id"])), row["id"], row["index"]))


def test_the_page_and_a_later_call_with_more_rows(
    ray: ModuleType, bucket: Bucket, at: Provider, tmp_path: Path, batch: Run
) -> None:
    (block,) = blocks("docs/ray.md", "python")
    output = io.StringIO()
    with redirect_stdout(output):
        exec(block.text.replace('"s3://bucket/kites"', f"{bucket.out!r}, staging={str(tmp_path / 'a')!r}"), {})
    kites = [f"kite-{seed}" for seed in range(1, 5)]
    assert sorted(output.getvalue().splitlines()) == [f"{id} done {bucket.out}/{id}.png" for id in kites]
    assert at.charges().total() == 4

    requests: Rows = [{"id": id, "prompt": "a kite", "seed": seed} for seed, id in enumerate(kites, 1)]
    requests.append({"id": "two-more", "prompt": "a kite", "seed": 5, "n": 2})
    out = generate(ray, requests, bucket, tmp_path / "b", workers=1)
    assert at.charges() == Counter(range(1, 7)), "the ledger is in the bucket"
    objects = bucket.objects()
    assert [(row["id"], row["index"], row["seed"]) for row in out] == [
        *[(id, 0, seed) for seed, id in enumerate(kites, 1)],
        ("two-more", 0, 5),
        ("two-more", 1, 6),
    ]
    for row in out:
        name = str(row["url"]).removeprefix(f"{bucket.out}/")
        assert hashlib.sha256(objects[name]).hexdigest() == row["sha256"]
        assert (row["state"], row["usd"], row["error"]) == ("done", 0.03, None)

    def status() -> dict[str, object]:
        return dict(json.loads(batch("status", bucket.out, "--json", **bucket.environment).stdout))

    wait_for(lambda: status()["state"] != "running")  # the workers have left
    assert (status()["state"], status()["done"], status()["total"]) == ("complete", 6, 6)
    assert len(results(bucket)) == 5


def test_workers_that_are_killed_lose_no_row(ray: ModuleType, bucket: Bucket, at: Provider, tmp_path: Path) -> None:
    killing = Thread(target=kill_workers, args=(bucket, "MapWorker", (5, 12)))
    killing.start()
    out = generate(ray, rows(30), bucket, tmp_path)
    killing.join()
    assert [row["id"] for row in out] == [f"image-{index}" for index in range(30)]
    states = Counter(row["state"] for row in out)
    assert states.keys() <= {"done", "ambiguous"}
    assert states["ambiguous"] <= 4 * 2
    charges = at.charges()
    assert max(charges.values()) == 1
    assert {row["seed"] for row in out if row["state"] == "done"} <= charges.keys()
    for row in out:
        if row["state"] == "ambiguous":
            assert "may have been charged" in str(row["error"])
            assert row["usd"] == 0.03


def test_a_budget_in_a_state_leaves_rows_pending(
    ray: ModuleType, bucket: Bucket, at: Provider, tmp_path: Path, postgres: str
) -> None:
    out = generate(ray, rows(6), bucket, tmp_path, workers=1, budget_usd=0.1, state=postgres)
    assert Counter(row["state"] for row in out) == Counter(done=3, pending=3)
    assert {row["error"] for row in out if row["state"] == "pending"} == {
        "the budget of 0.10 USD is used up: 0.01 is left, and an image of stability/stable-image-core may cost 0.03"
    }
    assert at.charges().total() == 3


def test_the_command_runs_a_manifest_and_a_host_that_is_killed_is_started_again(
    ray: ModuleType, bucket: Bucket, at: Provider, batch: Run, manifest: Write
) -> None:
    path, words = manifest(*many(24)), ("--out", bucket.out, "--engine", "ray", "--workers", "2", "--concurrency", "4")
    variables = {**bucket.environment, **at.environment}
    killing = Thread(target=kill_workers, args=(bucket, "_run_host", (8,)))
    killing.start()
    done = batch("run", str(path), *words, **variables)
    killing.join()
    status = json.loads(batch("status", bucket.out, "--json", **variables).stdout)
    assert (status["state"], status["done"] + status["ambiguous"]) == ("complete", 24)
    assert status["ambiguous"] <= 4
    assert done.exit_code == (1 if status["ambiguous"] else 0)
    assert f"complete: {status['done']} of 24 done" in done.output
    assert max(at.charges().values()) == 1
    wrong = batch("run", str(manifest(request("a", sede=1), name="b")), *words, **variables)
    assert wrong.exit_code == 2
    assert "unknown parameter 'sede'" in wrong.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "here", "--engine", "ray"), "--engine ray needs --out s3://bucket/prefix"),
        (("--out", "s3://images/a", "--engine", "ray", "--share", "1/2"), "leave --share out"),
        (("--out", "s3://images/a", "--engine", "ray", "--max-failures", "x"), "max-failures must be"),
        (("--out", "s3://images/a", "--engine", "ray", "--start-over"), "--start-over can't be used with --join"),
        (("--out", "s3://images/a", "--workers", "2"), "--workers needs --engine ray"),
    ],
)
def test_wrong_options_of_the_command(words: tuple[str, ...], message: str, batch: Run, manifest: Write) -> None:
    done = batch("run", str(manifest(request("a"))), *words)
    assert done.exit_code == 2
    assert message in done.output


def test_a_list_is_not_a_dataset(ray: ModuleType) -> None:
    with pytest.raises(ConfigError, match="ds must be a dataset of Ray, not .*list"):
        impasto.ray.generate(rows(1), out="s3://images/a")  # type: ignore[arg-type]  # a list


WRONG: list[tuple[Rows, str]] = [
    ([{"prompt": "a kite"}], "the dataset has no column 'id'"),
    (
        [*rows(2), rows(1)[0]],
        "1 of 3 rows can't be run; nothing was sent\nrow 'image-0': id: another row has it too",
    ),
    ([{**rows(1)[0], "promt": "a kite"}], "row 'image-0': unknown parameter 'promt'; did you mean 'prompt'?"),
    (
        [{"id": "a", "model": "stability/stable-image-cor", "prompt": "a"}],
        "row 'a': model: unknown model 'stability/stable-image-cor'",
    ),
    ([{**rows(1)[0], "id": None}], "row 'None': id: "),
]


@pytest.mark.parametrize(("requests", "message"), WRONG)
def test_wrong_rows_are_named_and_nothing_is_sent(
    ray: ModuleType, bucket: Bucket, tmp_path: Path, requests: Rows, message: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        generate(ray, requests, bucket, tmp_path)
    assert message in str(caught.value)
    assert bucket.objects() == {}, "no host began"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "images"}, "out must be s3://bucket/prefix, which all workers reach, not 'images'"),
        ({"out": "s3://images/a", "workers": 0}, "workers must be a whole number from 1 to 1,000, not 0"),
        ({"out": "s3://images/a", "concurrency": 0}, "concurrency must be a whole number of at least 1, not 0"),
        ({"out": "s3://images/a", "max_failures": "many"}, "max-failures must be"),
        ({"out": "s3://images/a", "timeout": -1}, "timeout"),
        ({"out": "s3://images/a", "state": "machine"}, "state must be the URL of a store that all workers reach"),
    ],
)
def test_wrong_options_are_named(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        impasto.ray.generate(None, **options)  # type: ignore[arg-type]  # no row is looked at
    assert message in str(caught.value)


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtra, match=r"pip install 'impasto\[ray\]'"):
        impasto.ray.generate(None, out="s3://images/a")  # type: ignore[arg-type]  # no row is looked at


def test_ray_reports_no_progress_of_its_own(
    ray: ModuleType, bucket: Bucket, at: Provider, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ds = ray.data.from_items(rows(2))
    ds.context.enable_progress_bars = True
    images = impasto.ray.generate(ds, out=bucket.out, model=CORE, staging=tmp_path / "staging")
    before = capfd.readouterr()
    assert [row["state"] for row in images.take_all()] == ["done"] * 2
    during = capfd.readouterr()
    assert "Dataset" not in before.out + before.err
    for words in ("Starting execution", "Running Dataset", "Total Progress"):
        assert words not in during.out + during.err
    assert ds.context.enable_progress_bars, "the user's own dataset is as it was"


def test_the_command_shows_what_its_hosts_say_and_nothing_of_ray(
    bucket: Bucket, at: Provider, manifest: Write, tmp_path: Path, start: Start
) -> None:
    words = ("run", str(manifest(*many(2))), "--out", bucket.out, "--engine", "ray", "--staging", str(tmp_path / "a"))
    quiet = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    process = start(*words, **bucket.environment, **at.environment, **quiet)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.startswith("complete: 2 of 2 done")
    assert "Started a local Ray instance" not in errors
    assert " INFO " not in errors
