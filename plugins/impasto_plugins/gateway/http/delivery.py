"""The delivery of a response: decides if its caller read it.

An SDK whose connection broke before it had read a response asks again, and must not pay again: such a response is
stored for the retry. A response that was read costs nothing more. HTTP does not report which of the two happened, TCP
does:

- read: the caller sends more on the connection, or leaves it open for a while after it acknowledged every byte, or
  closes it (FIN) after it acknowledged every byte. A socket that is closed with unread bytes sends a reset.
- not read: the connection is reset, or it ends or stands still before every byte is acknowledged.

A FIN alone proves too little in two cases. Some clients (anyio's sockets, so OpenAI's asynchronous SDK) end their half
first and close just after that: the reset follows the FIN. And a client whose time-out ends just as the response comes
may drop bytes that its event loop has already read.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable

LINGER_SECONDS = 0.2
"""Seconds for a client to close after a response that came as its time-out ended. Its retry comes later."""

RESET_SECONDS = 0.05
"""Seconds after a FIN in which a reset may follow."""

STALL_SECONDS = 5.0
"""Seconds for which a connected caller may acknowledge nothing of a response."""

_COUNT = struct.Struct("i")
_SO_NWRITE = 0x1024  # macOS: bytes in the send buffer; Python has no name for it


class Delivery:
    """One response that is being sent. ``on_decided`` is called once: with True if it was read, otherwise with False.

    ``gave_up``: the caller's own time-out was about to end when the response came, so a FIN proves nothing.
    """

    def __init__(self, wire: asyncio.Transport, on_decided: Callable[[bool], object], *, gave_up: bool) -> None:
        self._wire = wire
        self._on_decided: Callable[[bool], object] | None = on_decided
        self._gave_up = gave_up
        self._last_event = time.monotonic()
        self._unacknowledged_bytes = 0
        """Bytes without an acknowledgement at the last check."""
        self._peer_closed = False
        self.fin_sent = False
        """True if this side has sent its own FIN, which counts as a byte until it is acknowledged."""

    def on_data(self) -> None:
        """Note that the caller sent more: unless it was sent ahead, the caller has read the response."""
        if not self._count_unacknowledged():
            self._decide(True)

    def on_eof(self) -> None:
        """Note the caller's FIN."""
        self._peer_closed, self._last_event = True, time.monotonic()

    def on_connection_lost(self, error: BaseException | None) -> None:
        """Note that the connection is gone; without an error this side closed it."""
        self._decide(error is None and not self._count_unacknowledged())

    def give_up(self) -> None:
        """Decide now: without proof the response counts as not read."""
        self._decide(False)

    def update(self, now: float) -> None:
        """Decide if the evidence suffices."""
        pending_bytes = self._count_unacknowledged()
        if pending_bytes < self._unacknowledged_bytes and not self._peer_closed:  # it moves, however slowly
            self._last_event = now
        self._unacknowledged_bytes = pending_bytes
        elapsed = now - self._last_event
        if self._peer_closed:  # its FIN alone proves too little: see the module's docstring
            if self._gave_up or self._is_reset() or (pending_bytes and elapsed >= LINGER_SECONDS):
                self._decide(False)
            elif not pending_bytes and elapsed >= RESET_SECONDS:
                self._decide(True)
        elif elapsed >= (STALL_SECONDS if pending_bytes else LINGER_SECONDS):
            self._decide(not pending_bytes)

    @property
    def is_uncertain(self) -> bool:
        """True if the caller may be gone, so that a retry must wait for the decision."""
        return self._peer_closed or (
            self._unacknowledged_bytes > 0 and time.monotonic() - self._last_event >= LINGER_SECONDS
        )

    def _decide(self, is_read: bool) -> None:
        on_decided, self._on_decided = self._on_decided, None  # which holds the answer, and this
        if on_decided is not None:
            on_decided(is_read)

    def _count_unacknowledged(self) -> int:
        """Bytes of the answer that the caller's system has not acknowledged."""
        try:
            queued_bytes = _send_queue_bytes(self._wire.get_extra_info("socket"))
        except (OSError, ValueError):  # the socket is closed: nobody knows
            queued_bytes = 1
        return self._wire.get_write_buffer_size() + max(0, queued_bytes - self.fin_sent)

    def _is_reset(self) -> bool:
        """Return True if a reset came after the FIN, after which asyncio does not read any more."""
        poll = select.poll()
        try:
            poll.register(self._wire.get_extra_info("socket").fileno(), 0)
            return any(event & select.POLLERR for _, event in poll.poll(0))
        except (OSError, ValueError):
            return True


def _send_queue_bytes(sock: socket.socket) -> int:
    """Bytes that were sent, or are to be sent, and are not acknowledged."""
    if sys.platform == "linux":
        return int(_COUNT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_COUNT.size)))[0])
    if sys.platform == "darwin":
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    return 0  # unknown systems: what was handed to the system counts as acknowledged
