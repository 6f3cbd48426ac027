"""Objects of an S3 bucket below a prefix. aiobotocore sends each request once; what is tried again is decided here."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, TypeVar

import attrs

from impasto import ConfigError, File, ImpastoError, MissingExtra

if TYPE_CHECKING:
    from .s3_client import BucketClient, ClientThread

TRIES = 3
"""Tries of a request by default. Uploading an object again changes nothing."""

REQUEST_SECONDS = 60
"""Seconds that one try may take."""

_NAMES_PER_REQUEST = 1000
"""Objects that one request can delete."""

_PAUSE = 0.2
_MAX_PAUSE = 20.0
_NOT_FOUND, _EXISTS, _NOT_IMPLEMENTED = 404, 412, 501

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
        is_fault = self.status >= 500 and self.status != _NOT_IMPLEMENTED
        return self.status in (0, 200, 408, 429) or is_fault or self.code in _TRANSIENT


@attrs.frozen
class ObjectEntry:
    """An object in a listing. ``modified``: seconds since 1970 by the clock of S3."""

    name: str
    etag: str
    modified: float


@attrs.frozen
class ObjectListing:
    """The objects below a prefix. ``now``: the time of the answer by the clock of S3, in seconds since 1970.

    ``folders``: in a listing of one level, the beginnings up to a slash of all other names.
    """

    entries: tuple[ObjectEntry, ...]
    now: float
    next_page: str | None = None
    folders: tuple[str, ...] = ()


class S3Clients:
    """botocore's clients of S3, in one thread that starts with the first of them."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._thread: ClientThread | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def start(self) -> ClientThread:
        """Return the thread; start it if it does not run. Raises MissingExtra."""
        async with self._starting:
            if self._thread is None:
                client_thread = await asyncio.to_thread(import_client)
                self._thread = await asyncio.to_thread(client_thread)
                self._stack.push_async_callback(self._thread.aclose)
            return self._thread


@attrs.frozen(eq=False)
class Objects:
    """The objects of a bucket below a prefix."""

    bucket: BucketClient

    @classmethod
    async def open(cls, bucket: str, prefix: str, account: Mapping[str, str | None], clients: S3Clients) -> Objects:
        """Find region, endpoint and credentials as boto3 does. Raises ConfigError or MissingExtra.

        ``account`` may have ``region``, ``endpoint``, ``access_key_id``, ``secret_access_key``, ``session_token`` and
        ``profile``.
        """
        region = account.get("region") or os.environ.get("AWS_REGION_NAME") or os.environ.get("AWS_REGION")
        settings = {name: value for name, value in {**account, "region": region}.items() if value}
        thread = await clients.start()
        try:
            return cls(await thread.open(bucket, f"{prefix.strip('/')}/".lstrip("/"), settings))
        except ImpastoError as error:
            raise ConfigError(error.message) from None

    def below(self, prefix: str) -> Objects:
        """Return the objects below a further prefix, such as ``files/``."""
        return Objects(attrs.evolve(self.bucket, prefix=self.bucket.prefix + prefix))

    async def presign(self, name: str, seconds: int) -> str:
        """Return a URL with which anybody may get an object for so many seconds. Raises ConfigError or NotSent."""
        return await self.bucket.presign(name, seconds)

    async def put(
        self, name: str, content: File, media_type: str, *, tries: int = TRIES, only_new: bool = False
    ) -> bool:
        """Upload an object. With ``only_new``, return False if one of this name exists, and leave it.

        Raises NotStored, ConfigError, NotSent.
        """
        owner = secrets.token_hex(16) if only_new else None
        try:
            await _with_retries(tries, partial(self.bucket.put, name, content, media_type, owner))
        except NotStored as refusal:
            if owner is None or refusal.status != _EXISTS:
                raise
            # An earlier try may have created it before its answer was lost: the object's owner tells.
            return await _with_retries(tries, partial(self.bucket.owner_of, name)) == owner
        return True

    async def create(self, name: str, content: bytes, media_type: str, *, tries: int = TRIES) -> bytes | None:
        """Upload an object that must be unlike any other. If one of this name exists, return that one's content.

        Raises NotStored, ConfigError, NotSent.
        """
        try:
            await _with_retries(
                tries, partial(self.bucket.put, name, File.of(content), media_type, secrets.token_hex(16))
            )
        except NotStored as refusal:
            if refusal.status != _EXISTS:
                raise
            # An earlier try may have created it before its answer was lost: then this is its content.
            found = await _with_retries(tries, partial(self.bucket.get, name))
            return None if found == content else found
        return None

    async def get(self, name: str, *, tries: int = TRIES) -> bytes | None:
        """Return an object's content, None if it does not exist. Raises NotStored, ConfigError, NotSent."""
        try:
            return await _with_retries(tries, partial(self.bucket.get, name))
        except NotStored as refusal:
            if refusal.status == _NOT_FOUND and refusal.code != "NoSuchBucket":
                return None
            raise

    async def fetch(self, name: str, target: IO[bytes], *, tries: int = TRIES) -> float | None:
        """Write an object's content to a file; return its age in seconds by the clock of S3, None if it does not exist.

        Raises NotStored, ConfigError, NotSent.
        """
        try:
            return await _with_retries(tries, partial(self.bucket.fetch, name, target))
        except NotStored as refusal:
            if refusal.status == _NOT_FOUND and refusal.code != "NoSuchBucket":
                return None
            raise

    async def copy(self, source: str, target: str, *, tries: int = TRIES) -> bool:
        """Copy an object inside the bucket; return False if it does not exist. Raises NotStored, ConfigError, NotSent.

        S3 copies objects of up to 5 GB.
        """
        try:
            await _with_retries(tries, partial(self.bucket.copy, source, target))
        except NotStored as refusal:
            if refusal.code == "NoSuchKey":
                return False
            raise
        return True

    async def delete(self, names: Sequence[str], *, tries: int = TRIES) -> None:
        """Delete objects; those that do not exist are none. Raises NotStored, ConfigError, NotSent."""
        for start in range(0, len(names), _NAMES_PER_REQUEST):
            piece = names[start : start + _NAMES_PER_REQUEST]
            await _with_retries(tries, partial(self.bucket.delete, piece))

    async def list_objects(self, prefix: str, *, tries: int = TRIES, one_level: bool = False) -> ObjectListing:
        """Return all objects whose names begin so; with ``one_level`` only those without a further slash.

        Raises NotStored, ConfigError, NotSent.
        """
        entries, folders, page = list[ObjectEntry](), list[str](), None
        while True:
            listing = await _with_retries(tries, partial(self.bucket.list_page, prefix, page, one_level=one_level))
            entries += listing.entries
            folders += listing.folders
            if (page := listing.next_page) is None:
                return ObjectListing(tuple(entries), listing.now, folders=tuple(folders))

    async def exists(self, name: str) -> bool:
        """Return True if an object exists; False also if S3 does not answer. Raises ConfigError, NotSent."""
        try:
            await _with_retries(1, partial(self.bucket.owner_of, name))
        except NotStored:
            return False
        return True


def import_client() -> type[ClientThread]:
    """Import aiobotocore, which takes long. Raises MissingExtra."""
    try:
        from .s3_client import ClientThread
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("aiobotocore", "botocore"):
            raise
        raise MissingExtra("S3 needs aiobotocore: pip install 'impasto[s3]'") from None
    return ClientThread


async def _with_retries(tries: int, request: Callable[[], Awaitable[T]]) -> T:
    """Run a request, again while its failure is transient, at most ``tries`` times. Raises NotStored."""
    pause = _PAUSE
    while True:
        tries -= 1
        try:
            return await _in_time(request)
        except NotStored as failure:
            if not failure.is_transient or tries <= 0:
                raise
        pause = min(pause * 2, _MAX_PAUSE)
        await asyncio.sleep(pause)


async def _in_time(request: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            return await request()
    except TimeoutError as error:
        raise NotStored(0, type(error).__name__) from None
