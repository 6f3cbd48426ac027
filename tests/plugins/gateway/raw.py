"""Requests written byte by byte, and what came of them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import attrs

from .conftest import MASTER

KEY = f"Authorization: Bearer {MASTER}\r\n".encode()
HEADERS = b"Host: localhost\r\n" + KEY
JSON = b"Content-Type: application/json\r\n"
GET = b"GET /v1/models HTTP/1.1\r\n"
POST = b"POST /v1/images/generations HTTP/1.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CALL = b'{"model":"sd3","prompt":"p"}'
LENGTH = b"Content-Length: %d\r\n" % len(CALL)


@attrs.frozen
class Raw:
    """What came before the end. ``closed``: the other side ended it; ``reset``: not in an orderly way."""

    data: bytes
    closed: bool
    reset: bool = False

    @property
    def status(self) -> int:
        """The first answer's; 0 where none came."""
        return int(self.data[9:12] or b"0")

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0].lower()

    @property
    def error(self) -> dict[str, str | None]:
        """What the answer says went wrong: in OpenAI's shape, with an id."""
        assert self.data.startswith(b"HTTP/1.1 "), self.data[:80]
        assert b"\r\ncontent-type: application/json" in self.head
        assert b"\r\nx-request-id: req_" in self.head
        payload = json.loads(self.data.partition(b"\r\n\r\n")[2])
        assert set(payload) == {"error"}
        assert set(payload["error"]) == {"message", "type", "param", "code"}
        error: dict[str, str | None] = payload["error"]
        return error


class Connection:
    """One connection to a gateway's address."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    async def answer(self) -> bytes:
        """One whole answer, of those that say their length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        return head + await self.reader.readexactly(length)

    async def rest(self, seconds: float = 60) -> Raw:
        """All that comes until the other side ends, or nothing more comes for so long."""
        came = b""
        try:
            while data := await asyncio.wait_for(self.reader.read(1 << 16), seconds):
                came += data
        except TimeoutError:
            return Raw(came, closed=False)
        except ConnectionError:
            return Raw(came, closed=True, reset=True)
        return Raw(came, closed=True)


async def send(url: str, data: bytes, seconds: float = 60) -> Raw:
    """Sends it and reads to the end."""
    async with Connection(url) as connection:
        connection.writer.write(data)
        return await connection.rest(seconds)


async def until(met: Callable[[], bool]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(60):
        while not met():
            await asyncio.sleep(0.01)


def answered_unread(url: str, request: bytes) -> socket.socket:
    """Send a request and wait for its answer, of which nothing is read. Blocks."""
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60)
    connection.sendall(request)
    connection.recv(1, socket.MSG_PEEK)
    return connection


def chunks(*pieces: bytes) -> bytes:
    """A chunked body, to its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


class Lag:
    """The longest that the running loop worked at one go: seconds of its thread, as a busy machine takes its time."""

    longest = 0.0

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.005)
            self.longest = max(self.longest, time.thread_time() - began)
