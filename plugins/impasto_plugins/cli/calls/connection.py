"""The options of a command that say how to reach a provider, as the settings of a client."""

from __future__ import annotations

import os
from typing import TypedDict

from impasto import ConfigError
from impasto.ext import Settings, check_base_url

EMULATOR_POLL_SECONDS = 0.5


class ConnectionOptions(TypedDict):
    """The options that ``options.connection_options`` adds to a command."""

    timeout: float | None
    api_base: str | None
    emulator: bool
    transport: str | None
    middleware: tuple[str, ...]


def settings_of(options: ConnectionOptions, provider: str) -> Settings:
    """Return the settings of a client for this provider. Raises ConfigError."""
    settings = shared_settings(options)
    if options["api_base"] is not None:
        settings["providers"] = {provider: {"api_base": check_base_url(options["api_base"])}}
    return settings


def shared_settings(options: ConnectionOptions) -> Settings:
    """Return the settings for any provider, without ``api_base``. Raises ConfigError."""
    settings: Settings = {"middleware": options["middleware"]}
    if options["transport"] is not None:
        settings["transport"] = options["transport"]
    if options["timeout"] is not None:
        settings["timeout"] = options["timeout"]
    if options["emulator"]:
        if options["api_base"] is not None:
            raise ConfigError("give --api-base or --emulator, not both")
        if options["transport"] is not None:
            raise ConfigError("give --transport or --emulator, not both")
        settings["transport"] = "emulator"
        if "IMPASTO_POLL_INTERVAL" not in os.environ:
            settings["poll_interval"] = EMULATOR_POLL_SECONDS
    return settings
