"""Kills of Ray's workers in the middle of a batch: ``python -m tests.campaigns.ray_kills --rows 240 --kills 10``."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import ModuleType
from unittest.mock import patch

import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own

import impasto
from tests.campaigns.provider import provider
from tests.moto_s3 import Bucket, moto, new_bucket

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_AUTH_MODE": "disabled",  # otherwise it writes a token into the home folder
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise it warns of a change to come
}


@contextmanager
def start_ray(environment: Mapping[str, str]) -> Iterator[ModuleType]:
    """Start Ray with two CPUs. It takes some seconds, and warns of its own old settings."""
    with patch.dict(os.environ, {**_QUIET, **environment}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        import ray.data

        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 << 20,
            _node_ip_address="127.0.0.1",
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            yield ray
        finally:
            ray.shutdown()


def kill_workers(bucket: Bucket, name: str, intents: Sequence[int], seconds: float = 120.0) -> None:
    """Kill a process of Ray with this in its name each time that there are so many intents."""
    end = time.monotonic() + seconds
    for number in intents:
        while len(bucket.intents()) < number or not (found := _processes(name)):
            assert time.monotonic() < end, "it does not come"
            time.sleep(0.05)
        found[number % len(found)].kill()


def _processes(name: str) -> list[psutil.Process]:
    every = psutil.Process().children(recursive=True)
    return [each for each in every if each.is_running() and name in " ".join(each.cmdline()[:1])]


def main() -> None:
    """Run a batch whose workers are killed, and compare its rows with the charges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    with provider("--answer-seconds", "0.3") as at, moto() as url, tempfile.TemporaryDirectory() as folder:
        bucket = new_bucket(url, "images")
        with start_ray({**at.environment, **bucket.environment}) as ray:
            rows = [{"id": f"image-{seed}", "prompt": "a kite", "seed": seed} for seed in range(1, options.rows + 1)]
            intents = [options.rows * number // (options.kills + 1) for number in range(1, options.kills + 1)]
            killing = Thread(target=kill_workers, args=(bucket, "MapWorker", intents, 3600.0))
            killing.start()
            images = impasto.ray.generate(
                ray.data.from_items(rows),
                out=bucket.out,
                model="stability/stable-image-core",
                workers=2,
                concurrency=4,
                staging=Path(folder),
            ).take_all()
            killing.join()
        charges = at.charges()
    ids, states = Counter(row["id"] for row in images), Counter(row["state"] for row in images)
    done = {row["seed"] for row in images if row["state"] == "done"}
    twice = sum(count - 1 for count in charges.values())
    print(f"{options.kills} kills, {len(images)} rows: {dict(states)}; {charges.total()} charges, {twice} paid twice")
    assert ids == Counter(row["id"] for row in rows), "each row once"
    assert not twice
    assert done <= charges.keys()
    assert states["ambiguous"] <= 4 * options.kills
    assert states.keys() <= {"done", "ambiguous"}


if __name__ == "__main__":
    main()
