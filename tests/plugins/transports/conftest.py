"""A recorder in a thread of its own, which may be slow without slowing the test's loop; and a port where nobody is."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.recorder import Recorder, recording


@pytest.fixture
def threaded() -> Iterator[Recorder]:
    started = threading.Event()
    told: list[tuple[Recorder, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with recording() as recorder:
            stop = asyncio.Event()
            told.append((recorder, asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(60)
    recorder, loop, stop = told[0]
    yield recorder
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
