"""A cluster of Ray on this machine, whose workers call the emulator and moto's S3."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.campaigns.provider import Provider
from tests.campaigns.ray_kills import start_ray
from tests.moto_s3 import Bucket
from tests.plugins.batch.shared.conftest import at, bucket, moto_url, slow_provider

__all__ = ["at", "bucket", "moto_url", "slow_provider"]


@pytest.fixture(scope="module")
def ray(moto_url: str, slow_provider: Provider) -> Iterator[ModuleType]:
    """Ray with two CPUs."""
    with start_ray({**slow_provider.environment, **Bucket(moto_url, "any").environment}) as ray:
        yield ray
