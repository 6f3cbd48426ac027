"""A recorder in a thread of its own, which may be slow without slowing the test's loop; and a port where nobody is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.recorder import Recorder, recording_in_thread


@pytest.fixture
def threaded() -> Iterator[Recorder]:
    with recording_in_thread() as recorder:
        yield recorder


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
