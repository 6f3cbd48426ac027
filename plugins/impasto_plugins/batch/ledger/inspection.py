"""A look at a folder's ledger without a run."""

from __future__ import annotations

import fcntl
import os

from impasto import ConfigError

from .evidence import check_links
from .log import UntrustedLedger
from .workspace import LedgerHistory, WorkspacePaths, read_trusted, unusable_folder


def inspect_history(layout: WorkspacePaths, levels: int, *, start_over: bool) -> LedgerHistory:
    """Return a folder's history without creating the folder. Raises ConfigError if it could not be created."""
    place = layout.root
    while not place.exists() and place.parent != place:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ConfigError(
            f"can't create {str(layout.root)!r}: {str(place)!r} is not a writable folder; give another one"
        )
    try:
        check_links(layout, levels)
        return read_trusted(layout)
    except UntrustedLedger:
        if not start_over:
            raise
        return LedgerHistory(layout, is_started_over=True)
    except OSError as error:
        raise unusable_folder(layout, error) from None


def is_running(layout: WorkspacePaths) -> bool:
    """Return True if a process works in a folder."""
    try:
        lock = os.open(layout.lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
