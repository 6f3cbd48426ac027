"""An answer on its way: it becomes known here if its caller read it.

An SDK whose connection broke before it had read an answer asks again, and must not pay again: such an answer is kept
for the retry. An answer that was read costs nothing more. HTTP does not report which of the two happened, TCP does:

- read: the caller sends more on the connection, or leaves it open for a while after it acknowledged every byte, or
  closes it (FIN) after it acknowledged every byte. A socket that is closed with bytes that nobody read sends a reset.
- not read: the connection is reset, or it ends or stands still before every byte is acknowledged.

A FIN alone proves too little in two cases. Some clients (anyio's sockets, so OpenAI's asynchronous SDK) end their half
first and close just after that: the reset follows the FIN. And a client whose time-out ends just as the answer comes
may drop what its event loop has already read.
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
"""How long a client may take to hang up on an answer that came as its time-out ended. Its retry comes later."""

RESET_SECONDS = 0.05
"""How long after a FIN a reset may follow it."""

STALL_SECONDS = 5.0
"""How long a caller who stays may acknowledge nothing of an answer."""

_COUNT = struct.Struct("i")
_SO_NWRITE = 0x1024  # macOS: bytes in the send buffer; Python has no name for it


class Delivery:
    """One answer that is written. ``decided`` is called once: with True if it was read, else with False.

    ``gave_up``: the caller's own time-out was about to end when the answer came, so a FIN proves nothing.
    """

    def __init__(self, wire: asyncio.Transport, decided: Callable[[bool], object], *, gave_up: bool) -> None:
        self._wire = wire
        self._decided: Callable[[bool], object] | None = decided
        self._gave_up = gave_up
        self._since = time.monotonic()
        self._left = 0
        """Bytes that were not acknowledged when somebody looked last."""
        self._caller_ended = False
        self.own_end = False
        """True if this side has sent its own FIN, which counts as a byte until it is acknowledged."""

    def went_on(self) -> None:
        """Take note that the caller sent more: if it did not send that ahead, it has read the answer."""
        if not self._unacknowledged():
            self._decide(True)

    def ended(self) -> None:
        """Take note of the caller's FIN."""
        self._caller_ended, self._since = True, time.monotonic()

    def lost(self, error: BaseException | None) -> None:
        """Take note that the connection is gone: without an error this side closed it."""
        self._decide(error is None and not self._unacknowledged())

    def give_up(self) -> None:
        """Decide now: what is not known to be read counts as not read."""
        self._decide(False)

    def look(self, now: float) -> None:
        """Decide if it can be decided by now."""
        left = self._unacknowledged()
        if left < self._left and not self._caller_ended:  # it moves, however slowly
            self._since = now
        self._left = left
        waited = now - self._since
        if self._caller_ended:
            if self._gave_up or self._is_reset() or (left and waited >= LINGER_SECONDS):
                self._decide(False)
            elif not left and waited >= RESET_SECONDS:
                self._decide(True)
        elif waited >= (STALL_SECONDS if left else LINGER_SECONDS):
            self._decide(not left)

    @property
    def is_doubtful(self) -> bool:
        """True if the caller may be gone, so that a retry must wait for the decision."""
        return self._caller_ended or (self._left > 0 and time.monotonic() - self._since >= LINGER_SECONDS)

    def _decide(self, read: bool) -> None:
        decided, self._decided = self._decided, None  # which holds the answer, and this
        if decided is not None:
            decided(read)

    def _unacknowledged(self) -> int:
        """Bytes of the answer that the caller's system has not acknowledged."""
        try:
            sent = _in_send_queue(self._wire.get_extra_info("socket"))
        except (OSError, ValueError):  # the socket is closed: nobody knows
            sent = 1
        return self._wire.get_write_buffer_size() + max(0, sent - self.own_end)

    def _is_reset(self) -> bool:
        """True if a reset came after the FIN, from when on asyncio does not read any more."""
        poll = select.poll()
        try:
            poll.register(self._wire.get_extra_info("socket").fileno(), 0)
            return any(event & select.POLLERR for _, event in poll.poll(0))
        except (OSError, ValueError):
            return True


def _in_send_queue(sock: socket.socket) -> int:
    """Bytes that were sent, or are to be sent, and are not acknowledged."""
    if sys.platform == "linux":
        return int(_COUNT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_COUNT.size)))[0])
    if sys.platform == "darwin":
        return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    return 0  # unknown systems: what was handed to the system counts as acknowledged
