"""Images behind presigned URLs, stored in S3."""

from __future__ import annotations

import attrs

from impasto import Artifact, ConfigError, ImpastoError, MissingExtra
from impasto_plugins.gateway.config.model import S3Config
from impasto_plugins.transports.s3 import NotStored, Objects, S3Clients

from .local import StoreError, new_file_name


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

    async def save(self, artifact: Artifact) -> str:
        """Store an image and return its name. Raises StoreError."""
        name = new_file_name(artifact.media_type)
        try:
            await self.objects.put(name, artifact.content, artifact.media_type)
        except NotStored as error:
            raise StoreError(f"files.s3: {error}") from None
        except ImpastoError as error:
            raise StoreError(f"files.s3: {error.message}") from None
        return name

    async def exists(self, name: str) -> bool:
        """Return True if there is an image of this name; False if that can't be seen. Raises StoreError."""
        try:
            return await self.objects.exists(name)
        except ImpastoError as error:
            raise StoreError(f"files.s3: {error.message}") from None

    async def url_for(self, name: str, base_url: str) -> str:
        """Return a temporary URL with which anybody may get the image. Raises StoreError."""
        try:
            return await self.objects.presign(name, self.seconds)
        except ImpastoError as error:
            raise StoreError(f"files.s3: {error.message}") from None
