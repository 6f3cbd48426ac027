"""Objects of an S3 bucket below a prefix. Every request uses a presigned URL: no key leaves this process."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import aiohttp
import attrs
from yarl import URL

from impasto import ConfigError, File, ImpastoError, MissingExtra
from impasto.ext import Options
from impasto_plugins.concurrency import open_in_thread

from .tls import tls_of

if TYPE_CHECKING:
    from .aws import Identity

TRIES = 3
"""Tries of a request by default. Uploading an object again changes nothing."""

REQUEST_SECONDS = 60
"""Seconds that one try may take."""

_SIGNED_SECONDS = 600
_PAUSE = 0.2
_MAX_PAUSE = 20.0
_PIECE = 1 << 18
_OWN_HOST = re.compile(r"(https://)(s3\.[a-z0-9.-]+\.amazonaws\.com(?:\.cn)?)")
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,60})</Code>")
_EXISTS = 412
_ERROR_BYTES = 4096
_ERROR_STARTS = (b"<?xml", b"<Error")

_TRANSIENT = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
"""Codes of transient failures, whatever their status: S3 sends them with 400, 409, 429, 500 or 503."""

T = TypeVar("T")


class NotStored(Exception):
    """S3's refusal. ``code`` is S3's own, empty if there is none; ``status`` is 0 without an answer."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"HTTP {status} {code}".strip() if status else code)
        self.status, self.code = status, code

    @property
    def is_transient(self) -> bool:
        """True if another try may succeed."""
        return self.status in (0, 200, 408, 429) or self.status >= 500 or self.code in _TRANSIENT


@attrs.frozen(eq=False)
class Objects:
    """The objects below a prefix. ``address``: the URL before an object's name."""

    address: str
    identity: Identity
    session: aiohttp.ClientSession
    tls: ssl.SSLContext | bool = True

    @classmethod
    async def open(
        cls, bucket: str, prefix: str, account: Mapping[str, str | None], session: aiohttp.ClientSession
    ) -> Objects:
        """Find region, endpoint and credentials as boto3 does. Raises ConfigError or MissingExtra.

        ``account`` may have ``region``, ``endpoint``, ``access_key_id``, ``secret_access_key``, ``session_token`` and
        ``profile``.
        """
        identity = await _identity(account)
        tls = await asyncio.to_thread(lambda: tls_of(_aws().ca_bundle(account.get("profile"))))
        return cls(_address(bucket, prefix, identity.endpoint), identity, session, tls)

    async def presign(self, method: str, name: str, seconds: int) -> str:
        """Return a URL that permits this one operation to anybody for so many seconds.

        Raises ConfigError or NotSent.
        """
        keys = await self.identity.keys()
        return self.identity.presign(method, self.address + _quoted(name), keys, seconds)

    async def put(
        self, name: str, content: File, media_type: str, *, tries: int = TRIES, only_new: bool = False
    ) -> bool:
        """Upload an object. With ``only_new``, return False if one of this name exists, and leave it.

        Raises NotStored, ConfigError, NotSent.
        """
        return await _with_retries(tries, partial(self._put, name, content, media_type, only_new=only_new))

    async def get(self, name: str, *, tries: int = TRIES) -> bytes | None:
        """Return an object's content, None if it does not exist. Raises NotStored, ConfigError, NotSent."""
        return await _with_retries(tries, partial(self._get, name))

    async def exists(self, name: str) -> bool:
        """Return True if an object exists; False also if S3 does not answer. Raises ConfigError, NotSent."""
        url = URL(await self.presign("HEAD", name, _SIGNED_SECONDS), encoded=True)
        try:
            async with self.session.head(url, ssl=self.tls, timeout=aiohttp.ClientTimeout(REQUEST_SECONDS)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def _get(self, name: str) -> bytes | None:
        url = URL(await self.presign("GET", name, _SIGNED_SECONDS), encoded=True)
        try:
            async with self.session.get(url, ssl=self.tls, timeout=aiohttp.ClientTimeout(REQUEST_SECONDS)) as answer:
                if answer.status == 200:
                    data = await answer.read()
                    # S3 may answer 200 and then an error in XML, when it fails after the headers were sent.
                    if not data.startswith(_ERROR_STARTS) or _CODE.search(data) is None:
                        return data
                    raise _failure(answer.status, data)
                failure = _failure(answer.status, await answer.content.read(_ERROR_BYTES))
                if answer.status == 404 and failure.code != "NoSuchBucket":
                    return None
        except (aiohttp.ClientError, OSError) as error:
            raise NotStored(0, type(error).__name__) from None
        raise failure

    async def _put(self, name: str, content: File, media_type: str, *, only_new: bool) -> bool:
        headers = {"content-type": media_type, "content-length": str(content.size)}
        headers |= {"if-none-match": "*"} if only_new else {}
        try:
            async with self.session.put(
                URL(await self.presign("PUT", name, _SIGNED_SECONDS), encoded=True),
                data=_pieces(content),
                headers=headers,
                allow_redirects=False,
                ssl=self.tls,
                timeout=aiohttp.ClientTimeout(REQUEST_SECONDS),
            ) as answer:
                if only_new and answer.status == _EXISTS:
                    return False  # 412 Precondition Failed: the name exists
                body = await answer.content.read(_ERROR_BYTES)
                if answer.status == 200 and not body.lstrip().startswith(b"<"):
                    return True
                failure = _failure(answer.status, body)
        except (aiohttp.ClientError, OSError) as error:
            raise NotStored(0, type(error).__name__) from None
        raise failure


async def _with_retries(tries: int, request: Callable[[], Awaitable[T]]) -> T:
    """Run a request, again while its failure is transient, at most ``tries`` times. Raises NotStored."""
    pause = _PAUSE
    while True:
        tries -= 1
        try:
            return await request()
        except NotStored as failure:
            if not failure.is_transient or tries <= 0:
                raise
        pause = min(pause * 2, _MAX_PAUSE)
        await asyncio.sleep(pause)


def _failure(status: int, body: bytes) -> NotStored:
    code = _CODE.search(body)
    return NotStored(status, code[1].decode() if code is not None else "")


async def _pieces(content: File) -> AsyncIterator[bytes]:
    if not content.on_disk:
        with content.open() as reader:
            while piece := reader.read(_PIECE):
                yield piece
        return
    async with open_in_thread(content.open) as source:
        while piece := await asyncio.to_thread(source.read, _PIECE):
            yield piece


def _aws() -> ModuleType:
    try:
        from . import aws
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("aiobotocore", "botocore"):
            raise
        raise MissingExtra("S3 needs aiobotocore: pip install 'impasto[s3]'") from None
    return aws


async def _identity(account: Mapping[str, str | None]) -> Identity:
    aws = await asyncio.to_thread(_aws)  # importing it takes long
    region = account.get("region") or os.environ.get("AWS_REGION_NAME") or os.environ.get("AWS_REGION")
    settings = {name: value for name, value in {**account, "region": region}.items() if value}
    identity: Identity = (
        aws.explicit_identity(settings)
        or await aws.Once(partial(aws.find_identity, settings, Options(), service="s3"))()
    )
    try:
        await identity.keys()
    except ImpastoError as error:
        raise ConfigError(error.message) from None
    return identity


def _address(bucket: str, prefix: str, endpoint: str) -> str:
    """Return the bucket's URL. Amazon's buckets have their own hosts; no certificate covers one with a dot."""
    path = f"{_quoted(prefix.strip('/'))}/" if prefix.strip("/") else ""
    own = _OWN_HOST.fullmatch(endpoint)
    if own is None or "." in bucket:
        return f"{endpoint.rstrip('/')}/{bucket}/{path}"
    return f"{own[1]}{bucket}.{own[2]}/{path}"


_quoted = partial(quote, safe="/~")
"""Return a name, escaped as S3 signs it."""
