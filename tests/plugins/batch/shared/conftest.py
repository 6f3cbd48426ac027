"""A batch that several hosts share: moto's S3, the emulator in a process of its own, and hosts as processes."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.campaigns.hosts import Times, start_host
from tests.campaigns.provider import Provider, provider
from tests.moto_s3 import Bucket, moto, new_bucket

_numbers = itertools.count()
SHORT = Times()
"""For hosts that die: others need not wait long."""

LONG = Times(lease=60.0)
"""For hosts that live: none is found dead because the machine is busy."""

Host = Callable[..., ForkServerProcess]


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The address of an S3, one for the whole run."""
    with moto() as url:
        yield url


@pytest.fixture
def bucket(moto_url: str) -> Bucket:
    """A bucket of its own for each test."""
    return new_bucket(moto_url, f"images-{next(_numbers)}")


@pytest.fixture(scope="session")
def slow_provider() -> Iterator[Provider]:
    """A provider that takes a moment for each image."""
    with provider("--answer-seconds", "0.3") as at:
        yield at


@pytest.fixture
def at(slow_provider: Provider) -> Iterator[Provider]:
    """The provider, without charges."""
    slow_provider.reset()
    yield slow_provider
    slow_provider.faults([])


@pytest.fixture
def host(tmp_path: Path, bucket: Bucket, at: Provider) -> Iterator[Host]:
    """Starts ``impasto batch run`` as a host with this name and its own folder."""
    started: list[ForkServerProcess] = []

    def start(name: str, manifest: Path, *words: str, times: Times = LONG, **variables: str) -> ForkServerProcess:
        command = ["batch", "run", str(manifest), "--out", bucket.out, "--join", "--concurrency", "4", *words]
        environment = {**bucket.environment, **at.environment, "XDG_STATE_HOME": str(tmp_path / name), **variables}
        process = start_host(command, environment, tmp_path / f"{name}.log", times)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGCONT)
            process.kill()
        process.join()
        process.close()
    for log in sorted(tmp_path.glob("*.log")):
        print(log.name, log.read_text(), sep="\n")


def exit_code_of(process: ForkServerProcess, seconds: float = 150.0) -> int:
    """Wait for the end of a host; return its exit code."""
    process.join(seconds)
    assert process.exitcode is not None, "it does not end"
    return process.exitcode


def results(bucket: Bucket) -> dict[str, Mapping[str, object]]:
    """The images that results.jsonl lists, by id, with their content checked."""
    import hashlib

    objects, found = bucket.objects(), {}
    for line in map(json.loads, objects["results.jsonl"].splitlines()):
        for image in line["response"]["body"]["data"]:
            assert hashlib.sha256(objects[image["path"]]).hexdigest() == image["sha256"]
            found[line["custom_id"]] = image
    return found


def errors(bucket: Bucket) -> dict[str, Mapping[str, object]]:
    """The errors that errors.jsonl lists, by id."""
    lines = map(json.loads, bucket.objects()["errors.jsonl"].splitlines())
    return {line["custom_id"]: line["error"] for line in lines}
