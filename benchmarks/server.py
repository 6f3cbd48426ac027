"""The other side, in a process of its own, written for speed: ``python -m benchmarks.server [--size N] [--hold]``.

Reads each request to its end and answers with a ready-made picture of ``N`` bytes: as it is or, for ``accept:
application/json``, in base64; below ``/model/`` as Bedrock does, below ``/v1/`` as OpenAI does. With ``--hold`` answers
wait for ``GET /release``; ``GET /waiting`` tells how many do.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator

from .pictures import picture

_PICTURE_HEADERS = "content-type: image/png\r\nfinish-reason: SUCCESS\r\nseed: 7\r\nx-request-id: r1"

SMALL = 12_000
LARGE = 1_500_000


def _framed(headers: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\n{headers}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Server:
    """What its connections share."""

    def __init__(self, *, size: int, hold: bool) -> None:
        data = picture(size)
        told: dict[str, object] = {"image": base64.b64encode(data).decode(), "finish_reason": "SUCCESS", "seed": 7}
        self._plain = _framed(_PICTURE_HEADERS, data)
        self._json = _framed("content-type: application/json", json.dumps(told).encode())
        told = {"seeds": [7], "finish_reasons": [None], "images": [told["image"]]}
        self._bedrock = _framed("content-type: application/json", json.dumps(told, separators=(",", ":")).encode())
        told = {"created": 1, "data": [{"b64_json": told["images"][0]}]}  # type: ignore[index]  # a list, just above
        self._openai = _framed("content-type: application/json", json.dumps(told).encode())
        self.hold = hold
        self.held: list[tuple[_Connection, bytes]] = []

    def take(self, connection: _Connection, head: bytes) -> None:
        """Answers one request, now or later."""
        path = head.split(b" ", 2)[1]
        if path == b"/waiting":
            connection.reply(_framed("content-type: text/plain", str(len(self.held)).encode()))
        elif path == b"/release":
            held, self.held = self.held, []
            for each, answer in held:
                each.reply(answer)
            connection.reply(_framed("content-type: text/plain", b""))
        else:
            answer = self._json if b"\r\naccept: application/json" in head else self._plain
            answer = self._bedrock if path.startswith(b"/model/") else answer
            answer = self._openai if path.startswith(b"/v1/") else answer
            if self.hold:
                self.held.append((connection, answer))
            else:
                connection.reply(answer)


class _Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._head = b""
        self._wanted = 0
        """Bytes of the body that are still to come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._wanted:
            self._wanted -= len(data)
        else:
            self._head += data
            at = self._head.find(b"\r\n\r\n")
            if at < 0:
                return
            came = len(self._head) - at - 4
            self._head = self._head[:at].lower()
            self._wanted = _length(self._head) - came
        if self._wanted == 0:
            head, self._head = self._head, b""
            self._server.take(self, head)

    def reply(self, answer: bytes) -> None:
        self._transport.write(answer)


def _length(head: bytes) -> int:
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


@contextlib.contextmanager
def running(size: int = SMALL, *, hold: bool = False) -> Iterator[str]:
    """A server process; its base URL."""
    command = [sys.executable, "-m", __name__, "--size", str(size), *(["--hold"] if hold else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


async def _serve(size: int, hold: bool) -> None:
    shared = Server(size=size, hold=hold)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(shared), "127.0.0.1", 0, backlog=16_384)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    over = asyncio.Event()
    loop.add_reader(sys.stdin, over.set)  # its end: the benchmark is over, or was killed
    await over.wait()


def allow_many_files() -> None:
    """Raises this process's limit of open files to what it may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=SMALL)
    parser.add_argument("--hold", action="store_true")
    asked = parser.parse_args()
    allow_many_files()
    asyncio.run(_serve(asked.size, asked.hold))
