"""A provider's stand-in on loopback: writes down what reaches it, byte for byte, and answers as it is told.

It is made of the standard library alone, so that it is a second witness of what a transport sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import attrs

_LONGEST_HEAD = 1 << 20
_TURNS = 10
"""Turns of the loop in which a connection that waits to be accepted is: it takes four."""
_LONGEST_WAIT = 1.0
"""Seconds for which a connection is waited for that its client left open."""


@attrs.frozen(kw_only=True)
class Answer:
    """What is answered. ``cut``: so many bytes of the body are sent, then the connection is closed."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = attrs.field(default=b"", repr=lambda body: f"<{len(body)} bytes>")
    cut: int | None = None

    def written(self) -> bytes:
        """The whole answer as it goes out."""
        lines = [f"HTTP/1.1 {self.status} Answer", "connection: close"]
        if self.status not in (204, 304) and "content-length" not in self.headers:
            lines.append(f"content-length: {len(self.body)}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body[: self.cut]


@attrs.frozen(kw_only=True)
class Seen:
    """One request as it came. ``target`` is its path and query; ``headers`` are as sent, in their order."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")

    def header(self, name: str) -> str:
        """The first value of a header, or nothing."""
        return next((value for key, value in self.headers if key.lower() == name), "")


Answering = Callable[[Seen], Answer]


def always(answer: Answer) -> Answering:
    """Every request gets the same answer."""
    return lambda _: answer


@attrs.define(eq=False)
class Recorder:
    """``seen`` holds the requests in their order; ``answer`` says what each is answered."""

    answer: Answering
    url: str = ""
    seen: list[Seen] = attrs.field(factory=list[Seen])
    _serving: set[asyncio.Task[None]] = attrs.field(factory=set[asyncio.Task[None]], init=False, repr=False)

    @property
    def posts(self) -> list[Seen]:
        """The requests that may have been charged."""
        return [each for each in self.seen if each.method == "POST"]

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection until it ends."""

        def ended(task: asyncio.Task[None]) -> None:
            self._serving.discard(task)
            writer.close()  # one that is cancelled before it began has closed nothing

        task = asyncio.ensure_future(self.serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(ended)

    async def settle(self) -> None:
        """Waits until all that was sent has arrived, once its clients are closed."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if self._serving:
            await asyncio.wait(self._serving, timeout=_LONGEST_WAIT)

    async def aclose(self) -> None:
        """Ends what is served still."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes one request from a connection, answers it and closes the connection."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):  # the client left
                seen = await _read(reader, writer)
                self.seen.append(seen)
                writer.write(self.answer(seen).written())
                await writer.drain()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    known = {name.lower(): value for name, value in headers}
    if known.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if known.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunked(reader)
    else:
        body = await reader.readexactly(int(known.get("content-length", "0")))
    return Seen(method=method, target=target, headers=headers, body=body)


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    while await reader.readline() not in (b"\r\n", b""):
        pass
    return bytes(body)


@asynccontextmanager
async def recording(answer: Answering) -> AsyncIterator[Recorder]:
    """A recorder that listens on loopback."""
    recorder = Recorder(answer)
    server = await asyncio.start_server(recorder.accept, "127.0.0.1", 0, limit=_LONGEST_HEAD)
    host, port = server.sockets[0].getsockname()[:2]
    recorder.url = f"http://{host}:{port}"
    try:
        yield recorder
    finally:
        server.close()
        await recorder.aclose()
        await server.wait_closed()
        await asyncio.sleep(0)  # connections that were closed just now end in the loop's next turn
