"""One try of each S3 request: aiobotocore's clients, in a thread with an event loop of its own.

botocore blocks its loop: it loads long JSON files, reads credentials, and hashes an upload before it sends anything.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from typing import IO, Any, TypeVar

import attrs
from aiobotocore.config import AioConfig
from botocore.exceptions import (
    ClientError,
    ConnectionError as BotoConnectionError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError

from impasto import File
from impasto_plugins.concurrency import to_thread_shielded

from .aws import ca_bundle, create_session, open_client, run_in_loop_of_its_own, silenced_botocore, to_identity_error
from .s3 import NotStored, ObjectEntry, ObjectListing

T = TypeVar("T")

_CONFIG = AioConfig(
    signature_version="s3v4",  # also of presigned URLs, which botocore signs with version 2 by default
    retries={"total_max_attempts": 1, "mode": "standard"},
    max_pool_connections=100,
)
_OWNER = "impasto-owner"
"""The metadata of a conditional object: the token of the upload that created it."""

_PIECE = 1 << 18
_OPERATIONS = frozenset({"CopyObject", "DeleteObjects", "GetObject", "HeadObject", "ListObjectsV2", "PutObject"})
"""All others are botocore's own, to find credentials."""


class ClientThread:
    """A thread that opens, uses and closes clients. Whoever waits for it and is cancelled cancels the request there."""

    def __init__(self) -> None:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        serve = partial(self._serve, started)
        self._thread = threading.Thread(target=run_in_loop_of_its_own, args=(serve,), name="impasto-s3", daemon=True)
        self._thread.start()
        self._loop, self._stop = started.result()

    async def aclose(self) -> None:
        """Cancel what runs, close the clients, and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        await to_thread_shielded(self._thread.join)

    async def open(self, bucket: str, prefix: str, account: Mapping[str, str]) -> BucketClient:
        """Return the client of a bucket, open until the thread ends. Raises ConfigError or NotSent."""
        return BucketClient(bucket, prefix, await self.run(partial(self._open, account)), self)

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await work of botocore there. Raises NotStored, ConfigError or NotSent."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_quietly(work), self._loop))

    async def _open(self, account: Mapping[str, str]) -> Any:  # botocore has no types
        session = create_session(account)
        if "access_key_id" in account:
            session.set_credentials(
                account["access_key_id"], account["secret_access_key"], account.get("session_token")
            )
        credentials = await session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        await credentials.get_frozen_credentials()  # a role's are fetched now, before an image is paid for
        trust = ca_bundle(account.get("profile")) or ssl.get_default_verify_paths().cafile
        client = await self._stack.enter_async_context(open_client(session, "s3", account, _CONFIG, trust))
        # botocore waits for "100 Continue" without a limit, and not every service sends it.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        client.meta.events.register_first("before-endpoint-resolution.s3", _use_regional_host)
        return client

    async def _serve(self, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        stop = asyncio.Event()
        async with AsyncExitStack() as self._stack:
            started.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()


@attrs.frozen(eq=False)
class BucketClient:
    """A bucket's objects below a prefix: each method is one try. They raise NotStored, ConfigError or NotSent."""

    bucket: str
    prefix: str
    client: Any
    thread: ClientThread

    async def presign(self, name: str, seconds: int) -> str:
        """Return a URL with which anybody may get an object for so many seconds."""
        place = self._place(name)
        return await self.thread.run(
            lambda: self.client.generate_presigned_url("get_object", Params=place, ExpiresIn=seconds)
        )

    async def put(self, name: str, content: File, media_type: str, owner: str | None) -> None:
        """Upload an object; with an ``owner`` only if there is none of this name."""
        condition = {} if owner is None else {"IfNoneMatch": "*", "Metadata": {_OWNER: owner}}

        async def put() -> None:
            with _refusals(), content.open() as reader:
                body = reader if content.on_disk else reader.read()
                answer = await self.client.put_object(
                    **self._place(name), Body=body, ContentType=media_type, **condition
                )
                _check_etag(answer)

        await self.thread.run(put)

    async def get(self, name: str) -> bytes:
        """Return an object's content."""

        async def get() -> bytes:
            with _refusals():
                answer = await self.client.get_object(**self._place(name))
                async with answer["Body"] as stream:
                    _check_etag(answer)
                    data: bytes = await stream.read()
            return data

        return await self.thread.run(get)

    async def fetch(self, name: str, target: IO[bytes]) -> float:
        """Write an object's content to a file, from its start; return the object's age in seconds."""

        async def fetch() -> float:
            with _refusals():
                target.seek(0)
                target.truncate()
                answer = await self.client.get_object(**self._place(name))
                async with answer["Body"] as stream:
                    _check_etag(answer)
                    while piece := await stream.read(_PIECE):
                        target.write(piece)
                target.flush()
                return _date_of(answer) - float(answer["LastModified"].timestamp())

        return await self.thread.run(fetch)

    async def copy(self, source: str, target: str) -> None:
        """Copy an object inside the bucket."""

        async def copy() -> None:
            with _refusals():
                answer = await self.client.copy_object(**self._place(target), CopySource=self._place(source))
                _check_etag(answer["CopyObjectResult"])

        await self.thread.run(copy)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete objects."""
        keys = [{"Key": self.prefix + name} for name in names]

        async def delete() -> None:
            with _refusals():
                answer = await self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
                _date_of(answer)
            for error in answer.get("Errors", ()):
                raise NotStored(500, error["Code"])

        await self.thread.run(delete)

    async def list_page(self, prefix: str, page: str | None, *, one_level: bool = False) -> ObjectListing:
        """Return one page of the objects whose names begin so, in the order of their names."""
        token = {} if page is None else {"ContinuationToken": page}
        token |= {"Delimiter": "/"} if one_level else {}

        async def request() -> ObjectListing:
            with _refusals():
                answer = await self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + prefix, **token)
                now = _date_of(answer)
            entries = tuple(
                ObjectEntry(each["Key"].removeprefix(self.prefix), each["ETag"], each["LastModified"].timestamp())
                for each in answer.get("Contents", ())
            )
            folders = tuple(each["Prefix"].removeprefix(self.prefix) for each in answer.get("CommonPrefixes", ()))
            return ObjectListing(entries, now, answer.get("NextContinuationToken"), folders)

        return await self.thread.run(request)

    async def owner_of(self, name: str) -> str | None:
        """Return the ``owner`` with which an object was uploaded, None if there was none."""

        async def head() -> str | None:
            with _refusals():
                answer = await self.client.head_object(**self._place(name))
            owner: str | None = answer["Metadata"].get(_OWNER)
            return owner

        return await self.thread.run(head)

    def _place(self, name: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + name}


async def _quietly(work: Callable[[], Awaitable[T]]) -> T:
    with silenced_botocore():
        try:
            return await work()
        except NotStored:
            raise
        except Exception as error:  # noqa: BLE001 - credential sources run any code: files, programs, servers
            raise to_identity_error(error) from None


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise NotStored for S3's refusals and for connections that break."""
    try:
        yield
    except ClientError as error:
        if error.operation_name not in _OPERATIONS:
            raise
        status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
        raise NotStored(status, "" if code == str(status) else code) from None
    # a ValueError says that the file has changed
    except (BotoConnectionError, HTTPClientError, ResponseParserError, OSError, KeyError, ValueError) as error:
        raise NotStored(0, type(error).__name__) from None


def _date_of(answer: Mapping[str, Any]) -> float:
    """Return the time of an answer, in seconds since 1970. Raises KeyError: an answer without a date is not S3's."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def _check_etag(answer: Mapping[str, Any]) -> None:
    """Raise NotStored for a success that is not S3's, such as the sign-in page of a proxy."""
    if not answer.get("ETag"):
        raise NotStored(200, "")


def _use_regional_host(context: dict[str, Any], **_: object) -> None:
    """Sign URLs for the region's own host: the global one redirects, until its DNS knows a new bucket."""
    context["use_global_endpoint"] = False
