"""A provider's stand-in on loopback: records requests byte for byte and sends the configured answers.

It uses the standard library alone, so that it is an independent witness of a transport.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from urllib.parse import urlsplit

import attrs

_LONGEST_HEAD = 1 << 20
_TURNS = 10
"""Turns of the loop after which a waiting connection has been accepted: it takes four."""
_LONGEST_WAIT = 1.0
"""Seconds to wait for a connection that its client left open."""


@attrs.frozen(kw_only=True)
class Answer:
    """The answer to a request. ``cut_after``: the connection is closed after so many bytes of the body.

    ``{url}`` in the body or a header becomes the recorder's base URL, ``{other_url}`` that of another host of the
    provider, ``{signed_url}`` that of a host which must not get the key, and ``{job}`` an id of the call's job.
    """

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = attrs.field(default=b"", repr=lambda body: f"<{len(body)} bytes>")
    cut_after: int | None = None

    def with_words(self, words: Mapping[str, str]) -> Answer:
        """Return the answer with ``{url}`` and the others filled in."""
        body, headers = self.body, dict(self.headers)
        for name, word in words.items():
            body = body.replace(f"{{{name}}}".encode(), word.encode())
            headers = {key: value.replace(f"{{{name}}}", word) for key, value in headers.items()}
        return attrs.evolve(self, body=body, headers=headers)

    def with_headers(self, **headers: str) -> Answer:
        """Return the answer with headers set, whose names may have ``_`` for ``-``."""
        more = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        others = {name: value for name, value in self.headers.items() if name.lower() not in more}
        return attrs.evolve(self, headers={**others, **more})

    def to_bytes(self) -> bytes:
        """Return the whole answer as bytes."""
        lines = [f"HTTP/1.1 {self.status} Answer", "connection: close"]
        if self.status not in (204, 304) and "content-length" not in self.headers:
            lines.append(f"content-length: {len(self.body)}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body[: self.cut_after]


@attrs.frozen(kw_only=True)
class RecordedRequest:
    """A request as it arrived. ``target``: path and query; ``headers``: as sent, in order.

    ``host``: ``url``, ``other_url`` or ``signed_url``. ``at``: seconds on the loop's clock.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")
    host: str = "url"
    at: float = 0.0

    def header(self, name: str) -> str:
        """Return the first value of a header, or an empty text."""
        return next((value for key, value in self.headers if key.lower() == name), "")


Answering = Callable[[RecordedRequest], Answer | Awaitable[Answer]]
HOSTS = ("url", "other_url", "signed_url")


def always(answer: Answer) -> Answering:
    """Return a function that gives every request the same answer."""
    return lambda _: answer


class Conversation:
    """The answers to each call in their order: to its POST, then to its GETs, of which the last is repeated.

    A GET belongs to the call whose ``{job}`` stands in its address, else to the newest one. One of an address in
    ``downloads`` has the answer there, whenever it comes: images are fetched side by side.
    """

    def __init__(
        self,
        answers: Sequence[Answer],
        job_id: Callable[[int], str] = "{:064x}".format,
        downloads: Mapping[str, Answer] = MappingProxyType({}),
    ) -> None:
        self._answers, self._job_id, self._downloads = answers, job_id, downloads
        self._positions: dict[str, int] = {}

    def copy(self) -> Conversation:
        """Return the same answers for other calls."""
        return Conversation(self._answers, self._job_id, self._downloads)

    def with_headers(self, **headers: str) -> Conversation:
        """Return the same answers with headers set, for other calls. The host of images is another's: it has none."""
        answers = [answer.with_headers(**headers) for answer in self._answers]
        return Conversation(answers, self._job_id, self._downloads)

    def __call__(self, request: RecordedRequest) -> Answer:
        """Return the next answer of the request's call, or that of its address."""
        if request.method == "GET" and (download := self._download(request.target)) is not None:
            return download
        job = next((job for job in reversed(self._positions) if job in request.target), None)
        if (request.method == "POST" and job is None) or not self._positions:
            job = self._job_id(len(self._positions) + 1)
            self._positions[job] = -1 if request.method == "POST" else 0  # a job that is resumed was accepted before
        job = job or next(reversed(self._positions))
        self._positions[job] = min(self._positions[job] + 1, len(self._answers) - 1)
        return self._answers[self._positions[job]].with_words({"job": job})

    def _download(self, target: str) -> Answer | None:
        address = urlsplit(target)
        targets = (address.path, f"{address.path}?{address.query}")
        jobs = (*self._positions, self._job_id(1))  # a call that is resumed may begin with a download
        for job, (place, answer) in itertools.product(jobs, self._downloads.items()):
            if place.replace("{job}", job) in targets:
                return answer.with_words({"job": job})
        return None


def without_query(target: str) -> str:
    """Return an address without its query, which may be a key or a signature."""
    return target.partition("?")[0]


class Exchanges:
    """Notes the last exchange of what answers in a provider's place."""

    last_exchange = ""

    def note_exchange(self, method: str, target: str, answer: Answer | None = None) -> None:
        """Note a request, and its answer once there is one."""
        end = "not answered"
        if answer is not None:
            kind = answer.headers.get("content-type", "without a media type")
            end = f"answered with HTTP {answer.status}, {kind}, {len(answer.body)} bytes"
        self.last_exchange = f"{method} {without_query(target)}, {end}"


@attrs.define(eq=False)
class Recorder(Exchanges):
    """Records ``requests`` in order and answers each with ``answer``. ``free``: POSTs that cost nothing."""

    answer: Answering
    free: re.Pattern[str] | None = None
    urls: dict[str, str] = attrs.field(factory=dict[str, str], init=False)
    """The base URL of each host."""
    requests: list[RecordedRequest] = attrs.field(factory=list[RecordedRequest])
    _serving: set[asyncio.Task[None]] = attrs.field(factory=set[asyncio.Task[None]], init=False, repr=False)

    @property
    def url(self) -> str:
        """The provider's base URL."""
        return self.urls["url"]

    @property
    def posts(self) -> list[RecordedRequest]:
        """The requests that may have been charged."""
        return [each for each in self.requests if each.method == "POST" and not self._is_free(each.target)]

    def _is_free(self, target: str) -> bool:
        places = (target, without_query(target))  # the key may be in the query
        return self.free is not None and any(self.free.fullmatch(f"POST {place}") for place in places)

    def accept(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to a host until it ends."""

        def on_done(task: asyncio.Task[None]) -> None:
            self._serving.discard(task)
            writer.close()  # one that is cancelled before it began has closed nothing

        task = asyncio.ensure_future(self.serve(host, reader, writer))
        self._serving.add(task)
        task.add_done_callback(on_done)

    async def settle(self) -> None:
        """Wait until everything that was sent has arrived, after its clients are closed."""
        await _turns()
        if self._serving:
            await asyncio.wait(self._serving, timeout=_LONGEST_WAIT)

    async def aclose(self) -> None:
        """Close the connections that are still open."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def serve(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request from a connection, answer it and close the connection."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):  # the client left
                now = asyncio.get_running_loop().time()
                request = attrs.evolve(await _read(reader, writer), host=host, at=now)
                self.requests.append(request)
                self.note_exchange(request.method, request.target)
                answer = self.answer(request)
                answer = answer if isinstance(answer, Answer) else await answer
                self.note_exchange(request.method, request.target, answer)
                writer.write(answer.with_words(self.urls).to_bytes())
                await writer.drain()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RecordedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    length = {name.lower(): value for name, value in headers}
    if length.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if length.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunked(reader)
    else:
        body = await reader.readexactly(int(length.get("content-length", "0")))
    return RecordedRequest(method=method, target=target, headers=headers, body=body)


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    while await reader.readline() not in (b"\r\n", b""):
        pass
    return bytes(body)


async def _turns() -> None:
    """Let the loop end what it has begun."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


@asynccontextmanager
async def recording(
    answer: Answering, hosts: Sequence[str] = HOSTS[:1], free: re.Pattern[str] | None = None
) -> AsyncIterator[Recorder]:
    """Run a recorder that listens on loopback, for a block. ``hosts``: the names of its addresses."""
    recorder = Recorder(answer, free)
    servers: list[asyncio.Server] = []
    try:
        for name in hosts:
            accept = functools.partial(recorder.accept, name)
            servers.append(await asyncio.start_server(accept, "127.0.0.1", 0, limit=_LONGEST_HEAD))
            host, port = servers[-1].sockets[0].getsockname()[:2]
            recorder.urls[name] = f"http://{host}:{port}"
        yield recorder
    finally:
        await _turns()  # a connection that was accepted just now is served only then; a closed server leaves it open
        for server in servers:
            server.close()
        await recorder.aclose()
        for server in servers:
            await server.wait_closed()
        await _turns()  # connections that were closed just now end in the loop's next turn
