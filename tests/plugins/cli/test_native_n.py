"""The command line writes all images of an answer, and prints what they cost and the tokens that were counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from impasto_plugins.cli.main import main
from tests.images import png
from tests.plugins.batch.test_native_n import Vendor, vendor as vendor  # noqa: PLC0414 - a fixture


def test_three_images_are_one_request_and_three_files(vendor: type[Vendor], environment: dict[str, str]) -> None:
    words = ["generate", "acme/fine", "a cat", "-n", "3", "-p", "seed=1", "-o", "cat.png", "--json"]
    done = CliRunner().invoke(main, words, env=environment)
    assert done.exit_code == 0, done.output
    assert [post["samples"] for post in vendor.posts] == [3]
    answer = json.loads(done.stdout)
    assert [Path(each["path"]).read_bytes() for each in answer["files"]] == [png(8, 9), png(8, 10), png(8, 11)]
    assert answer["cost"]["usd"] == pytest.approx(0.12)
    assert answer["usage"]["input_tokens"] == 10
    assert answer["usage"]["total_tokens"] == 110


def test_a_job_that_is_resumed_costs_all_its_images(vendor: type[Vendor], environment: dict[str, str]) -> None:
    words = ["generate", "acme/job", "a cat", "-n", "2", "-o", "cat.png", "--json"]
    assert CliRunner().invoke(main, words, env=environment).exit_code == 0
    done = CliRunner().invoke(main, ["resume", "acme/job", "job-1", "-o", "again.png", "--json"], env=environment)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert len(answer["files"]) == 2
    assert answer["cost"]["usd"] == pytest.approx(0.08)
