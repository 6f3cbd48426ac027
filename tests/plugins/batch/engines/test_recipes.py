"""The pages about Celery, Dask and Kubernetes do what they show."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import cast

import celery.signals
import kubernetes_validate
import pytest
import yaml
from celery.contrib.testing.worker import start_worker

from tests.campaigns.provider import Provider
from tests.docs.pages import blocks
from tests.moto_s3 import Bucket
from tests.plugins.batch.conftest import Write, many
from tests.plugins.batch.shared.conftest import results
from tests.plugins.batch.shared.test_deaths import wait_for

pytestmark = pytest.mark.waits


@pytest.fixture(autouse=True)
def environment(bucket: Bucket, at: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**bucket.environment, **at.environment, "XDG_STATE_HOME": str(tmp_path / "state")}.items():
        monkeypatch.setenv(name, value)


def test_a_celery_task_that_is_delivered_again_pays_nothing(
    at: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, caller = blocks("docs/celery.md", "python")
    (tmp_path / "tasks.py").write_text(tasks.text.replace("amqp://localhost", "memory://"))
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {}
    files: list[str] = []

    def on_success(result: str, **_: object) -> None:
        files.append(result)

    def leave_logging_alone(**_: object) -> None:
        """Celery takes over the root logger of a process whose logging nobody sets up."""

    celery.signals.setup_logging.connect(leave_logging_alone)
    celery.signals.task_success.connect(on_success)
    try:
        exec(caller.text, names)
        paint = sys.modules.pop("tasks").paint
        paint.app.conf.broker_transport_options = {"polling_interval": 0.05}
        worker = start_worker(paint.app, perform_ping_check=False, pool="solo")
        with cast("AbstractContextManager[object]", worker):
            wait_for(lambda: files)
            paint.delay("17", "a kite")
            wait_for(lambda: len(files) == 2)
    finally:
        celery.signals.task_success.disconnect(on_success)
        celery.signals.setup_logging.disconnect(leave_logging_alone)
    assert files == ["17.png", "17.png"]
    assert Path("17.png").read_bytes().startswith(b"\x89PNG")
    assert at.charges().total() == 1


def test_each_task_of_dask_is_a_host(bucket: Bucket, at: Provider) -> None:
    (block,) = blocks("docs/dask.md", "python")
    output = io.StringIO()
    with redirect_stdout(output):  # Dask runs them in threads
        exec(block.text.replace("s3://bucket/kites", bucket.out), {})
    first, second = output.getvalue().splitlines()
    assert first.count("kite-") == second.count("kite-") == 8
    assert at.charges().total() == len(results(bucket)) == 8


def test_the_job_of_kubernetes_is_valid_and_its_command_runs(
    bucket: Bucket, at: Provider, manifest: Write, tmp_path: Path
) -> None:
    (block,) = blocks("docs/kubernetes.md", "yaml")
    job = yaml.safe_load(block.text)
    kubernetes_validate.validate(job, "1.34", strict=True)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (line,) = container["args"]
    path = manifest(*many(4), name="shots.jsonl")
    line = line.replace("/manifest/shots.jsonl", str(path)).replace("s3://bucket/shots", bucket.out)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "JOB_COMPLETION_INDEX": "2",
    }
    for folder in "ab":  # the pod of an index, and the one after it
        own = {**os.environ, **environment, "XDG_STATE_HOME": str(tmp_path / folder)}
        subprocess.run([*container["command"], line], env=own, check=True, timeout=120)
    assert list(bucket.objects(".impasto/shares/")) == ["3-of-3/000000", "3-of-3/000001"]
    assert at.charges().total() == len(results(bucket)) == 4
