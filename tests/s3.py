"""An S3 of one bucket, over real sockets, that checks what Amazon's does: signatures, their time, conditions."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread
from urllib.parse import unquote

import attrs
from aiohttp import web

from impasto_plugins.emulator.providers import sigv4

SECRETS = {"AKIATEST": "secret-of-the-test"}
BUCKET = "pictures"


@attrs.define
class FakeS3:
    """One bucket, with path-style addresses: it checks signatures, checksums and conditions."""

    url: str = ""
    stored: dict[str, tuple[bytes, str]] = attrs.field(factory=dict)
    """Content and media type by path."""
    metadata: dict[str, dict[str, str]] = attrs.field(factory=dict)
    statuses: list[int | tuple[int, str]] = attrs.field(factory=list)
    """The answers to the next uploads: a status, with its code; 0 resets the connection."""
    reads: list[int | tuple[int, str]] = attrs.field(factory=list)
    """The same for the next downloads."""
    loses_answers: int = 0
    """How many of the next uploads are stored, and their connection reset before the answer."""
    delays_answers: int = 0
    """How many of the next uploads are stored, and never answered."""
    methods: list[str] = attrs.field(factory=list)
    """The method of each request."""
    checksums: list[str] = attrs.field(factory=list)
    """Where each upload had its checksum: header, trailer or nowhere."""
    now: datetime | None = None
    pause: float = 0
    forbidden: str = ""
    """Methods that are not allowed."""
    uploads_left: int | None = None
    """How many uploads succeed before the bucket vanishes."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a user who has its key."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": SECRETS["AKIATEST"],
        }

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """The objects below a prefix, by the names behind it."""
        start = f"/{BUCKET}/{prefix}"
        return {name.removeprefix(start): data for name, (data, _) in self.stored.items() if name.startswith(start)}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.methods.append(request.method)
        await asyncio.sleep(self.pause)
        body = await request.read()
        if (refusal := self._refusal(request, body)) is not None:
            return _error(403, refusal)
        if not request.path.startswith(f"/{BUCKET}/") or self.uploads_left == 0:
            return _error(404, "NoSuchBucket")
        if request.method == "GET" and self.reads:
            return _failure(self.reads.pop(0), request)
        if request.method == "PUT":
            return await self._put(request, body)
        if request.path not in self.stored:
            return _error(404, "NoSuchKey")
        data, media_type = self.stored[request.path]
        headers = {"etag": _etag(data), **self.metadata.get(request.path, {})}
        return web.Response(body=data, content_type=media_type, headers=headers)

    async def _put(self, request: web.BaseRequest, body: bytes) -> web.Response:
        if self.statuses:
            return _failure(self.statuses.pop(0), request)
        content = self._checked_content(request, body)
        if request.headers.get("if-none-match") == "*" and request.path in self.stored:
            return _error(412, "PreconditionFailed")
        self.stored[request.path] = content, request.content_type
        self.metadata[request.path] = {k: v for k, v in request.headers.items() if k.lower().startswith("x-amz-meta-")}
        if self.uploads_left is not None:
            self.uploads_left -= 1
        if self.loses_answers:
            self.loses_answers -= 1
            return _failure(0, request)
        if self.delays_answers:
            self.delays_answers -= 1
            await asyncio.Event().wait()
        return web.Response(headers={"etag": _etag(content)})

    def _checked_content(self, request: web.BaseRequest, body: bytes) -> bytes:
        """The content of an upload, whose length and checksum are right."""
        headers = request.headers
        checksum, place = headers.get("x-amz-checksum-crc32"), "header"
        if headers.get("content-encoding") == "aws-chunked":
            content, checksum = _decode_chunks(body)
            place = "trailer"
            assert headers["x-amz-trailer"] == "x-amz-checksum-crc32"
            assert headers["x-amz-decoded-content-length"] == str(len(content))
        else:
            content = body
            assert headers["content-length"] == str(len(body))
        self.checksums.append(place if checksum is not None else "nowhere")
        assert checksum in (None, base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode())
        return content

    def _refusal(self, request: web.BaseRequest, body: bytes) -> str | None:
        now = self.now or datetime.now(UTC)
        if "authorization" in request.headers:
            is_right, is_late = _check_headers(request, body, now), False
        else:
            is_right, is_late = _check_query(request, now)
        if not is_right:
            return "SignatureDoesNotMatch"
        return "AccessDenied" if is_late or request.method in self.forbidden.split() else None


def _check_headers(request: web.BaseRequest, body: bytes, now: datetime) -> bool:
    """True if the headers have a signature of the request."""
    body_hash = request.headers["x-amz-content-sha256"]
    assert body_hash in (hashlib.sha256(body).hexdigest(), "UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    authorization = sigv4.parse_authorization(request.headers["authorization"])
    stamp = request.headers["x-amz-date"]
    assert abs(datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) - now) < timedelta(minutes=5)
    required = {"host"} | {name.lower() for name in request.headers if name.lower().startswith("x-amz-")}
    assert required <= set(authorization.signed_headers)
    return _is_signed(request, authorization, stamp, request.rel_url.raw_query_string, body_hash)


def _check_query(request: web.BaseRequest, now: datetime) -> tuple[bool, bool]:
    """True if the query has a signature of the request, and True if it has expired."""
    query = dict(request.query)
    authorization = sigv4.parse_authorization(
        f"{query['X-Amz-Algorithm']} Credential={query['X-Amz-Credential']},"
        f"SignedHeaders={query['X-Amz-SignedHeaders']},Signature={query['X-Amz-Signature']}"
    )
    assert authorization.signed_headers == ("host",)
    parts = request.rel_url.raw_query_string.split("&")
    rest = "&".join(part for part in parts if not part.startswith("X-Amz-Signature="))
    stamp = query["X-Amz-Date"]
    start = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    is_late = now > start + timedelta(seconds=int(query["X-Amz-Expires"]))
    return _is_signed(request, authorization, stamp, rest, "UNSIGNED-PAYLOAD"), is_late


def _is_signed(
    request: web.BaseRequest, authorization: sigv4.Authorization, stamp: str, query: str, body_hash: str
) -> bool:
    assert authorization.service == "s3"
    signed = sigv4.SignedRequest(
        method=request.method,
        path=unquote(request.rel_url.raw_path),  # S3 encodes it once, other services twice
        query=query,
        headers={name.lower(): value for name, value in request.headers.items()},
        body_hash=body_hash,
    )
    canonical = sigv4.build_canonical_request(signed, authorization.signed_headers)
    secret = SECRETS.get(authorization.access_key, "")
    return sigv4._compute_signature(secret, authorization, stamp, canonical) == authorization.signature


def _decode_chunks(body: bytes) -> tuple[bytes, str]:
    """The content and the checksum of a body in the form aws-chunked."""
    content = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            break
        content += body[: int(size, 16)]
        body = body[int(size, 16) :].removeprefix(b"\r\n")
    name, _, checksum = body.strip().partition(b":")
    assert name == b"x-amz-checksum-crc32"
    return content, checksum.decode()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _failure(kind: int | tuple[int, str], request: web.BaseRequest) -> web.Response:
    status, code = kind if isinstance(kind, tuple) else (kind, "SlowDown")
    if code.startswith("<"):
        return web.Response(status=status, text=code, content_type="text/html")
    if not status:
        assert request.transport is not None
        request.transport.abort()
    return _error(status or 500, code)


def _error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>")


@asynccontextmanager
async def pretending(tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeS3]:
    """One in this loop; with ``tls`` its host is localhost."""
    fake = FakeS3()
    runner = web.ServerRunner(web.Server(fake.handle), shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    host, port = runner.addresses[0][:2]
    fake.url = f"https://localhost:{port}" if tls is not None else f"http://{host}:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()


@contextmanager
def pretending_aside() -> Iterator[FakeS3]:
    """One in a thread of its own."""
    started: Future[tuple[FakeS3, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with pretending() as fake:
            stop = asyncio.Event()
            started.set_result((fake, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    fake, loop, stop = started.result(timeout=30)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
