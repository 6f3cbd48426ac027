"""The edge of every command: whatever happens inside, it ends with one message and an exit code, never a traceback."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, TextIO

import click

from impasto_plugins.cli.entry import INTERRUPTED

_ENCODING_ERRORS = "impasto.output"


def run(command: Callable[[], object]) -> NoReturn:
    """Run a command that ends with SystemExit, and end the process with its exit code, or 1 if it broke."""
    _occupy_closed_descriptors()
    _accept_any_text()
    reported = False
    try:
        command()
        code: object = 0
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        _report("\nInterrupted.")
        code = INTERRUPTED
    except OSError as error:
        if error.errno != errno.EPIPE:  # the reader has left: nobody wants to know
            _report(f"Error: {_click_error_text(error)}")
        code, reported = 1, True
    except BaseException as error:  # noqa: BLE001 - a fault of ours or of a plugin; the message says where
        _report(f"Error: {_fault(error)}")
        code = 1
    output_error = _flush()
    if output_error is not None and not reported:
        if output_error.errno != errno.EPIPE and code in (0, None):
            _report(f"Error: the output could not be written: {output_error.strerror}")
        code = code or 1
    sys.exit(code)  # type: ignore[arg-type]  # whatever a command's SystemExit carries


def _occupy_closed_descriptors() -> None:
    """Open the null device in place of a closed stdin, stdout or stderr: else the next file opened takes its place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _accept_any_text() -> None:
    """Let stdout take names that are not UTF-8 as they are, and other text that it can't encode escaped."""
    codecs.register_error(_ENCODING_ERRORS, _encode)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ENCODING_ERRORS)


def _encode(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    try:
        return text.encode("ascii", "surrogateescape"), error.end
    except UnicodeEncodeError:
        return text.encode("ascii", "backslashreplace"), error.end


def _click_error_text(error: OSError) -> str:
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{place}{error.strerror or str(error) or type(error).__name__}"


def _fault(error: BaseException) -> str:
    """Describe an unexpected error for a report to the author of the code that raised it."""
    place, trace = "", error.__traceback__
    while isinstance(trace, TracebackType):
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module != __name__ and not module.startswith(("click.", "asyncio.")):
            place = f" in {module}, line {trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, MemoryError):
        return f"out of memory{place}"
    from impasto.ext import describe_error  # only on the way to an error

    name, _, text = describe_error(error).partition(": ")
    text = f": {text}" if text else ""
    return f"unexpected {name}{place}{text}\nThis is a fault in the program; please report it."


def _report(message: str) -> None:
    with suppress(OSError, ValueError):  # stderr can't be written either: the exit code is all that is left
        click.echo(message, err=True)


def _flush() -> OSError | None:
    """Write the rest of the streams' buffers. A stream that fails goes to the null device, so that it fails once."""
    first_error = None
    streams: tuple[tuple[TextIO | None, int], ...] = ((sys.stdout, 1), (sys.stderr, 2))
    for stream, descriptor in streams:
        if stream is None:  # closed before Python began
            continue
        try:
            stream.flush()
        except ValueError:  # a plugin closed it
            continue
        except OSError as error:
            first_error = first_error or error
            _discard(stream, descriptor)
    return first_error


def _discard(stream: TextIO, descriptor: int) -> None:
    with suppress(OSError, ValueError):
        if stream.fileno() == descriptor:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
