"""The images of a batch in a bucket, with the ledger of all replicas that have run it: see ``batch.shared``."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from impasto_plugins.batch.filenames import Template
from impasto_plugins.batch.ledger.log import untrusted_ledger
from impasto_plugins.batch.ledger.workspace import Workspace
from impasto_plugins.batch.manifest.planner import RetrySelection
from impasto_plugins.batch.output.s3 import BucketTarget, ImageBucket
from impasto_plugins.batch.runner.scheduler import Scheduler
from impasto_plugins.batch.shared.execution import shared_outcomes
from impasto_plugins.batch.shared.recorder import SharedRecorder
from impasto_plugins.batch.shared.session import SharedBatch
from impasto_plugins.batch.shared.share import JoinOptions
from impasto_plugins.batch.tasks import ImageTask, Outcome
from impasto_plugins.gateway.batches.output import to_openai_error
from impasto_plugins.gateway.storage.bucket import BucketContents
from impasto_plugins.gateway.storage.contents import StoreError

TasksToDo = Callable[[], AsyncIterator[ImageTask | Outcome]]
"""Makes the tasks that are to be done now."""

_log = logging.getLogger("impasto.gateway")


@asynccontextmanager
async def open_shared_batch(
    contents: BucketContents, place: str, folder: Workspace, *, is_begun: bool
) -> AsyncIterator[SharedBatch]:
    """Open a batch in the bucket, below ``place``. Raises UntrustedLedger if it has begun and nothing of it is there.

    Raises ConfigError and OSError too.
    """
    objects = contents.objects.below(f"{place}/")
    bucket = ImageBucket(BucketTarget(objects.bucket.bucket, objects.bucket.prefix.rstrip("/")), objects)
    with bucket.configuration_errors():
        if not is_begun:
            await bucket.claim_shared(_mark(place))
        elif not await bucket.is_claimed():
            raise untrusted_ledger(folder.layout.ledger, "is not in the bucket any more")
    async with SharedBatch.on(folder, bucket, JoinOptions(target=bucket.target, has_state=True)) as shared:
        yield shared


def _mark(place: str) -> dict[str, object]:
    return {"batch": place}


@attrs.define(eq=False, kw_only=True)
class BucketRecorder(SharedRecorder):
    """Records images for all replicas, and uploads what came in place of images, which any of them may deliver."""

    contents: BucketContents
    place: str

    @classmethod
    def of(cls, shared: SharedBatch, contents: BucketContents, place: str) -> BucketRecorder:
        """Return the recorder of a batch below ``place``."""
        return cls(
            folder=shared.folder,
            template=Template(),
            uploader=shared.bucket,
            shared=shared,
            is_selected=RetrySelection().selects().__getitem__,
            error_details=to_openai_error,
            contents=contents,
            place=place,
        )

    async def begin(self, stack: AsyncExitStack, *, images: int, keys: frozenset[str]) -> None:
        """Take this replica's place in the batch; it leaves when ``stack`` closes. Raises ConfigError, OSError."""
        folder, shared = self.folder, self.shared
        target = shared.bucket.target
        await folder.submit(folder.begin(images, manifest="", target=target, host=shared.host))
        await shared.begin(stack, mark=_mark(self.place), images=images, keys=keys)

    def outcomes(self, run: Scheduler, jobs: Iterable[ImageTask], tasks: TasksToDo) -> AsyncGenerator[Outcome]:
        """Yield the outcomes of this replica's images, until no replica has work left or this one is stopped."""
        self.shared.tried.clear()
        return shared_outcomes(self.shared, run, jobs, lambda _: tasks())

    async def store_result(self, unit: ImageTask, outcome: Outcome) -> Outcome:
        """Store an image or an error for all replicas, and what came with it. Raises OSError."""
        stored = await super().store_result(unit, outcome)
        for error in outcome.errors if outcome.error is None else (outcome.error,):
            for path in self._salvaged.get(error, ()):
                await self._upload(path)
        return stored

    async def _upload(self, path: str) -> None:
        try:
            await self.contents.publish(f"{self.place}/{path}", keep=True)
        except StoreError as error:  # it stays in this replica's folder
            _log.error("what came in place of an image could not be uploaded: %s", error)
