"""A provider's stand-in that misbehaves byte by byte, and counts what it would have charged for."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from socket import SO_LINGER, SOL_SOCKET

import attrs

from tests.images import png

JOB = "a1" * 32
PICTURE = png(64, 64)
PICTURE_HEADERS = {"content-type": "image/png", "finish-reason": "SUCCESS", "seed": "7", "x-request-id": "req-1"}


@attrs.frozen(kw_only=True)
class ServedRequest:
    """One request as it came, and over which connection (counted from 0)."""

    method: str
    path: str
    head: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=lambda body: f"<{len(body)} bytes>")
    connection: int
    at: float

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


@attrs.define
class Wire:
    """The server's end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_open: bool = True

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with suppress(ConnectionError):
            await self.writer.drain()

    def close(self) -> None:
        """Ends the connection in an orderly way."""
        self.is_open = False
        self.writer.close()

    def reset(self) -> None:
        """Ends the connection with a TCP reset."""
        self.is_open = False
        self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Answer = Callable[[ServedRequest, Wire], Awaitable[None]]


def head(status: int, headers: Mapping[str, str], reason: str = "Said") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def raw(*pieces: bytes | float, end: str = "") -> Answer:
    """Sends pieces, waits where a number stands; ``end``: "close" or "reset"."""

    async def answer(request: ServedRequest, wire: Wire) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                await wire.send(piece)
            else:
                await asyncio.sleep(piece)
        if end == "close":
            wire.close()
        elif end == "reset":
            wire.reset()

    return answer


def http(status: int, body: bytes = b"", **headers: str) -> Answer:
    """A well-formed answer. Underscores in header names stand for dashes."""
    params = {name.replace("_", "-"): value for name, value in headers.items()}
    return raw(head(status, {**params, "content-length": str(len(body))}) + body)


def picture(**headers: str) -> Answer:
    """A good answer."""
    return http(200, PICTURE, **{**PICTURE_HEADERS, **headers})


def in_json(body: object, status: int = 200, **headers: str) -> Answer:
    return http(status, json.dumps(body).encode(), **{"content-type": "application/json", **headers})


def refused(status: int, name: str = "refused", *, message: str = "no", **headers: str) -> Answer:
    """A refusal in the vendor's own form."""
    return in_json({"id": "e1", "name": name, "errors": [message]}, status, **headers)


def page(status: int, text: str = "<html>secret page</html>") -> Answer:
    """What a proxy says in the provider's place."""
    return http(status, text.encode(), content_type="text/html")


def accepted_job() -> Answer:
    return in_json({"id": JOB})


def pending() -> Answer:
    return in_json({"id": JOB, "status": "in-progress"}, 202)


async def silence(request: ServedRequest, wire: Wire) -> None:
    """Never answers; ends when the other side does."""
    await wire.reader.read()
    wire.close()


@attrs.define
class Server:
    """``posts`` are answered in turn, the last answer repeats; ``polls`` likewise."""

    posts: list[Answer] = attrs.field(factory=lambda: [picture()])
    polls: list[Answer] = attrs.field(factory=lambda: [picture()])
    on_connect: Callable[[Wire], Awaitable[None]] | None = None
    reads_bodies: bool = True
    url: str = ""
    port: int = 0
    requests: list[ServedRequest] = attrs.field(factory=list)
    connections: int = 0
    received: bytearray = attrs.field(factory=bytearray)
    now: int = 0
    most: int = 0
    """Requests that were answered at the same time, now and at most."""

    @property
    def paid(self) -> list[ServedRequest]:
        return [request for request in self.requests if request.method == "POST"]

    @property
    def polled(self) -> list[ServedRequest]:
        return [request for request in self.requests if request.method == "GET"]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, wire = self.connections, Wire(reader, writer)
        self.connections += 1
        try:
            if self.on_connect is not None:
                await self.on_connect(wire)
            while wire.is_open:
                request = await self._read(reader, number)
                self.requests.append(request)
                answers, index = (
                    (self.posts, len(self.paid)) if request.method == "POST" else (self.polls, len(self.polled))
                )
                self.now += 1
                self.most = max(self.most, self.now)
                try:
                    await answers[min(index, len(answers)) - 1](request, wire)
                finally:
                    self.now -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, number: int) -> ServedRequest:
        top = await reader.readuntil(b"\r\n\r\n")
        self.received += top
        method, path, _ = top.split(b" ", 2)
        request = ServedRequest(
            method=method.decode(),
            path=path.decode(),
            head=top,
            connection=number,
            at=asyncio.get_running_loop().time(),
        )
        length = int(request.header("content-length") or 0)
        body = await reader.readexactly(length) if self.reads_bodies else b""
        self.received += body
        return attrs.evolve(request, body=body)


@asynccontextmanager
async def serving(server: Server | None = None, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Runs a server on loopback; ends every connection with it."""
    server = server or Server()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await server.handle(reader, writer)
        except (asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass  # the server is ending, or the handshake failed
        finally:
            tasks.discard(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", server.port, ssl=tls, limit=2**20)
    server.port = listener.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{server.port}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        while tasks:
            await asyncio.sleep(0)
        await listener.wait_closed()
        await asyncio.sleep(0)
