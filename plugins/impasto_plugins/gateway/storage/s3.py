"""Images behind presigned URLs, stored in S3."""

from __future__ import annotations

import asyncio
import os
from tempfile import TemporaryFile
from typing import IO, BinaryIO

import attrs

from impasto import Artifact, ConfigError, File, ImpastoError, MissingExtra
from impasto_plugins.concurrency import open_in_thread
from impasto_plugins.gateway.config.model import S3Config
from impasto_plugins.transports.s3 import NotStored, Objects, S3Clients

from .contents import store_errors
from .local import FILE_NAME, StoredFile, media_type_of_name, new_file_name

_CHECK = ".readable"
"""An object that does not exist."""

_CHECK_TIMEOUT = 10.0
_SIGNING_SECONDS = 600.0
"""Seconds after its upload until an image's URL is signed, at most."""


@attrs.frozen(eq=False)
class S3Store:
    """A store in a bucket. ``seconds``: how long an image's URL is valid."""

    objects: Objects
    seconds: int

    @classmethod
    async def open(cls, s3: S3Config, seconds: float, clients: S3Clients) -> S3Store:
        """Find region, endpoint and credentials as boto3 does. Raises ConfigError or MissingExtra."""
        try:
            objects = await Objects.open(s3.bucket, s3.prefix or "", s3.account(), clients)
        except MissingExtra:
            raise
        except ImpastoError as error:
            raise ConfigError(f"files.s3: {error.message}") from None
        return cls(objects, max(int(seconds), 1))

    async def check(self) -> None:
        """Raise StoreError if the bucket does not exist, or does not answer, or the credentials are wrong."""
        with store_errors():
            try:
                async with asyncio.timeout(_CHECK_TIMEOUT):
                    await self.objects.get(_CHECK, tries=1)
            except TimeoutError:
                raise NotStored(0, "no answer") from None
            except NotStored as error:
                if error.code != "AccessDenied":  # it is also the answer to those who may not list the bucket
                    raise

    async def save(self, artifact: Artifact) -> str:
        """Store an image and return its name. Raises StoreError."""
        name = new_file_name(artifact.media_type)
        await self.put(name, artifact.content)
        return name

    async def put(self, name: str, content: File) -> None:
        """Store an image under a name that a store has made. Raises StoreError."""
        with store_errors():
            await self.objects.put(name, content, media_type_of_name(name))

    async def find(self, name: str) -> StoredFile | None:
        """Return the image of a name, or None if there is none or it has expired. Raises StoreError."""
        if FILE_NAME.fullmatch(name) is None:
            return None
        async with open_in_thread(TemporaryFile) as target:
            with store_errors():
                age = await self.objects.fetch(name, target)
            if age is None or age >= self.seconds:
                return None
            source, size = await asyncio.to_thread(_reopen, target)
        return StoredFile(source, media_type_of_name(name), size, self.seconds - age)

    async def remove_expired(self) -> None:
        """Delete expired images; nothing else in the bucket is touched. Raises StoreError."""
        with store_errors():
            listing = await self.objects.list_objects("", one_level=True)
            oldest = listing.now - self.seconds - _SIGNING_SECONDS
            expired = [each.name for each in listing.entries if each.modified < oldest]
            await self.objects.delete([name for name in expired if FILE_NAME.fullmatch(name)])

    async def exists(self, name: str) -> bool:
        """Return True if there is an image of this name; False if that can't be seen. Raises StoreError."""
        with store_errors():
            return await self.objects.exists(name)

    async def url_for(self, name: str, base_url: str) -> str:
        """Return a temporary URL with which anybody may get the image. Raises StoreError."""
        with store_errors():
            return await self.objects.presign(name, self.seconds)


def _reopen(file: IO[bytes]) -> tuple[BinaryIO, int]:
    """Return a reader of a file that has no name, and its size; the caller closes it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return open(os.dup(file.fileno()), "rb", buffering=0), size
