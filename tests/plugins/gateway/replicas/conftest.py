"""Two replicas, started once for each module: processes, PostgreSQL, moto's S3 and the emulator."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from impasto_plugins.emulator import SHORT, Emulator, serve as emulate
from tests.moto_s3 import Bucket, moto, new_bucket
from tests.plugins.gateway.conftest import config, key_entry
from tests.postgres import PostgresServer

from .processes import Balancer, Replica, free_port

OTHER_KEY = "sk-other-" + "k" * 24


def stored_in(bucket: Bucket, url: str | None = None) -> str:
    """The section ``files`` of a configuration."""
    keys = "aws_region_name: us-east-1, aws_access_key_id: AKIATEST, aws_secret_access_key: secret-of-the-test"
    return f"files:\n  s3: {{bucket: {bucket.name}, prefix: gateway, endpoint_url: '{url or bucket.url}', {keys}}}\n"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """The bucket of a module."""
    with moto() as url:
        yield new_bucket(url, f"shared-{secrets.token_hex(6)}")  # moto's buckets outlive its servers


@pytest.fixture
def own_bucket(bucket: Bucket) -> Bucket:
    """A bucket that nobody has used, for a test with a database of its own."""
    return new_bucket(bucket.url, f"own-{secrets.token_hex(6)}")


@pytest.fixture(scope="module")
def provider_of_all() -> Iterator[Emulator]:
    """The provider of a module."""
    with emulate(attrs.evolve(SHORT)) as emulator:
        yield emulator


@pytest.fixture
def provider(provider_of_all: Emulator) -> Emulator:
    """The same, without charges or faults."""
    provider_of_all.reset()
    provider_of_all.clear_faults()
    return provider_of_all


@pytest.fixture(scope="module")
def replicas_of_all(
    bucket: Bucket, provider_of_all: Emulator, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sequence[Replica]]:
    """Two replicas."""
    folder = tmp_path_factory.mktemp("replicas")
    state = postgres_server.dsn(schema=f"replicas_{secrets.token_hex(6)}")
    keys = "keys:\n" + key_entry("other", OTHER_KEY)
    text = config(
        provider_of_all.url,
        general=f"  state: {state}\n",
        more=f"{stored_in(bucket)}{keys}batches: {{concurrency: 4}}\n",
    )
    (folder / "config.yaml").write_text(text)
    found = [Replica(name, folder / "config.yaml", folder, free_port()) for name in ("one", "two")]
    for each in found:
        each.start()
    yield found
    for each in found:
        each.kill()
    for log in sorted(folder.glob("*.log")):
        print(log.name, log.read_text(), sep="\n")


@pytest.fixture
def replicas(replicas_of_all: Sequence[Replica]) -> Sequence[Replica]:
    """The replicas, all of them running."""
    for each in replicas_of_all:
        if each.process is None:
            each.start()
    for each in replicas_of_all:
        each.wait()
    return replicas_of_all


@pytest.fixture
def balancer(replicas: Sequence[Replica]) -> Iterator[Balancer]:
    """A balancer before the replicas."""
    with Balancer([each.port for each in replicas]) as balancer:
        yield balancer


@pytest.fixture
def data_folders(replicas: Sequence[Replica]) -> list[Path]:
    """The data directories of the replicas."""
    return [each.folder / each.name / "impasto" for each in replicas]
