"""A batch on several hosts whose charged images were refused by their host: the next run of any host fetches them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import Run, Write
from tests.plugins.batch.test_native_n import Vendor, several, vendor as vendor  # noqa: PLC0414 - a fixture


def test_any_host_fetches_the_images_later(
    bucket: Bucket, batch: Run, manifest: Write, vendor: type[Vendor], tmp_path: Path
) -> None:
    words = ("run", str(manifest(several("cat", 4, "signed", seed=1))), "--out", bucket.out, "--join")
    vendor.refused = {1, 2}
    for host in ("a", "b"):  # the second takes what the first has left
        done = batch(*words, **bucket.environment, XDG_STATE_HOME=str(tmp_path / host))
        left = len(vendor.refused)
        assert (done.exit_code, f"{left} charged and not fetched yet" in done.stdout) == (1, True), done.stderr
        status = json.loads(batch("status", bucket.out, "--json", **bucket.environment).stdout)
        assert (status["done"], status["unfetched"], status["charges_unknown"]) == (4 - left, left, 0)
        vendor.refused.discard(left)
    done = batch(*words, **bucket.environment, XDG_STATE_HOME=str(tmp_path / "a"))
    assert (done.exit_code, len(vendor.posts)) == (0, 1), done.stderr
    [cat] = map(json.loads, bucket.objects()["results.jsonl"].splitlines())
    assert [each["seed"] for each in cat["response"]["body"]["data"]] == [1, 2, 3, 4]
    assert cat["response"]["body"]["usd"] == pytest.approx(0.2)
