"""The installed and allowed models, from metadata alone: a configuration is checked before anything is imported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from impasto import ConfigError, Registry
from impasto.ext import OPERATIONS


class InstalledModels:
    """The models of plugins that ``general_settings.plugins`` allows."""

    def __init__(self, plugins: Sequence[str] | None) -> None:
        self._plugins = plugins

    @cached_property
    def models(self) -> frozenset[str]:
        """The names of models."""
        try:
            return frozenset(Registry(allow=self._plugins).names(OPERATIONS))
        except ConfigError:  # reported with the setting
            return frozenset()

    @cached_property
    def providers(self) -> frozenset[str]:
        """The providers of those models."""
        return frozenset(name.partition("/")[0] for name in self.models)
