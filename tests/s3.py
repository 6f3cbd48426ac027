"""An S3 of one bucket, over real sockets, that checks what Amazon's does: signatures, their time, conditions."""

from __future__ import annotations

import asyncio
import ssl
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
    """One bucket, at a path of its own: it checks each signature and how long it holds."""

    url: str = ""
    kept: dict[str, tuple[bytes, str]] = attrs.field(factory=dict)
    statuses: list[int | tuple[int, str]] = attrs.field(factory=list)
    """What the next uploads are answered instead: a status, with its code; 0 resets the connection."""
    reads: list[int | tuple[int, str]] = attrs.field(factory=list)
    """The same for the next downloads."""
    loses_answers: int = 0
    """How many of the next uploads are stored, and their connection reset before the answer."""
    seen: list[str] = attrs.field(factory=list)
    now: datetime | None = None
    pause: float = 0
    refused: str = ""
    """Methods that are not allowed."""
    gone_after: int | None = None
    """After how many uploads the bucket is gone."""

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
        """What is kept below a prefix, by the names behind it."""
        start = f"/{BUCKET}/{prefix}"
        return {name.removeprefix(start): data for name, (data, _) in self.kept.items() if name.startswith(start)}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(request.method)
        await asyncio.sleep(self.pause)
        body = await request.read()
        assert "authorization" not in request.headers
        if (refusal := self._refusal(request)) is not None:
            return _error(403, refusal)
        if not request.path.startswith(f"/{BUCKET}/") or self.gone_after == 0:
            return _error(404, "NoSuchBucket")
        if request.method == "GET" and self.reads:
            return _failure(self.reads.pop(0), request)
        if request.method != "PUT" and request.path not in self.kept:
            return _error(404, "NoSuchKey")
        if request.method != "PUT":
            data, media_type = self.kept[request.path]
            return web.Response(body=data, content_type=media_type)
        if self.statuses:
            return _failure(self.statuses.pop(0), request)
        assert request.headers["content-length"] == str(len(body))
        if request.headers.get("if-none-match") == "*" and request.path in self.kept:
            return _error(412, "PreconditionFailed")
        self.kept[request.path] = body, request.content_type
        if self.gone_after is not None:
            self.gone_after -= 1
        if self.loses_answers:
            self.loses_answers -= 1
            return _failure(0, request)
        return web.Response()

    def _refusal(self, request: web.BaseRequest) -> str | None:
        asked = dict(request.query)
        query = "&".join(p for p in request.rel_url.raw_query_string.split("&") if not p.startswith("X-Amz-Signature="))
        signed = sigv4.SignedRequest(
            method=request.method,
            path=unquote(request.rel_url.raw_path),  # S3 encodes it once, other services twice
            query=query,
            headers={"host": request.headers["host"]},
            body_hash="UNSIGNED-PAYLOAD",
        )
        given = sigv4.parse_authorization(
            f"{asked['X-Amz-Algorithm']} Credential={asked['X-Amz-Credential']},"
            f"SignedHeaders={asked['X-Amz-SignedHeaders']},Signature={asked['X-Amz-Signature']}"
        )
        assert (given.service, given.signed_headers) == ("s3", ("host",))
        stamp, key = asked["X-Amz-Date"], SECRETS.get(given.access_key, "")
        if (
            sigv4._compute_signature(key, given, stamp, sigv4.build_canonical_request(signed, ("host",)))
            != given.signature
        ):
            return "SignatureDoesNotMatch"
        begun = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        now = self.now or datetime.now(UTC)
        late = now > begun + timedelta(seconds=int(asked["X-Amz-Expires"]))
        return "AccessDenied" if late or request.method in self.refused.split() else None


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
