"""The console script. It imports the commands where a Ctrl-C is met: that alone may take a second on a busy machine."""

from __future__ import annotations

import atexit
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130


def main(**options: Any) -> None:
    """Run the command line, with click's options. Ends the process."""
    atexit.register(_release_streams)  # runs last, as the first one registered
    sys.unraisablehook = _report_ignored
    try:
        from .main import main as command

        command(**options)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        sys.exit(INTERRUPTED)


def _release_streams() -> None:
    """Flush the streams and let them go: Python's own flush would end with 120 if a plugin left a broken one."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a plugin's object; the command's own output is written already
            stream.flush()
    sys.stdout = sys.stderr = None  # as Python sets them where there are no streams


def _report_ignored(ignored: UnraisableHookArgs) -> None:
    """Report in one line an error that Python ignores: of a finalizer, or of a function for the end of the process."""
    from .terminal.boundary import report_ignored

    report_ignored(ignored.object, ignored.exc_value)
