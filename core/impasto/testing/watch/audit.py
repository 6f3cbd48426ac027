"""A watch for calls of the operating system that block: files, names of hosts, connections, sleeps, processes.

The interpreter reports them itself (``sys.addaudithook``). A hook can't be removed, so there is one for the process,
and it returns at once unless a watch runs.
"""

from __future__ import annotations

import linecache
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest.mock import patch

_EVENTS = {
    "open": "opens a file",
    "os.listdir": "reads a folder",
    "os.scandir": "reads a folder",
    "os.mkdir": "writes to the disk",
    "os.remove": "writes to the disk",
    "os.rename": "writes to the disk",
    "sqlite3.connect": "opens a database",
    "socket.getaddrinfo": "looks up a host name",
    "socket.gethostbyname": "looks up a host name",
    "socket.connect": "connects to a host",
    "subprocess.Popen": "starts a process",
    "os.system": "starts a process",
    "os.posix_spawn": "starts a process",
}
_SHOWN_FRAMES = 4


class _Watch:
    def __init__(self) -> None:
        self.thread = 0
        self.found: list[str] = []


_watch = _Watch()
_installed = threading.Lock()


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _watch.thread or event not in _EVENTS or threading.get_ident() != _watch.thread:
        return
    if event == "open" and isinstance(args[0], int):  # a descriptor that is open already
        return
    if event == "socket.connect" and isinstance(args[0], socket.socket) and args[0].gettimeout() == 0:
        return
    _note(_EVENTS[event], sys._getframe(1))  # noqa: SLF001 - the documented way to the caller's frame


def _note(what: str, frame: FrameType) -> None:
    thread, _watch.thread = _watch.thread, 0  # the places are read from files
    if not _reads_code(frame):
        place = "".join(traceback.format_list(traceback.extract_stack(frame)[-_SHOWN_FRAMES:]))
        _watch.found.append(f"it {what} on the loop's thread:\n{place}")
    _watch.thread = thread


def _reads_code(frame: FrameType | None) -> bool:
    """Return True within an import or a traceback: code is read once, and tracebacks show its lines."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or name == linecache.__file__:
            return True
        frame = frame.f_back
    return False


@contextmanager
def blocking_calls() -> Iterator[list[str]]:
    """Collect the blocking calls of this thread for a block, each with its place."""
    if _installed.acquire(blocking=False):
        sys.addaudithook(_hook)
    _watch.found, _watch.thread = [], threading.get_ident()
    sleep, stat = time.sleep, os.stat

    def noted_sleep(seconds: float) -> None:  # its own audit event is as new as Python 3.13
        if threading.get_ident() == _watch.thread:
            _note("sleeps", sys._getframe(1))  # noqa: SLF001 - as above
        sleep(seconds)

    def noted_stat(path: Any, **options: Any) -> os.stat_result:  # it has no audit event
        if threading.get_ident() == _watch.thread and not isinstance(path, int):
            _note("looks for a file", sys._getframe(1))  # noqa: SLF001 - as above
        return stat(path, **options)

    try:
        with patch("time.sleep", noted_sleep), patch("os.stat", noted_stat):
            yield _watch.found
    finally:
        _watch.thread = 0
