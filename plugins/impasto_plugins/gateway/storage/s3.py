"""Pictures that are answered as a URL, kept in S3, and shown by presigned URLs."""

from __future__ import annotations

import attrs
from aiohttp import ClientSession

from impasto import Artifact, ConfigError, ImpastoError, MissingExtra
from impasto_plugins.gateway.config.model import S3
from impasto_plugins.transports.s3 import NotStored, Objects

from .local import NotKept, new_name


@attrs.frozen(eq=False)
class Bucket:
    """``seconds``: how long a picture's URL is good."""

    objects: Objects
    seconds: int

    @classmethod
    async def open(cls, s3: S3, seconds: float, session: ClientSession) -> Bucket:
        """Finds region, endpoint and credentials, as boto3 does. Raises ConfigError or MissingExtra."""
        try:
            objects = await Objects.open(s3.bucket, s3.prefix or "", s3.account(), session)
        except MissingExtra:
            raise
        except ImpastoError as error:
            raise ConfigError(f"files.s3: {error.message}") from None
        return cls(objects, max(int(seconds), 1))

    async def keep(self, artifact: Artifact) -> str:
        """Keeps a picture and gives its name. Raises NotKept."""
        name = new_name(artifact.media_type)
        try:
            await self.objects.put(name, artifact.content, artifact.media_type)
        except NotStored as error:
            raise NotKept(f"files.s3: {error}") from None
        except ImpastoError as error:
            raise NotKept(f"files.s3: {error.message}") from None
        return name

    async def holds(self, name: str) -> bool:
        """Whether there is a picture of a name; what can't be seen is kept anew. Raises NotKept."""
        try:
            return await self.objects.holds(name)
        except ImpastoError as error:
            raise NotKept(f"files.s3: {error.message}") from None

    async def url(self, name: str, base_url: str) -> str:
        """A URL at which anybody may get it, for a while. Raises NotKept."""
        try:
            return await self.objects.presigned("GET", name, self.seconds)
        except ImpastoError as error:
            raise NotKept(f"files.s3: {error.message}") from None
