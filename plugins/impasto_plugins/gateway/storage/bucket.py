"""Contents in a bucket that all replicas share. What can't be uploaded waits in the folder of this machine."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection, Mapping, Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import IO

import attrs

from impasto import File
from impasto_plugins.concurrency import open_in_thread
from impasto_plugins.stored_artifacts import is_part
from impasto_plugins.transports.s3 import TRIES, Objects

from .contents import FolderContents, StoreError, store_errors
from .pair import BucketPair

CHECK_SECONDS = 2.0
"""Seconds for which the outcome of an upload says whether the bucket can be written to."""

_CHECK_TIMEOUT = 10.0
_CHECK = ".writable"
"""The object that a check writes."""

_TYPE = "application/octet-stream"

_log = logging.getLogger("impasto.gateway")


@attrs.define(eq=False)
class BucketContents:
    """Contents in a bucket, and those in ``folder`` that are not uploaded yet.

    ``pair``: the bucket is used once it is sure that it belongs to the store of state.
    """

    objects: Objects
    folder: Path
    pair: BucketPair
    _checked_at: float = -math.inf
    _failure: StoreError | None = None
    """The failure of the last upload, if it failed."""
    _checking: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    waiting: set[str] = attrs.field(factory=set[str], init=False)
    """The names of contents that only this machine has, until they can be uploaded."""

    async def check(self) -> None:
        """Raise StoreError if the bucket can't be written to."""
        async with self._checking:
            if time.monotonic() - self._checked_at > CHECK_SECONDS:
                with suppress(StoreError):
                    await self._put(_CHECK, File.of(b""), tries=1)
            if self._failure is not None:
                raise StoreError(str(self._failure), is_permanent=self._failure.is_permanent)

    async def save(self, contents: Mapping[str, File]) -> AbstractSet[str]:
        """Store contents side by side; return the names of those that are stored, here if the bucket is away."""
        uploads = (self._put(name, content) for name, content in contents.items())
        results = dict(zip(contents, await asyncio.gather(*uploads, return_exceptions=True), strict=True))
        left = dict[str, File]()
        for name, error in results.items():
            if isinstance(error, StoreError):
                _log.error("a paid image stays on this machine until the bucket can be written to: %s", error)
                left[name] = contents[name]
            elif error is not None:
                raise error
        stored = results.keys() - left.keys()
        if left:
            here = await self._local.save(left)
            self.waiting |= here
            stored |= here
        return stored

    async def publish(self, name: str, *, keep: bool = False) -> None:
        """Upload a file of the local folder, and delete it there, unless it is to ``keep``. Raises StoreError."""
        path = self.folder / name
        try:
            content = await asyncio.to_thread(File.of, path)
        except ValueError as error:  # it was deleted, or can't be read
            raise StoreError(f"{name}: {error}") from None
        await self._put(name, content)
        if not keep:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def presign(self, name: str, seconds: float) -> str:
        """Return a URL with which anybody may get a content for so many seconds. Raises StoreError."""
        with store_errors():
            return await self.objects.presign(name, max(int(seconds), 1))

    async def publish_all(self) -> None:
        """Upload what could not be uploaded before. Raises StoreError."""
        self.waiting |= {name for name in await self._local.ages() if not is_part(name)}
        for name in tuple(self.waiting):
            if await self._local.fetch(name):  # otherwise another worker of this machine was faster
                await self.publish(name)
            self.waiting.discard(name)

    async def copy(self, source: str, target: str) -> bool:
        """Copy an object; return False if it does not exist. Raises StoreError."""
        await self.pair.verify()
        with store_errors():
            return await self.objects.copy(source, target)

    async def open(self, name: str) -> File | None:
        """Return a content, in a file that nobody else has; None if it does not exist. Raises StoreError."""
        if (file := await self._local.open(name)) is not None:
            return file
        await self.pair.verify()
        async with open_in_thread(TemporaryFile) as target:
            with store_errors():
                if await self.objects.fetch(name, target) is None:
                    return None
            return await asyncio.to_thread(_file_of, Path(name).name, target)

    async def fetch(self, name: str) -> bool:
        """Download a content to the local folder, unless it is there; return False if it does not exist.

        Raises StoreError.
        """
        if await self._local.fetch(name):
            return True
        await self.pair.verify()
        path = self.folder / name
        await asyncio.to_thread(path.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        async with open_in_thread(lambda: NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False)) as target:
            part = Path(target.name)
            try:
                with store_errors():
                    if await self.objects.fetch(name, target) is None:
                        return False
                await asyncio.to_thread(part.rename, path)
            finally:
                await asyncio.to_thread(part.unlink, missing_ok=True)
        return True

    async def delete(self, names: Collection[str]) -> None:
        """Delete contents. Raises StoreError."""
        if names:
            await self._local.delete(names)
            await self.pair.verify()
            with store_errors():
                await self.objects.delete(sorted(names))

    async def delete_folder(self, name: str) -> None:
        """Delete all contents below a folder. Raises StoreError."""
        await self._local.delete_folder(name)
        await self.pair.verify()
        with store_errors():
            listing = await self.objects.list_objects(f"{name}/")
            await self.objects.delete([each.name for each in listing.entries])

    async def ages(self, folder: str = "", skip: Collection[str] = ()) -> Mapping[str, float]:
        """Return the names in a folder with their ages in seconds by the clock of S3. Raises StoreError."""
        prefix = f"{folder}/" if folder else ""
        await self.pair.verify()
        with store_errors():
            listing = await self.objects.list_objects(prefix, one_level=True)
            ages = {each.name.removeprefix(prefix): listing.now - each.modified for each in listing.entries}
            for below in listing.folders:
                if (name := below.removeprefix(prefix).rstrip("/")) not in skip:
                    within = await self.objects.list_objects(below)
                    ages[name] = min((within.now - each.modified for each in within.entries), default=0.0)
        return {name: age for name, age in ages.items() if name != _CHECK and name not in skip}

    @property
    def _local(self) -> FolderContents:
        return FolderContents(self.folder)

    async def _put(self, name: str, content: File, *, tries: int = TRIES) -> None:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT if name == _CHECK else None):
                await self.pair.verify()
                with store_errors():
                    await self.objects.put(name, content, _TYPE, tries=tries)
        except (TimeoutError, StoreError) as error:
            self._failure = error if isinstance(error, StoreError) else StoreError("files.s3: no answer")
            self._checked_at = time.monotonic()
            raise self._failure from None
        self._failure, self._checked_at = None, time.monotonic()


def _file_of(label: str, source: IO[bytes]) -> File:
    source.seek(0)
    return File.of((label, source))
