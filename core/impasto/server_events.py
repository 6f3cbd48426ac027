"""Server-sent events as the WHATWG specifies them, read from bytes that are cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

EVENT_STREAM = "text/event-stream"
"""The media type of a stream of events."""

MAX_EVENT_BYTES = 64 * 2**20
"""Bytes of the largest event that is read: a base64 image of 48 MiB."""

_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One server-sent event: its name (``message`` if it has none) and its data."""

    event: str
    data: str


class EventTooLarge(ValueError):
    """An event has more bytes than are read."""


class EventParser:
    """Parses events from the pieces of a stream. What is unfinished at the stream's end is no event.

    The bytes of one event are held, and those of the one before.
    """

    def __init__(self) -> None:
        self._last = b""
        self._current = bytearray()
        self._line = bytearray()
        self._data = bytearray()
        self._event = b""
        self._is_first_line = True
        self._has_data = False
        self._after_cr = False

    @property
    def size(self) -> int:
        """The number of bytes of the last event, and of those after it."""
        return len(self._last) + len(self._current)

    @property
    def received(self) -> bytes:
        """The bytes of the last event, and those that came after it."""
        return self._last + self._current

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """Yield the events that a piece completes. Raises EventTooLarge."""
        if self._after_cr and piece[:1] == b"\n":  # the second half of a line's end
            piece = piece[1:]
            self._after_cr = False
        if not piece:
            return
        self._after_cr = piece.endswith(b"\r")
        for part in piece.splitlines(keepends=True):  # of bytes: CR, LF and CRLF alone end a line
            self._current += part
            if len(self._current) > MAX_EVENT_BYTES:
                raise EventTooLarge(f"an event of the answer is larger than {MAX_EVENT_BYTES:,} bytes")
            text = part.rstrip(b"\r\n")
            self._line += text
            if len(text) == len(part):
                return
            line, self._line = bytes(self._line), bytearray()
            if self._is_first_line:
                line, self._is_first_line = line.removeprefix(_BOM), False
            if line:
                self._take_field(line)
            elif (event := self._finish()) is not None:
                yield event

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")  # a comment has no name
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data += value + b"\n"
            self._has_data = True
        elif name == b"event":
            self._event = value

    def _finish(self) -> ServerEvent | None:
        data, event, has_data = self._data, self._event, self._has_data
        raw, self._current, self._data = self._current, bytearray(), bytearray()
        self._event, self._has_data = b"", False
        if not has_data:
            return None
        self._last = bytes(raw)
        return ServerEvent(event.decode("utf-8", "replace") or "message", data[:-1].decode("utf-8", "replace"))
