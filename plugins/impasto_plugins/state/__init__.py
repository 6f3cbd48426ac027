"""Stores of state that processes share: calls, budgets, files and batches.

sqlite    the default: a database in a folder, for the processes of one machine
periods   the arithmetic of budgets, for every store
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from impasto import Registry
from impasto.ext import STATES, StateStore

FOLDER_PLUGIN = "sqlite"
"""The plugin for addresses without a scheme."""

__all__ = ["state_of", "state_type"]


def state_type(address: str, registry: Registry) -> type[StateStore]:
    """Return the class of the store that an address belongs to. Raises RegistryError."""
    scheme = address.partition("://")[0].lower() if "://" in address else FOLDER_PLUGIN
    return cast("type[StateStore]", registry.load(STATES, scheme, type))


def state_of(
    address: str, registry: Registry, *, setting: str = "state", result_folders: Sequence[Path] = ()
) -> StateStore:
    """Return the store of an address: a folder, or a URL whose scheme names the plugin. Raises RegistryError.

    ``setting``, ``result_folders``: see StateStore.
    """
    return state_type(address, registry)(address, setting=setting, result_folders=result_folders)
