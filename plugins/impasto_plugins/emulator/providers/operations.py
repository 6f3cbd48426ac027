"""The installed operations that an emulated provider serves."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

from impasto import Operation, Registry, RegistryError
from impasto.ext import OPERATIONS, is_pattern

_log = logging.getLogger("impasto")


def load_operations(prefix: str, registry: Registry | None = None) -> Iterator[tuple[str, Operation]]:
    """Yield names that begin with ``prefix`` and their operations, whose modules are imported.

    Operations of other distributions are served only if they are imported already, or allowed by name: importing every
    installed one would run code that nobody calls.
    """
    registry = registry or Registry()
    skipped_names = {
        name
        for name, points in registry.scan.declarations.get(OPERATIONS, {}).items()
        for point in points
        if not point.owner.is_own and registry.allowed.names is None and point.entry.module not in sys.modules
    }
    for name in registry.names(OPERATIONS):
        if not name.startswith(prefix) or name in skipped_names or is_pattern(name):
            continue
        try:
            yield name, registry.operation(name)
        except RegistryError as error:
            _log.warning("the emulator does not serve %s: %s", name, error)
