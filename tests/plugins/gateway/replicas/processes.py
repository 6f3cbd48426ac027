"""Replicas of a gateway: processes with a data directory each, one database and one bucket, behind a balancer."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread
from typing import Self
from unittest.mock import patch

import attrs

from impasto_plugins.cli.main import main
from tests.campaigns.victim import nursery

LEASE = 1.5
"""Seconds of the leases of a replica."""


def run(config: Path, port: int, environment: Mapping[str, str], log: Path) -> None:
    """Run ``impasto serve`` in the child process, with short times."""
    os.environ.update(environment)
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    gateway, shared = "impasto_plugins.gateway", "impasto_plugins.batch.shared"
    with ExitStack() as stack:
        for name, value in {
            f"{gateway}.batches.replicas.lease.LEASE_SECONDS": LEASE,
            f"{gateway}.batches.scheduler.WATCH_SECONDS": 0.2,
            f"{gateway}.batches.scheduler.RETRY_SECONDS": 0.5,
            f"{gateway}.batches.job.TICK_SECONDS": 0.2,
            f"{shared}.hosts.LEASE_SECONDS": LEASE,
            f"{shared}.hosts._TOLERANCE": LEASE / 3,
            f"{shared}.session.SYNC_SECONDS": 0.3,
            f"{shared}.segments.FLUSH_SECONDS": 0.1,
        }.items():
            stack.enter_context(patch(name, value))
        main(["serve", "--config", str(config), "--port", str(port)], prog_name="impasto")


@attrs.define(eq=False)
class Replica:
    """One of the gateways. It has the same port after each start."""

    name: str
    config: Path
    folder: Path
    port: int
    process: ForkServerProcess | None = None
    _starts: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}-{self._starts}.log"

    def start(self) -> None:
        """Start it; ``wait`` waits until it serves."""
        self._starts += 1
        environment = {"XDG_STATE_HOME": str(self.folder / self.name), "PYTHONUNBUFFERED": "1"}
        self.process = nursery.Process(target=run, args=(self.config, self.port, environment, self.log))
        self.process.start()

    def wait(self) -> None:
        """Wait until it serves."""
        assert self.process is not None
        end = time.monotonic() + 60
        while not self.log.exists() or "RUNNING on" not in self.log.read_text():
            assert self.process.is_alive(), self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it with SIGKILL, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process.close()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        os.kill(self.process.pid or 0, number)

    def terminate(self) -> None:
        """End it in peace."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        self.process.join(60)
        assert self.process.exitcode == 0, self.log.read_text()
        self.process.close()
        self.process = None


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


class Balancer:
    """A proxy that gives each connection to the next replica; one that does not listen is left out."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports, self._next = ports, 0
        self.port = free_port()
        self._is_away = False
        self._writers = set[asyncio.StreamWriter]()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._stop = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self
        raise AssertionError("the balancer does not listen")

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def go_away(self) -> None:
        """Close all connections, and each new one."""
        self._is_away = True
        for writer in tuple(self._writers):
            self._loop.call_soon_threadsafe(writer.close)

    def come_back(self) -> None:
        """Relay again."""
        self._is_away = False

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        await self._stop.wait()
        server.close()
        await asyncio.sleep(0)  # connections that came just now get their tasks, which close them
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError), closing(writer):
            for _ in () if self._is_away else self._ports:
                self._next += 1
                with suppress(OSError):
                    other, target = await asyncio.open_connection(
                        "127.0.0.1", self._ports[self._next % len(self._ports)]
                    )
                    self._writers |= {writer, target}
                    try:
                        await asyncio.gather(_copy(reader, target), _copy(other, writer))
                    finally:
                        target.close()
                        self._writers -= {writer, target}
                    return


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(1 << 16):
            target.write(piece)
            await target.drain()
    with suppress(OSError):
        target.write_eof()
