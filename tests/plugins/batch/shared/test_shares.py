"""Shares: two running hosts never have one, and a dead host's share goes to the next."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.campaigns.hosts import Times
from tests.campaigns.provider import Provider, provider
from tests.images import png
from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import CREATIVE, Run, Write, many, row

from .conftest import SHORT, Host, exit_code_of, results
from .test_deaths import rows_of, wait_for

pytestmark = pytest.mark.waits


def log(tmp_path: Path, name: str) -> str:
    """The output of a host."""
    return (tmp_path / f"{name}.log").read_text()


def test_a_share_of_a_running_host_is_refused(bucket: Bucket, host: Host, manifest: Write, tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(png(64, 64))
    path = manifest(row("job", model=CREATIVE, image="small.png"))
    with provider("--job-seconds", "600") as slow:
        first = host("a", path, "--share", "1/2", times=Times(lease=15.0), **slow.environment)
        wait_for(bucket.intents)
        others = {"b": ("--share", "1/2"), "c": ("--share", "1/3"), "d": ()}
        processes = [host(name, path, *words, **slow.environment) for name, words in others.items()]
        assert [exit_code_of(process) for process in processes] == [2, 2, 2]
        assert first.is_alive()
        assert slow.charges().total() == 1
        first.kill()
    assert "share 1/2 belongs to another host, which is running" in log(tmp_path, "b")
    assert "a running host of this batch has --share 1/2" in log(tmp_path, "c")
    assert "a running host of this batch has --share 1/2" in log(tmp_path, "d")


def test_a_dead_hosts_share_goes_to_the_next(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, batch: Run
) -> None:
    def status() -> dict[str, object]:
        return dict(json.loads(batch("status", bucket.out, "--json", **bucket.environment).stdout))

    path = manifest(*many(20))
    first = host("a", path, "--share", "2/2", times=SHORT)
    wait_for(lambda: rows_of(bucket))
    first.kill()
    wait_for(lambda: status()["dead_hosts"] == 1)
    in_flight = status()["on_dead_hosts"]
    words = batch("status", bucket.out, **bucket.environment).stdout
    assert f"1 host died with {in_flight} in flight" in words
    assert exit_code_of(host("b", path, "--share", "2/2", times=SHORT)) in (0, 1)
    assert (status()["dead_hosts"], status()["on_dead_hosts"]) == (0, 0)
    assert max(at.charges().values()) == 1
    holders = bucket.objects(".impasto/shares/2-of-2/")
    assert list(holders) == ["000000", "000001"]


def test_a_host_that_was_stopped_does_not_send_with_a_share_that_another_has(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, tmp_path: Path
) -> None:
    path = manifest(*many(24))
    first = host("a", path, "--share", "1/1", times=SHORT)
    wait_for(lambda: len(bucket.intents()) >= 4)
    os.kill(first.pid or 0, signal.SIGSTOP)
    assert exit_code_of(host("b", path, "--share", "1/1", "--budget", "0.4", times=SHORT)) == 1
    sent = at.charges().total()
    os.kill(first.pid or 0, signal.SIGCONT)
    assert exit_code_of(first) == 1
    assert "another one has taken share 1/1" in log(tmp_path, "a")
    assert at.charges().total() == sent
    assert exit_code_of(host("b", path, "--share", "1/1", times=SHORT)) == 0
    assert at.charges() == Counter(range(1, 25))
    assert len(results(bucket)) == 24


def test_each_host_begins_with_its_part(bucket: Bucket, at: Provider, host: Host, manifest: Write) -> None:
    path = manifest(*many(30))
    processes = [host(name, path, "--share", f"{number}/3") for number, name in enumerate("abc", 1)]
    assert [exit_code_of(process) for process in processes] == [0, 0, 0]
    assert at.charges() == Counter(range(1, 31))
    firsts = [row["share"] for each in bucket.intents() for row in each["rows"] if row["id"] == "picture-0"]
    assert firsts == ["1/3"]
    assert len(results(bucket)) == 30


def test_the_budget_is_divided(bucket: Bucket, at: Provider, host: Host, manifest: Write) -> None:
    path = manifest(*many(40))
    processes = [host(name, path, "--share", f"{number}/2", "--budget", "0.61") for number, name in enumerate("ab", 1)]
    assert [exit_code_of(process) for process in processes] == [1, 1]
    assert at.charges().total() == 20  # 0.305 USD are ten images of 0.03 for each
    assert exit_code_of(host("a", path, "--share", "1/2", "--budget", "0.61")) == 1
    assert at.charges().total() == 20
    by_share = Counter(row["share"] for each in bucket.intents() for row in each["rows"])
    assert by_share == Counter({"1/2": 10, "2/2": 10})
