"""Load as the world loads: ``python -m benchmarks.gateway.world [--seconds 60] [--connections 32] [--workers 1]``.

Images of 12 KB, 1.5 MB and 6 MB in turn, first as a plain client asks, then with the headers of OpenAI's SDKs, each
with a gateway of its own. Connections are kept, opened for each request, and left in the middle of an answer; memory,
the data directory and open files are read meanwhile, and at the end the time that SIGTERM takes. Exit code 1 if one of
the bounds below is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from enum import Enum
from pathlib import Path

import attrs

from benchmarks.server import LARGE, SMALL, allow_many_files

from .load import KEY, SDK_HEADERS, Ask, generation
from .servers import Process, gateway, provider

HUGE = 6_000_000
SIZES = (SMALL, LARGE, HUGE)

MOST_MEMORY = 1.3
"""Peak memory with the SDK's headers, over the peak without them."""

MOST_BYTES_LEFT = 5_000_000
"""Bytes in the data directory beyond the answers that were not read whole."""

LEAVES = 0.05
"""Part of the requests of a phase that leaves, whose connection is reset in the middle of its answer."""

WATCH_SECONDS = 0.1


class Way(Enum):
    """What callers do with their connections."""

    KEEP = "connections are kept"
    NEW = "a connection for each request"
    LEAVE = "some leave"


@attrs.define
class Counts:
    """What callers saw. ``left`` bytes are those of images whose answer was not read whole."""

    answered: int = 0
    failed: int = 0
    left: int = 0
    left_bytes: int = 0


@attrs.frozen(kw_only=True)
class Outcome:
    """What a run came to. Memory is in MB, times in seconds."""

    counts: Counts
    peak: float
    bytes_left: int
    files: int
    stop_seconds: float
    exit_code: int


class _Caller(asyncio.Protocol):
    """One request on a connection: reads the whole answer, or so many bytes of it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._done: asyncio.Future[int] | None = None
        self._head = b""
        self._wanted = self._enough = 0
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("the gateway closed the connection"))

    async def ask(self, request: bytes, enough: int | None) -> int:
        """The status; with ``enough``, as soon as so many bytes of the body are here. Raises OSError."""
        if self.transport is None:
            raise ConnectionError("the gateway closed the connection")
        self._done = asyncio.get_running_loop().create_future()
        self._head, self._wanted, self._enough = b"", -1, enough or 0
        self.transport.write(request)
        return await self._done

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            return
        if self._wanted < 0:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._status = int(head[9:12])
            self._wanted = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._enough = self._wanted - self._enough if self._enough else 0
        self._wanted -= len(data)
        if self._wanted <= self._enough:
            self._done.set_result(self._status)


async def phase(
    url: str, ask: Ask, way: Way, *, connections: int, seconds: float, headers: str, counts: Counts
) -> None:
    """Asks over so many connections at once for so long."""
    port, size = int(url.rpartition(":")[2]), int(ask.model)
    request = (
        f"POST {ask.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {KEY}\r\n{headers}"
        f"Content-Type: {ask.content_type}\r\nContent-Length: {len(ask.body)}\r\n\r\n"
    ).encode() + ask.body
    end = time.monotonic() + seconds
    draw = random.Random(7)

    async def call() -> None:
        caller: _Caller | None = None
        while time.monotonic() < end:
            leaves = way is Way.LEAVE and draw.random() < LEAVES
            try:
                if caller is None or caller.transport is None:
                    _, caller = await asyncio.get_running_loop().create_connection(_Caller, "127.0.0.1", port)
                status = await caller.ask(request, size // 2 if leaves else None)
            except OSError:
                counts.failed += 1
                caller = None
                continue
            counts.answered += status == 200
            counts.failed += status != 200
            if leaves:
                counts.left += 1
                counts.left_bytes += size
            if leaves and caller.transport is not None:
                caller.transport.abort()
            elif way is Way.NEW and caller.transport is not None:
                caller.transport.close()
            if leaves or way is Way.NEW:
                caller = None
        if caller is not None and caller.transport is not None:
            caller.transport.close()

    await asyncio.gather(*(call() for _ in range(connections)))


def bytes_of(folder: Path) -> int:
    """Bytes of all files in a folder, but for the tables and the log that are of a fixed size."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(place, name)).st_size
            except OSError:  # it went just now
                continue
    return total


async def run(
    urls: dict[int, str], *, seconds: float, connections: int, headers: str, workers: int, python: str
) -> Outcome:
    """One gateway's run, and its end."""
    counts, most_files = Counts(), 0
    with gateway(urls, workers=workers, python=python) as server:
        before = bytes_of(server.folder)

        async def watch() -> None:
            nonlocal most_files
            while True:
                most_files = max(most_files, sum(each.num_fds() for each in server.tree()))
                await asyncio.sleep(WATCH_SECONDS)

        watching = asyncio.create_task(watch())
        ways = list(Way)
        each = seconds / (len(SIZES) * len(ways))
        for way in ways:
            for size in SIZES:
                ask = generation(str(size))
                await phase(server.url, ask, way, connections=connections, seconds=each, headers=headers, counts=counts)
        watching.cancel()
        peak = server.peak()
        stop_seconds, code = await asyncio.to_thread(stopped, server)
        bytes_left = bytes_of(server.folder) - before
    return Outcome(
        counts=counts, peak=peak, bytes_left=bytes_left, files=most_files, stop_seconds=stop_seconds, exit_code=code
    )


def stopped(server: Process) -> tuple[float, int]:
    """How long SIGTERM takes, and the exit code."""
    began = time.monotonic()
    server.root.send_signal(signal.SIGTERM)
    code = server.wait()
    return time.monotonic() - began, code


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.world", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each of the two runs")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--python", default=sys.executable, help="that of another installation, to compare")
    asked = parser.parse_args()
    allow_many_files()
    outcomes = []
    with provider(*SIZES) as urls:
        for name, headers in (("plain", ""), ("SDK", SDK_HEADERS)):
            outcome = asyncio.run(
                run(
                    urls,
                    seconds=asked.seconds,
                    connections=asked.connections,
                    headers=headers,
                    workers=asked.workers,
                    python=asked.python,
                )
            )
            outcomes.append(outcome)
            counts = outcome.counts
            print(
                f"{name:6} {counts.answered:,} answers, {counts.failed:,} failed; peak {outcome.peak:.0f} MB; "
                f"{outcome.files} files; {counts.left} left ({counts.left_bytes / 1e6:.1f} MB), on disk "
                f"{outcome.bytes_left / 1e6:.1f} MB; SIGTERM {outcome.stop_seconds:.2f} s, exit {outcome.exit_code}",
                flush=True,
            )
    plain, sdk = outcomes
    held = {
        "no error": sdk.counts.failed == 0,
        f"memory within {MOST_MEMORY:g} times": sdk.peak <= MOST_MEMORY * plain.peak,
        f"at most {MOST_BYTES_LEFT / 1e6:g} MB beyond the answers that were not read": (
            sdk.bytes_left - sdk.counts.left_bytes <= MOST_BYTES_LEFT
        ),
        "SIGTERM exits with 0": sdk.exit_code == 0,
    }
    for name, met in held.items():
        print(f"{name}: {'held' if met else 'MISSED'}")
    return int(not all(held.values()))


if __name__ == "__main__":
    sys.exit(main())
