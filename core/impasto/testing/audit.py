"""A watch for calls of the operating system that block: files, names of hosts, connections, sleeps, processes.

The interpreter reports them itself (``sys.addaudithook``). A hook can't be removed, so there is one for the process,
and it returns at once unless a watch runs.
"""

from __future__ import annotations

import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_EVENTS = {
    "open": "opens a file",
    "os.listdir": "reads a folder",
    "os.scandir": "reads a folder",
    "os.mkdir": "writes to the disk",
    "os.remove": "writes to the disk",
    "os.rename": "writes to the disk",
    "sqlite3.connect": "opens a database",
    "time.sleep": "sleeps",
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
    frame = sys._getframe(1)  # noqa: SLF001 - the documented way to the caller's frame
    if not _is_import(frame):
        place = "".join(traceback.format_list(traceback.extract_stack(frame)[-_SHOWN_FRAMES:]))
        _watch.found.append(f"it {_EVENTS[event]} on the loop's thread:\n{place}")


def _is_import(frame: FrameType | None) -> bool:
    """Return True within an import: a module that is loaded at its first use is read once."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def blocking_calls() -> Iterator[list[str]]:
    """Collect the blocking calls of this thread for a block, each with its place."""
    if _installed.acquire(blocking=False):
        sys.addaudithook(_hook)
    _watch.found, _watch.thread = [], threading.get_ident()
    try:
        yield _watch.found
    finally:
        _watch.thread = 0
