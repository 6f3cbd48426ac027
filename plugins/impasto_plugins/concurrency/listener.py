"""Listening sockets of a server that survives running out of descriptors or memory.

asyncio's own accept loop retries once for each place of the backlog when no descriptor is left, and logs a traceback
each time; aiohttp's sites use it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Sequence

from impasto import ConfigError
from impasto.ext import printable

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_AT_ONCE = 64
"""Connections accepted before the loop serves those that are open."""

PAUSE_SECONDS = 0.1
LOG_SECONDS = 1.0


class Listener:
    """Accepts connections on listening sockets, which it owns from the start to ``close``.

    When no descriptor or memory is left it pauses until some is free. Connections wait in the backlog meanwhile.
    """

    def __init__(
        self, sockets: Sequence[socket.socket], factory: Callable[[], asyncio.BaseProtocol], log: logging.Logger
    ) -> None:
        self._sockets = list(sockets)
        self._factory, self._log = factory, log
        self._loop = asyncio.get_running_loop()
        self._logged = -LOG_SECONDS
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._connecting: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Begin to accept."""
        for each in self._sockets:
            each.setblocking(False)
            self._resume(each)

    def close(self) -> None:
        """Stop accepting, and close the sockets. Calling it again does nothing."""
        for timer in self._pauses.values():
            timer.cancel()
        for each in self._sockets:
            self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    def _resume(self, listening: socket.socket) -> None:
        self._pauses.pop(listening, None)
        self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._report(error)
                if error.errno in _EXHAUSTED:
                    self._loop.remove_reader(listening)
                    self._pauses[listening] = self._loop.call_later(PAUSE_SECONDS, self._resume, listening)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError as error:  # it ended just now, or nothing is left to serve it with
            connection.close()
            self._report(error)

    def _report(self, error: OSError) -> None:
        """Log an error, at most one in ``LOG_SECONDS``."""
        now = time.monotonic()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            self._log.error("connections can't be accepted: %s; new ones wait", error.strerror or error)


def listen(host: str, port: int, backlog: int = 1024) -> socket.socket:
    """Return a socket that listens at an address; port 0 takes any. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=backlog)


def parse_bind_host(text: str) -> str:
    """Return the host of ``--host``, without the brackets of a URL. Raises ConfigError if it has no address."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") and ":" in text else text
    reason = "it is empty"
    if host.strip():
        try:
            socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            return host
        except OSError as error:
            reason = error.strerror or "it has no address"
        except UnicodeError:
            reason = "it is not a host name"
    raise ConfigError(
        f"can't listen on --host {printable(text)!r}: {reason}; give an address or a name of this machine, such as"
        " 127.0.0.1, ::1 or localhost"
    )
