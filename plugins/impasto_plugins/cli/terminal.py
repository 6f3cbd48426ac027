"""What the command line writes to: a terminal, of some width, or none."""

from __future__ import annotations

import shutil
from typing import TextIO

_NO_END = 10_000


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads it. A stream that was closed before the start is None."""
    return stream is not None and stream.isatty()


def columns() -> int:
    """The terminal's width; where there is none, lines are as long as they like."""
    return shutil.get_terminal_size((_NO_END, 24)).columns
