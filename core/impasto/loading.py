"""Imports plugins: whatever a plugin's module does breaks only itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .distributions import VARIABLE, Declaration
from .plugin_boundary import plugin_boundary

_used: set[tuple[str, str, str]] = set()
"""Other distributions' plugins that this process has used: folder, group and name."""


def _report_first_use(point: Declaration) -> None:
    """Log once in a process that somebody else's code is about to run here."""
    import logging  # only for those who use other people's plugins

    entry, owner = point
    key = owner.path, entry.group, entry.name
    if key not in _used:
        _used.add(key)
        kind = entry.group.removeprefix("impasto.").removesuffix("s")
        logging.getLogger("impasto").info("first use of %s %r, of the distribution %s", kind, entry.name, owner)


SLOW_IMPORT_SECONDS = 10.0


@contextmanager
def _reporting_slow_import(point: Declaration) -> Iterator[None]:
    """Log which plugin it is that keeps everybody waiting: an import can't be stopped from outside."""
    import logging
    import threading

    entry, owner = point
    message = "%r of %s is still being imported after %g s (%s); to exclude it, set %s to names without it, or to none"
    arguments = (message, entry.name, owner, SLOW_IMPORT_SECONDS, entry.value, VARIABLE)
    timer = threading.Timer(SLOW_IMPORT_SECONDS, logging.getLogger("impasto").warning, arguments)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def load(point: Declaration) -> object:
    """Import a plugin. Raises RegistryError, whatever its module does, and other errors of impasto that it raises."""
    entry, owner = point
    with plugin_boundary(f"{entry.name!r} of {owner} failed to load ({entry.value})"):
        if not owner.is_own:
            _report_first_use(point)
        if owner.is_own or entry.module in sys.modules:  # nothing to wait for; the watch costs a thread
            return entry.load()
        with _reporting_slow_import(point):
            return entry.load()
