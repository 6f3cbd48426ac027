"""The framing of a chunked body: nothing is let through that one of two readers could take for something else.

aiohttp has two parsers, in C and in Python, which differ in what they make of chunk extensions and of large sizes.
"""

from __future__ import annotations

import re

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}\r\n")
_LONGEST = 17

MOST_SMALL = 4_096
"""How many chunks of a body may have less than ``SMALL`` bytes: a megabyte in chunks of one byte takes seconds."""

SMALL = 64


class Chunks:
    """Follows the pieces of one body: each chunk must begin with its size alone. Trailers are the parser's."""

    def __init__(self) -> None:
        self._line = b""
        self._left = self._small = 0
        self._over = False

    def sound(self, data: bytes) -> bool:
        """Whether the next piece goes on as it must."""
        at, end = 0, len(data)
        while at < end and not self._over:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            feed = data.find(b"\n", at, at + _LONGEST)
            stop = end if feed < 0 else feed + 1
            self._line += data[at:stop]
            at = stop
            if feed < 0:
                return len(self._line) < _LONGEST
            if _SIZE.fullmatch(self._line) is None:
                return False
            size, self._line = int(self._line, 16), b""
            self._small += size < SMALL
            if self._small > MOST_SMALL:
                return False
            self._over = size == 0
            self._left = size + 2  # and the line's end behind it
        return True
