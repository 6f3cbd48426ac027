"""A recorder for code that has no loop of its own, found by the functions as a user's environment says it."""

import asyncio
import threading
from collections.abc import Iterator

import attrs
import pytest

from impasto_plugins.emulator import SHORT, Emulator, serve
from tests.conftest import KEY
from tests.recorder import Recorder, recording


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A recorder in a thread, at STABILITY_API_BASE."""
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
    monkeypatch.setenv("STABILITY_API_BASE", recorder.url)
    monkeypatch.setenv("STABILITY_API_KEY", KEY)
    monkeypatch.setenv("IMPASTO_POLL_INTERVAL", "0.01")
    yield recorder
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator that refuses what the vendor would silently ignore, found as a user's environment says it."""
    with serve(attrs.evolve(SHORT, strict=True)) as running:
        monkeypatch.setenv("STABILITY_API_BASE", running.url)
        monkeypatch.setenv("STABILITY_API_KEY", KEY)
        monkeypatch.setenv("IMPASTO_POLL_INTERVAL", "0.05")
        yield running
