"""A cluster of Ray on this machine, one for the whole run, whose workers call the emulator and moto's S3."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from unittest.mock import patch

import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from tests.campaigns.provider import Provider
from tests.moto_s3 import Bucket
from tests.plugins.batch.shared.conftest import at, bucket, moto_url, slow_provider

__all__ = ["at", "bucket", "moto_url", "slow_provider"]

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_AUTH_MODE": "disabled",  # otherwise it writes a token into the home folder
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise it warns of a change to come
}


@pytest.fixture(scope="session")
def ray(moto_url: str, slow_provider: Provider) -> Iterator[ModuleType]:
    """Ray with two CPUs, whose import and start take some seconds and warn of its own old settings."""
    environment = {**QUIET, **slow_provider.environment, **Bucket(moto_url, "any").environment}
    with patch.dict(os.environ, environment), warnings.catch_warnings():
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


def worker_processes() -> list[psutil.Process]:
    """The processes of the workers that are running."""
    every = psutil.Process().children(recursive=True)
    return [each for each in every if each.is_running() and "MapWorker" in " ".join(each.cmdline()[:1])]
