"""The place of everything that must survive: the data directory, or the bucket if the records are in a shared store."""

from __future__ import annotations

import logging
from pathlib import Path

import attrs

from impasto.ext import StateStore
from impasto_plugins.gateway.config.model import DAY_SECONDS, Config
from impasto_plugins.state.clock import StoreClock

from .bucket import BucketContents
from .contents import ContentStore, FolderContents
from .local import ImageStore, LocalStore
from .pair import BucketPair
from .s3 import S3Store
from .salvage import SalvageStore

OUTCOMES = "outcomes"
"""The folder of the images of stored calls."""

BATCHES = "batches"
_SALVAGE = "unread"

_log = logging.getLogger("impasto.gateway")


@attrs.frozen(kw_only=True, eq=False)
class Places:
    """The stores of a gateway. ``images``: those at URLs; ``folder``: local ones, served even if there is a bucket.

    ``shared``: the stores of images in the bucket that all replicas share, from which expired ones must be deleted.
    """

    images: ImageStore
    folder: LocalStore
    salvage: SalvageStore
    outcomes: ContentStore
    batches: ContentStore
    shared: tuple[S3Store, ...] = ()

    @classmethod
    def of(
        cls, config: Config, state: StateStore, *, data: Path, files: Path, batches: Path, bucket: S3Store | None
    ) -> Places:
        """Return the places of a configuration, with these local folders. Blocks: it reads the clock of ``data``."""
        clock = StoreClock(data)
        clock.load()
        folder, answers = (
            LocalStore(files, config.files.seconds, clock),
            LocalStore(data / _SALVAGE, DAY_SECONDS, clock),
        )
        if bucket is None or not config.has_shared_state:
            return cls(
                images=bucket or folder,
                folder=folder,
                salvage=SalvageStore(answers),
                outcomes=FolderContents(data / OUTCOMES),
                batches=FolderContents(batches),
            )
        pair = BucketPair(bucket.objects, state, needs_conditions=config.batches.enabled)
        salvage = S3Store(bucket.objects.below(f"{_SALVAGE}/"), int(DAY_SECONDS))
        return cls(
            images=bucket,
            folder=folder,
            salvage=SalvageStore(answers, salvage),
            outcomes=BucketContents(bucket.objects.below(f"{OUTCOMES}/"), data / OUTCOMES, pair),
            batches=BucketContents(bucket.objects.below(f"{BATCHES}/"), batches, pair),
            shared=(bucket, salvage),
        )
