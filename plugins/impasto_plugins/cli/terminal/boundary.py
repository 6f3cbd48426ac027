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

from impasto_plugins.cli.entry import INTERRUPTED

from .output import echo, stderr, stdout

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
        if error.errno != errno.EPIPE:  # the reader has left: there is nobody to report to
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
    place, owner, trace = "", "impasto", error.__traceback__
    plugins = _plugin_modules()
    while isinstance(trace, TracebackType):
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        owner = plugins.get(module.partition(".")[0], owner)
        if module != __name__ and not module.startswith(("click.", "asyncio.")):
            place = f" in {module}, line {trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, MemoryError):
        return f"out of memory{place}"
    return f"unexpected {_type_and_text(error, place)}\nThis is a fault in {owner}; please report it to its authors."


def _type_and_text(error: BaseException, place: str = "") -> str:
    from impasto.ext import describe_error  # only on the way to an error

    name, _, text = describe_error(error).partition(": ")
    return f"{name}{place}: {text}" if text else f"{name}{place}"


def _plugin_modules() -> dict[str, str]:
    """Return the top-level modules of other distributions' plugins, each with its distribution."""
    from impasto import Registry
    from impasto.ext import GROUPS
    from impasto_plugins.cli.declarations import declared

    try:
        registry = Registry()
        foreign = [each for group in GROUPS for each in declared(registry, group) if not each.is_own]
    except BaseException:  # noqa: BLE001 - a report about an error must not fail because of another one
        return {}
    return {each.value.partition(":")[0].partition(".")[0]: f"{each.distribution} {each.version}" for each in foreign}


def report_ignored(source: object, error: BaseException | None) -> None:
    """Report an error that Python ignores, in one line instead of a traceback."""
    try:
        name = f"{getattr(source, '__module__', '')}.{getattr(source, '__qualname__', type(source).__name__)}"
        text = _type_and_text(error) if error is not None else "unknown"
    except Exception:  # noqa: BLE001 - a plugin's object may fail on being described, and modules are going away
        return
    _report(f"Warning: an error in {name.removeprefix('.')} was ignored: {text}")


def _report(message: str) -> None:
    with suppress(OSError, ValueError):  # stderr can't be written either: only the exit code remains
        echo(message, err=True)


def _flush() -> OSError | None:
    """Write the rest of the streams' buffers, and return the error of standard output: a lost message fails nothing.

    A stream that fails goes to the null device, so that it fails once.
    """
    output_error = None
    for stream in (stdout(), stderr()):
        if stream is None:  # closed before Python began
            continue
        try:
            stream.flush()
        except ValueError:  # a command of another distribution closed it
            continue
        except OSError as error:
            output_error = error if stream is stdout() else output_error
            _discard(stream)
    return output_error


def _discard(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
