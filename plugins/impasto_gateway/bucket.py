"""Pictures that are answered as a URL, kept in S3. They go up and are shown by presigned URLs: no key leaves."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import aiohttp
import attrs
from yarl import URL

from impasto import Artifact, ConfigError, ImpastoError, MissingExtra
from impasto.options import Options

from .config import S3
from .store import NotKept, new_name

if TYPE_CHECKING:
    from impasto_transports.aws import Identity

TRIES = 3
"""How often an upload is tried: to put the same again changes nothing."""

UPLOAD_SECONDS = 60
"""How long one try may take."""

_UPLOAD_EXPIRES = 600
_PAUSE = 0.2
_PIECE = 1 << 18
_OWN_HOST = re.compile(r"(https://)(s3\.[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?)")
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,60})</Code>")


@attrs.frozen(eq=False)
class Bucket:
    """``address``: the URL before a picture's name. ``seconds``: how long a picture's URL is good."""

    address: str
    seconds: int
    identity: Identity
    session: aiohttp.ClientSession

    @classmethod
    async def open(cls, s3: S3, seconds: float, session: aiohttp.ClientSession) -> Bucket:
        """Finds region, endpoint and credentials, as boto3 does. Raises ConfigError or MissingExtra."""
        identity = await _identity(s3)
        return cls(_address(s3, identity.endpoint), max(int(seconds), 1), identity, session)

    async def keep(self, artifact: Artifact) -> str:
        """Keeps a picture and gives its name. Raises NotKept."""
        name = new_name(artifact.media_type)
        put = await self._presigned("PUT", name, _UPLOAD_EXPIRES)
        for attempt in range(1, TRIES + 1):
            failure, again = await self._put(put, artifact)
            if not failure:
                break
            if not again or attempt == TRIES:
                raise NotKept(f"files.s3: {failure}")
            await asyncio.sleep(_PAUSE * 2**attempt)
        return name

    async def holds(self, name: str) -> bool:
        """Whether there is a picture of a name. Raises NotKept."""
        url = URL(await self._presigned("HEAD", name, _UPLOAD_EXPIRES), encoded=True)
        try:
            async with self.session.head(url, timeout=aiohttp.ClientTimeout(UPLOAD_SECONDS)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False  # what can't be seen is kept anew

    async def url(self, name: str, base_url: str) -> str:
        """A URL at which anybody may get it, for a while. Raises NotKept."""
        return await self._presigned("GET", name, self.seconds)

    async def _presigned(self, method: str, name: str, seconds: int) -> str:
        try:
            keys = await self.identity.keys()
        except ImpastoError as error:
            raise NotKept(f"files.s3: {error.message}") from None
        return self.identity.presigned(method, self.address + name, keys, seconds)

    async def _put(self, url: str, artifact: Artifact) -> tuple[str, bool]:
        """One upload: what went wrong, and whether another may do better."""
        size = artifact.content.size
        headers = {"content-type": artifact.media_type, "content-length": str(size)}
        try:
            async with self.session.put(
                URL(url, encoded=True),
                data=_pieces(artifact),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(UPLOAD_SECONDS),
            ) as answer:
                if answer.status == 200:
                    return "", False
                code = _CODE.search(await answer.content.read(4096))
                said = f"HTTP {answer.status} {code[1].decode() if code is not None else ''}".strip()
                return said, answer.status >= 500
        except (aiohttp.ClientError, OSError) as error:
            return type(error).__name__, True


async def _pieces(artifact: Artifact) -> AsyncIterator[bytes | memoryview]:
    if artifact.file is None:
        view = memoryview(artifact.data)
        for at in range(0, len(view), _PIECE):
            yield view[at : at + _PIECE]
        return
    with await asyncio.to_thread(artifact.file.open) as source:
        while piece := await asyncio.to_thread(source.read, _PIECE):
            yield piece


def _aws() -> ModuleType:
    try:
        from impasto_transports import aws
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("aiobotocore", "botocore"):
            raise
        raise MissingExtra("files.s3 needs aiobotocore: pip install 'impasto[s3]'") from None
    return aws


async def _identity(s3: S3) -> Identity:
    aws = await asyncio.to_thread(_aws)  # it takes long to import
    region = s3.aws_region_name or os.environ.get("AWS_REGION_NAME") or os.environ.get("AWS_REGION")
    settings = {name: value for name, value in {**s3.account(), "region": region}.items() if value}
    try:
        identity: Identity = (
            aws.given(settings) or await aws.Once(partial(aws.found, settings, Options(), service="s3"))()
        )
        await identity.keys()
    except ImpastoError as error:
        raise ConfigError(f"files.s3: {error.message}") from None
    return identity


def _address(s3: S3, endpoint: str) -> str:
    """Amazon's own buckets have hosts of their own, but for those whose names no certificate covers."""
    path = f"{s3.prefix.strip('/')}/" if s3.prefix else ""
    own = _OWN_HOST.fullmatch(endpoint)
    if own is None or "." in s3.bucket:
        return f"{endpoint}/{s3.bucket}/{path}"
    return f"{own[1]}{s3.bucket}.{own[2]}/{path}"
