"""Hosts that die, stop, or lose the network: nothing is paid twice, and nothing that was paid for is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.campaigns.hosts import Times
from tests.campaigns.provider import Provider, provider
from tests.campaigns.shared_kills import Figures, SharedJob, at_every_request, at_random
from tests.images import png
from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import CREATIVE, Run, Write, many, row

from .conftest import SHORT, Host, errors, exit_code_of, results
from .proxy_s3 import faulty

pytestmark = pytest.mark.waits


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def rows_of(bucket: Bucket) -> list[dict[str, object]]:
    """The rows of all hosts' logs."""
    return [json.loads(line) for body in bucket.objects(".impasto/log/").values() for line in body.splitlines()]


@pytest.mark.parametrize("has_state", [False, True], ids=["a bucket", "a bucket and a database"])
def test_kills_of_three_hosts(bucket: Bucket, at: Provider, tmp_path: Path, postgres: str, has_state: bool) -> None:
    figures = Figures()
    job = SharedJob.make(tmp_path / "batch", 90, bucket, at, state=postgres if has_state else "")
    at_random(figures, job, 5, random.Random(3))
    assert figures.broken == []
    assert figures.kills >= 3
    assert figures.done + figures.ambiguous == 90


def test_a_new_host_knows_what_a_killed_one_had_done_after_its_folder_was_used_again(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, batch: Run
) -> None:
    path = manifest(*many(12))
    first = host("a", path)
    wait_for(lambda: sum(each["row"] == "done" for each in rows_of(bucket)) >= 2)
    first.kill()
    again = exit_code_of(host("a", path))
    paid = results(bucket)
    assert exit_code_of(host("b", path)) == again
    assert results(bucket) == paid
    status = json.loads(batch("status", bucket.out, "--json", **bucket.environment).stdout)
    assert status["done"] == len(paid) >= 8
    assert status["done"] + status["ambiguous"] == 12
    assert max(at.charges().values()) == 1


def test_a_kill_at_requests_to_the_bucket(moto_url: str, at: Provider, tmp_path: Path) -> None:
    figures = Figures()
    at_every_request(figures, tmp_path, moto_url, at, rows=2, every=9)
    assert figures.broken == []
    assert figures.kills >= 2


def test_another_host_fetches_the_job_of_a_dead_one(
    bucket: Bucket, host: Host, manifest: Write, tmp_path: Path
) -> None:
    (tmp_path / "small.png").write_bytes(png(64, 64))
    path = manifest(row("job", model=CREATIVE, image="small.png", seed=5))
    with provider("--job-seconds", "4") as slow:
        first = host("a", path, times=SHORT, **slow.environment)
        wait_for(lambda: any(each["row"] == "accepted" for each in rows_of(bucket)))
        first.kill()
        assert exit_code_of(host("b", path, times=SHORT, **slow.environment)) == 0
        assert slow.charges() == Counter({5: 1})
    assert set(results(bucket)) == {"job"}


def test_a_host_that_was_stopped_longer_than_its_lease(
    bucket: Bucket, at: Provider, host: Host, manifest: Write, batch: Run
) -> None:
    path = manifest(*many(16))
    first = host("a", path, times=SHORT)
    wait_for(lambda: len(bucket.intents()) >= 4)
    stop(first)
    assert exit_code_of(host("b", path, times=SHORT)) == 1
    status = json.loads(batch("status", bucket.out, "--json", **bucket.environment).stdout)
    assert 1 <= status["ambiguous"] <= 4
    assert status["done"] + status["ambiguous"] == 16
    os.kill(first.pid or 0, signal.SIGCONT)
    assert exit_code_of(first) == 0
    assert at.charges() == Counter(range(1, 17))
    assert len(results(bucket)) == 16
    assert errors(bucket) == {}
    status = json.loads(batch("status", bucket.out, "--json", **bucket.environment).stdout)
    assert (status["done"], status["ambiguous"], status["charges_unknown"]) == (16, 0, 0)
    assert status["cost_usd"] == 0.48


def stop(process: ForkServerProcess) -> None:
    """Stop a process, as a machine that sleeps does."""
    os.kill(process.pid or 0, signal.SIGSTOP)


def test_a_clock_that_is_ahead_changes_nothing(bucket: Bucket, at: Provider, host: Host, manifest: Write) -> None:
    path = manifest(*many(16))
    processes = [
        host("a", path, times=Times(lease=30.0, skew=60.0)),
        host("b", path),
        host("c", path, times=Times(lease=30.0, skew=-60.0)),
    ]
    assert [exit_code_of(process) for process in processes] == [0, 0, 0]
    assert at.charges() == Counter(range(1, 17))
    assert errors(bucket) == {}


def test_a_host_without_the_bucket_stops_sending(bucket: Bucket, at: Provider, host: Host, manifest: Write) -> None:
    path = manifest(*many(24))
    with faulty(bucket.url) as proxy:
        cut_off = host("a", path, times=SHORT, AWS_ENDPOINT_URL_S3=proxy.url)
        wait_for(lambda: len(bucket.intents()) >= 6)
        proxy.is_cut = True
        intents = len(bucket.intents())
        assert exit_code_of(cut_off) == 1
    assert at.charges().total() <= intents
    assert exit_code_of(host("b", path, times=SHORT)) == 1  # those of the first host wait in its folder
    assert exit_code_of(host("a", path, times=SHORT)) in (0, 1)
    assert max(at.charges().values()) == 1
    assert len(results(bucket)) + len(errors(bucket)) == 24
    assert {each["code"] for each in errors(bucket).values()} <= {"charge_unknown"}  # intents without an answer
    assert len(errors(bucket)) <= 4
    assert at.charges().total() >= len(results(bucket))


def test_a_faulty_bucket_delays_and_changes_nothing(bucket: Bucket, at: Provider, host: Host, manifest: Write) -> None:
    path = manifest(*many(20))
    with faulty(bucket.url) as proxy:
        proxy.share = 0.3
        processes = [host(name, path, AWS_ENDPOINT_URL_S3=proxy.url) for name in "ab"]
        assert [exit_code_of(process) for process in processes] == [0, 0]
        assert {"409", "503", "slow", "lost"} <= proxy.counts.keys()
    assert at.charges() == Counter(range(1, 21))
    assert len(results(bucket)) == 20
    assert errors(bucket) == {}


def test_an_intent_without_an_answer_is_given_up_and_not_ambiguous(
    bucket: Bucket, at: Provider, host: Host, manifest: Write
) -> None:
    path = manifest(*many(3))
    with faulty(bucket.url) as proxy:
        proxy.loses_intents = True
        assert exit_code_of(host("a", path, AWS_ENDPOINT_URL_S3=proxy.url)) == 1
    assert at.charges() == Counter()
    assert len(bucket.intents()) == 3
    assert exit_code_of(host("b", path)) == 0
    assert at.charges() == Counter(range(1, 4))
    assert len(results(bucket)) == 3


def test_a_bucket_without_conditions_is_refused(
    bucket: Bucket, at: Provider, batch: Run, manifest: Write, tmp_path: Path
) -> None:
    with faulty(bucket.url) as proxy:
        proxy.ignores_conditions = True
        variables = {**bucket.environment, **at.environment, "AWS_ENDPOINT_URL_S3": proxy.url}
        variables |= {"XDG_STATE_HOME": str(tmp_path / "a")}
        done = batch("run", str(manifest(row("a"))), "--out", bucket.out, "--join", **variables)
    assert done.exit_code == 2
    assert "ignores the header If-None-Match" in done.output
    assert at.charges() == Counter()
