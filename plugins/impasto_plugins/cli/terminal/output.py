"""A command's own output, which plugins can't reach, and the terminal behind it, if there is one."""

from __future__ import annotations

import io
import os
import shutil
import sys
from contextlib import suppress
from typing import TextIO

import click

_NO_LIMIT = 10_000

_protected: dict[str, TextIO | None] = {}
"""The command's own streams, once plugins may run."""


def protect_output() -> None:
    """Lead whatever else prints in this process to standard error: only ``echo`` reaches standard output from now on.

    Called before a command lets plugins run, until the end of the process. They may print in Python, in C or in a
    process of their own, and may close or replace ``sys.stdout`` and ``sys.stderr``. Does nothing where standard
    output is not this process's own descriptor, as in tests that capture it.
    """
    if _protected or not _has_descriptor(sys.stdout, 1):
        return
    sys.stdout.flush()
    _protected["stdout"] = _private(sys.stdout)
    _protected["stderr"] = _private(sys.stderr) if _has_descriptor(sys.stderr, 2) else sys.stderr
    os.dup2(2, 1)


def _has_descriptor(stream: TextIO | None, descriptor: int) -> bool:
    with suppress(OSError, ValueError):  # a stream in memory, or a closed one
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor
    return False


def _private(stream: TextIO) -> TextIO:
    return open(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors=stream.errors)


def stdout() -> TextIO | None:
    """Return the stream of the command's output; None if it was closed before the start."""
    return _protected.get("stdout", sys.stdout)


def stderr() -> TextIO | None:
    """Return the stream of the command's messages; None if it was closed before the start."""
    return _protected.get("stderr", sys.stderr)


def echo(message: object = None, *, err: bool = False, nl: bool = True) -> None:
    """Print a message to the command's own output, or messages with ``err``. Raises OSError."""
    stream = stderr() if err else stdout()
    if stream is not None:
        click.echo(message, file=stream, nl=nl)


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 image`` or ``2,000 images``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def is_terminal(stream: TextIO | None) -> bool:
    """Return True if a person reads the stream. A stream that was closed before the start is None."""
    return stream is not None and stream.isatty()


def columns() -> int:
    """Return the terminal's width; without a terminal lines have no limit."""
    stream = stdout()
    with suppress(OSError, ValueError):
        if not os.environ.get("COLUMNS") and stream is not None:
            return os.get_terminal_size(stream.fileno()).columns or _NO_LIMIT
    return shutil.get_terminal_size((_NO_LIMIT, 24)).columns
