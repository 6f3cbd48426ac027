"""The console script. It imports the commands where a Ctrl-C is met: that alone may take a second on a busy machine."""

from __future__ import annotations

import sys
from typing import Any

INTERRUPTED = 130


def main(**options: Any) -> None:
    """Run the command line, with click's options. Ends the process."""
    try:
        from .main import main as command

        command(**options)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        sys.exit(INTERRUPTED)
