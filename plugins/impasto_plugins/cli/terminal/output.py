"""The terminal that the command line writes to, if there is one."""

from __future__ import annotations

import shutil
from typing import TextIO

_NO_END = 10_000


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if a person reads the stream. A stream that was closed before the start is None."""
    return stream is not None and stream.isatty()


def columns() -> int:
    """Return the terminal's width; without a terminal lines have no limit."""
    return shutil.get_terminal_size((_NO_END, 24)).columns
