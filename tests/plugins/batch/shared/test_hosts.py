"""Hosts that share a batch through a bucket: each image is requested once over all of them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.campaigns.provider import Provider
from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import Run, Write, many

from .conftest import Host, exit_code_of, results

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
