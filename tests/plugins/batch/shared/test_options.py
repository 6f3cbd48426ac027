"""Wrong uses of --join and --share: refused before anything is sent."""

from __future__ import annotations

import json
import os

import pytest

import impasto
from impasto import ConfigError, RateLimit
from impasto_plugins.batch import BatchOptions
from impasto_plugins.batch.ledger.states import TaskState
from impasto_plugins.batch.shared.share import Share
from impasto_plugins.batch.tasks import ImageTask, join_jobs, join_shared_tasks
from impasto_plugins.emulator import Emulator
from tests.conftest import KEY
from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import Run, Write, many, row


@pytest.fixture(autouse=True)
def environment(environment: dict[str, str], bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of a user who has the bucket's key."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "1/3/5", "-1/3", "1/3 ", "1/100000", ""])
def test_an_invalid_share(text: str, batch: Run, manifest: Write, bucket: Bucket, impasto_emulator: Emulator) -> None:
    done = batch("run", str(manifest(row("a"))), "--out", bucket.out, "--join", "--share", text)
    assert done.exit_code == 2
    assert "share must be K/N, such as 1/3" in done.output
    assert bucket.objects() == {}
    assert impasto_emulator.requests == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "here", "--join"), "--join needs --out s3://bucket/prefix"),
        (("--out", "BUCKET", "--share", "1/3"), "--share needs --join"),
        (("--out", "BUCKET", "--join", "--start-over"), "--start-over can't be used with --join"),
        (("--out", "BUCKET", "--join", "--budget", "1"), "--join with a budget needs --share K/N"),
        (
            ("--out", "BUCKET", "--join", "--rate", "10/1s"),
            "--join with a rate limit (10 requests in 1 s for stability)",
        ),
        (("--out", "BUCKET", "--join", "--rate", "2/1s", "--share", "1/3"), "is less than one request"),
        (("--out", "BUCKET", "--join", "--rate", "10/1s", "--state", "here"), "or --state postgresql://..."),
        (
            ("--out", "BUCKET", "--join", "--share", "1/3", "--state", "postgresql://nowhere"),
            "--share can't be used with --state",
        ),
        (("--out", "BUCKET", "--join", "--state", "mysql://nowhere/any"), "unknown state 'mysql'"),
    ],
)
def test_options_that_do_not_fit(
    words: tuple[str, ...], message: str, batch: Run, manifest: Write, bucket: Bucket
) -> None:
    path = str(manifest(row("a")))
    done = batch("run", path, *(bucket.out if each == "BUCKET" else each for each in words))
    assert done.exit_code == 2
    assert message in done.output
    assert bucket.objects() == {}


def test_other_batches_under_one_name(batch: Run, manifest: Write, bucket: Bucket, impasto_emulator: Emulator) -> None:
    path, out = str(manifest(*many(2))), bucket.out
    assert batch("run", path, "--out", out, "--join").exit_code == 0
    other = batch("run", str(manifest(*many(3), name="other.jsonl")), "--out", out, "--join", "--staging", "b")
    assert other.exit_code == 2
    assert "contains a batch with another manifest" in other.output
    other = batch("run", path, "--out", out, "--join", "--staging", "b", "--names", "x-{id}")
    assert "contains a batch with another --names" in other.output
    other = batch("run", path, "--out", out, "--staging", "c")
    assert "contains a batch on several hosts: give --join" in other.output
    assert len(impasto_emulator.charges) == 2
    assert batch("run", path, "--out", f"{out}-2").exit_code == 0
    other = batch("run", path, "--out", f"{out}-2", "--join", "--staging", "d")
    assert other.exit_code == 2
    assert "contains a batch that was run without --join" in other.output
    assert len(impasto_emulator.charges) == 4


def test_another_address(batch: Run, manifest: Write, bucket: Bucket, impasto_emulator: Emulator) -> None:
    path = str(manifest(*many(2)))
    assert batch("run", path, "--out", bucket.out, "--join", "--staging", "a").exit_code == 0
    other = batch("run", path, "--out", bucket.out, "--join", "--staging", "b", "--emulator")
    assert other.exit_code == 2
    assert f"the images of this batch came from stability at {impasto_emulator.url}" in other.output


def test_every_host_makes_the_same_requests() -> None:
    tasks = [ImageTask(id="a", index=index, n=10, model="m", native_maximum=4) for index in range(10)]
    new = [[each.index for each in unit.images] for unit in join_shared_tasks(tasks, [0] * 10)]
    assert new == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    again = TaskState.REFUSED_AGAIN
    left = [[each.index for each in unit.images] for unit in join_shared_tasks(tasks[2:], [again, again, *[0] * 6])]
    assert left == [[2], [3], [4, 5, 6, 7], [8, 9]]
    jobs = [ImageTask(id="a", index=index, n=3, model="m", job="x" if index < 2 else "y") for index in range(3)]
    assert [[each.index for each in unit.images] for unit in join_jobs(jobs)] == [[0, 1], [2]]


def test_a_status_of_nothing(batch: Run, bucket: Bucket) -> None:
    done = batch("status", bucket.out)
    assert done.exit_code == 2
    assert "has no batch that hosts share with --join" in done.output


def test_a_status_names_what_was_given(batch: Run, bucket: Bucket, manifest: Write) -> None:
    endless = f"s3://bucket/{'x' * 2_000}"
    for words, name in ((("status",), "DIR"), (("report",), "DIR"), (("export", "--out", "new"), "DIR")):
        done = batch(*words, endless)
        assert done.exit_code == 2
        assert f"Error: {name} 's3://bucket/xxx" in done.output
    done = batch("run", str(manifest(row("a"))), "--out", bucket.out, "--staging", endless)
    assert "Error: --staging 's3://bucket/xxx" in done.output
    done = batch("status", "s3://no-such-bucket/batch")
    assert done.exit_code == 2
    assert "Error: DIR s3://no-such-bucket/batch: " in done.output


def test_one_host_after_another(batch: Run, manifest: Write, bucket: Bucket, impasto_emulator: Emulator) -> None:
    path = str(manifest(row("two", n=2, seed=1), row("bad", prompt="[public_figure]"), row("one", seed=9)))
    first = batch("run", path, "--out", bucket.out, "--join", "--staging", "a")
    assert first.exit_code == 1
    assert "complete: 3 of 4 done, 1 filtered" in first.output or "1 refused" in first.output
    charges = len(impasto_emulator.charges)
    second = batch("run", path, "--out", bucket.out, "--join", "--staging", "b", "--json")
    assert second.exit_code == 1
    assert len(impasto_emulator.charges) == charges == 3
    found = json.loads(batch("status", bucket.out, "--json").stdout)
    assert (found["done"], found["pending"], found["state"]) == (3, 0, "complete")


@pytest.mark.parametrize("count", [1, 3, 7, 150])
def test_the_parts_add_up_to_the_whole(count: int) -> None:
    shares = [Share(number, count) for number in range(1, count + 1)]
    assert sum(share.of_rate(RateLimit(150, 10.0)).requests for share in shares) == 150
    assert round(sum(share.of_usd(10.01) for share in shares), 6) == 10.01


async def test_from_a_program(impasto_emulator: Emulator, bucket: Bucket, tmp_path: os.PathLike[str]) -> None:
    async with impasto.Client(api_key=KEY, api_base=impasto_emulator.url) as client:
        for folder in "ab":
            found = {
                (each.id, each.index): each
                async for each in client.batch(
                    [*many(3), row("two", n=2, seed=70), row("wrong", sede=1)],
                    out=bucket.out,
                    staging=f"{tmp_path}/{folder}",
                    join=True,
                    share="1/2",
                    budget_usd=2.0,
                )
            }
            assert {each.state for key, each in found.items() if key != ("wrong", 0)} == {"done"}
            assert found["wrong", 0].state == "refused"
            assert len(found) == 6
            assert {each.url for each in found.values()} >= {
                f"{bucket.out}/picture-{number}.png" for number in range(3)
            }
            assert len(impasto_emulator.charges) == 5
        wrongs: dict[str, BatchOptions] = {
            "^join=True needs out s3": {"out": tmp_path, "join": True},
            "^share needs join=True": {"out": bucket.out, "share": "1/2"},
            "^join=True with a budget needs share K/N": {"out": bucket.out, "join": True, "budget_usd": 1.0},
        }
        for message, options in wrongs.items():
            with pytest.raises(ConfigError, match=message):
                _ = [each async for each in client.batch(many(9), **options)]
        changed = client.batch([row("picture-0", prompt="another")], out=bucket.out, join=True, share="1/2")
        (outcome,) = [each async for each in changed]
        assert "of other content" in str(outcome.error)
        assert len(impasto_emulator.charges) == 5
