"""How long may an idle connection wait for its next paid request? ``python -m benchmarks.stale_connections``.

A server closes idle connections after 50 to 150 ms; the client's calls come after idle times of 0 to 300 ms. A
request that meets a connection as it is being closed is lost, and whether it was paid for is not known. ``delay``
is how long the news of a close travels: a server that has closed resets what arrives meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import struct
import sys
from asyncio.subprocess import PIPE

import attrs

import impasto
import impasto_plugins.transports.connections
from benchmarks.pictures import picture

CLOSES = (0.05, 0.15)
"""The least and most idle seconds after which the server closes."""

GAPS = (0.0, 0.3)
CALLERS = 50
PICTURE = picture(1_000, 64)
MODEL = "stability/stable-image-core"


@attrs.define
class Closing:
    """Answers each request, and closes what was idle for long."""

    delay: float
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n%s" % (len(PICTURE), PICTURE)
        idle = None  # a new connection is not idle
        try:
            while True:
                async with asyncio.timeout(idle):
                    top = await reader.readuntil(b"\r\n\r\n")
                length = int(top.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(answer)
                await writer.drain()
                idle = random.uniform(*CLOSES)
        except TimeoutError:
            await self._close(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _close(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Closed here; the other side learns it later, and what it sends until then is reset."""
        if self.delay:
            try:
                async with asyncio.timeout(self.delay):
                    came = await reader.read(1)
            except TimeoutError:
                return
            if came:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()


async def serve(delay: float) -> None:
    """Says its port, serves until its input ends, says how many connections there were."""
    server = Closing(delay)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1000)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(server.connections, flush=True)
    os._exit(0)  # connections that are still open are of no interest


async def lost(reused_for: float, delay: float, calls: int) -> tuple[int, int]:
    """Of so many calls, how many were lost, and how many connections were opened."""
    impasto_plugins.transports.connections.IDLE_SECONDS = reused_for
    failed = 0

    async def caller(url: str) -> None:
        nonlocal failed
        retry = impasto.Retry(attempts=1, refused=0)
        async with impasto.Client(api_key="sk-benchmark", api_base=url, retry=retry) as client:
            for _ in range(calls // CALLERS):
                await asyncio.sleep(random.uniform(*GAPS))
                try:
                    await client.run(MODEL, prompt="p")
                except impasto.ChargeUnknown:
                    failed += 1

    # In a process of its own: in ours it would share the loop whose lag matters.
    command = (sys.executable, "-m", "benchmarks.stale_connections", "--serve", str(delay))
    server = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(await server.stdout.readline())}"
    await asyncio.gather(*(caller(url) for _ in range(CALLERS)))
    server.stdin.close()
    connections = int(await server.stdout.readline())
    await server.wait()
    return failed, connections


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stale_connections", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--serve", type=float, metavar="DELAY", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve is not None:
        asyncio.run(serve(asked.serve))
    calls = asked.calls
    os.environ.pop("STABILITY_API_BASE", None)
    random.seed(1)
    print(f"{'reused for at most':>20} {'news takes':>11} {'lost of 10,000':>15} {'connections':>12}")
    for delay in (0.0, 0.02):
        for reused_for in (0.0, 0.025, 0.045, 0.07, 0.1, 0.3):
            failed, connections = asyncio.run(lost(reused_for, delay, calls))
            each = failed * 10_000 / calls
            print(f"{reused_for * 1000:>17.0f} ms {delay * 1000:>8.0f} ms {each:>15.1f} {connections:>12,}", flush=True)


if __name__ == "__main__":
    main()
