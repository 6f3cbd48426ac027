"""A recorder for code that has no loop of its own, found by the functions as a user's environment says it."""

from collections.abc import Iterator

import attrs
import pytest

from impasto_plugins.emulator import SHORT, Emulator, serve
from tests.conftest import KEY
from tests.recorder import Recorder, recording_in_thread


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A recorder in a thread, at STABILITY_API_BASE."""
    with recording_in_thread() as recorder:
        monkeypatch.setenv("STABILITY_API_BASE", recorder.url)
        monkeypatch.setenv("STABILITY_API_KEY", KEY)
        monkeypatch.setenv("IMPASTO_POLL_INTERVAL", "0.01")
        yield recorder


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """An emulator that refuses what the vendor would silently ignore, found as a user's environment says it."""
    with serve(attrs.evolve(SHORT, strict=True)) as running:
        monkeypatch.setenv("STABILITY_API_BASE", running.url)
        monkeypatch.setenv("STABILITY_API_KEY", KEY)
        monkeypatch.setenv("IMPASTO_POLL_INTERVAL", "0.05")
        yield running
