"""The status of a batch on several hosts, from any machine: the sum over the logs of all hosts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

from impasto import ConfigError
from impasto_plugins.batch.ledger.filesystem import Disk
from impasto_plugins.batch.ledger.workspace import Workspace
from impasto_plugins.batch.output.s3 import BucketTarget
from impasto_plugins.batch.output.status import BatchStatus, open_rows, status_of

from .session import SharedBatch
from .share import JoinOptions


def read_shared_status(target: BucketTarget) -> BatchStatus:
    """Return the status of the batch in a bucket. It reads the logs, and no object of an image. Raises ConfigError."""
    with TemporaryDirectory(prefix="impasto-") as folder:
        return asyncio.run(_read(Path(folder), target))


async def _read(place: Path, target: BucketTarget) -> BatchStatus:
    async with (
        await Workspace.open(place, Disk()) as folder,
        SharedBatch.open(folder, JoinOptions(target=target)) as shared,
    ):
        hosts = shared.hosts
        if not hosts.records:
            raise ConfigError(f"{target} has no batch that hosts share with --join; check the prefix and --s3-endpoint")
        live = hosts.live()
        total = max(each.images for each in hosts.records.values()) + folder.images.extra
        left_open = () if live else await asyncio.to_thread(open_rows, folder.layout, folder.images)
        status = status_of(folder.images, total, {}, running=bool(live), left_open=left_open)
        dead = [name for name, record in hosts.records.items() if not (record.has_ended or hosts.is_live(name))]
        on_dead = sum(len(shared.merge.left_open.get(name, ())) for name in dead)
        return attrs.evolve(
            status,
            hosts=len(live),
            lease_seconds=max((each.seconds for each in live), default=0.0),
            dead_hosts=len(dead),
            on_dead_hosts=on_dead,
        )
