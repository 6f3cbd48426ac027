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
    assert answer["warnings"] == []  # nobody said how many it was asked for


def test_a_job_that_outlives_its_call_is_resumed_with_its_number_of_images(
    vendor: type[Vendor], environment: dict[str, str]
) -> None:
    vendor.is_job_done = False
    words = ["generate", "acme/job", "a cat", "-n", "3", "--timeout", "0.3", "-o", "cat.png"]
    result = CliRunner().invoke(main, words, env=environment)
    assert result.exit_code == 1
    advice = "Fetch the job's result with: impasto "
    assert f"{advice}resume acme/job job-1 -n 3\n" in result.stderr
    vendor.is_job_done = True
    advised = result.stderr.partition(advice)[2].split()
    done = CliRunner().invoke(main, [*advised, "-o", "cat.png"], env=environment)
    assert (done.exit_code, done.stdout.split()) == (0, ["cat-1.png", "cat-2.png", "cat-3.png"])
    assert "Warning" not in done.stderr
    assert [Path(f"cat-{i + 1}.png").read_bytes() for i in range(3)] == [png(8, 8 + i) for i in range(3)]
    assert len(vendor.posts) == 1


def test_an_image_that_a_resumed_job_lacks_is_reported(vendor: type[Vendor], environment: dict[str, str]) -> None:
    words = ["generate", "acme/job", "a cat", "-n", "2", "-o", "cat.png"]
    assert CliRunner().invoke(main, words, env=environment).exit_code == 0
    done = CliRunner().invoke(main, ["resume", "acme/job", "job-1", "-n", "3"], env=environment)
    assert (done.exit_code, len(done.stdout.split())) == (1, 2)
    assert "Error: 3 of 3: the answer lacks image 3 of 3; it may have been charged" in done.stderr
    wrong = CliRunner().invoke(main, ["resume", "acme/job", "job-1", "-n", "11"], env=environment)
    assert wrong.exit_code == 2
    assert "n: must be a whole number from 1 to 10, not 11" in wrong.stderr
