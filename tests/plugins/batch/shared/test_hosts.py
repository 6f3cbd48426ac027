"""Hosts that share a batch through a bucket: each image is requested once over all of them."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.campaigns.provider import Provider, provider
from tests.images import png
from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import CREATIVE, Run, Write, many, row

from .conftest import LONG, Host, exit_code_of, results
from .test_deaths import rows_of, wait_for
from .test_shares import log

pytestmark = pytest.mark.waits


def test_three_hosts_make_each_image_once(
    host: Host, manifest: Write, bucket: Bucket, at: Provider, batch: Run
) -> None:
    path = manifest(*many(24))
    processes = [host(name, path) for name in "abc"]
    assert [exit_code_of(process) for process in processes] == [0, 0, 0]
    assert at.charges() == Counter(range(1, 25))
    assert len(results(bucket)) == 24
    workers = {intent["host"] for intent in bucket.intents()}
    assert len(workers) == 3
    assert len(bucket.intents()) == 24
    found = batch("status", bucket.out, "--json", **bucket.environment)
    assert found.exit_code == 0
    status = json.loads(found.stdout)
    assert (status["state"], status["total"], status["done"], status["hosts"]) == ("complete", 24, 24, 0)
    assert status["cost_usd"] == 24 * 0.03


def test_the_summary_of_a_host_counts_its_own_images_in_flight(
    bucket: Bucket, host: Host, manifest: Write, batch: Run, tmp_path: Path
) -> None:
    (tmp_path / "small.png").write_bytes(png(64, 64))
    path = manifest(row("job", model=CREATIVE, image="small.png"), row("image"))
    with provider("--job-seconds", "600") as slow:
        first = host("a", path, **slow.environment)
        wait_for(lambda: any(each["row"] == "accepted" for each in rows_of(bucket)))
        second = host("b", path, **slow.environment)
        begins = f"running on 2 hosts (seen in the last {LONG.lease:.0f} s): 1 of 2 done"
        wait_for(lambda: batch("status", bucket.out, **bucket.environment).stdout.startswith(begins))
        os.kill(second.pid or 0, signal.SIGINT)
        assert exit_code_of(second) == 130
        first.kill()
    summary = log(tmp_path, "b").splitlines()[-1]
    assert summary.startswith("stopped: 1 of 2 done, 1 pending, 1 in flight at other hosts, charged: ")
    assert "uncertain" not in summary
