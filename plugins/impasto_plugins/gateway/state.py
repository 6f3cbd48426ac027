"""The store of the gateway's records: where it is, and what its start and ``--check`` say about it."""

from __future__ import annotations

import asyncio
import logging

from impasto import ConfigError, Registry
from impasto.ext import StateStore, check_store, open_store, state_of

from .batches.scheduler import RUNS
from .calls.runtime import batches_folder, data_folder
from .config.model import Config, InvalidConfig
from .storage.places import OUTCOMES

_STATE, _DATA_DIR = "general_settings.state", "general_settings.data_dir"

_log = logging.getLogger("impasto.gateway")


def state_store(config: Config) -> StateStore:
    """Return the store: that of a URL, or of the data directory. Raises InvalidConfig, RegistryError."""
    data, url = data_folder(config), config.general.state
    address, setting = str(data), _DATA_DIR
    if url is not None and "://" in url:
        address, setting = url, _STATE
    results = (data / OUTCOMES, batches_folder(config) / RUNS)
    try:
        return state_of(address, Registry(allow=config.plugins), setting=setting, result_folders=results)
    except ConfigError as error:
        raise InvalidConfig.of(config, _STATE, error.message) from None


async def open_state(config: Config, store: StateStore) -> None:
    """Open the store at the start. One that is away is logged: it may come later. Raises InvalidConfig."""
    try:
        away = await open_store(store)
    except ConfigError as error:
        raise InvalidConfig.of(config, _STATE, error.message) from None
    if away is not None:  # calls that need no record are served; the others are refused
        _log.error("%s", away)


async def check_state(config: Config) -> list[str]:
    """Return a warning if the store of a URL is away now. Changes nothing. Raises InvalidConfig, as a start would."""
    if not config.has_shared_state:
        return []
    try:
        away = await check_store(await asyncio.to_thread(state_store, config))
    except InvalidConfig:
        raise
    except ConfigError as error:
        raise InvalidConfig.of(config, _STATE, error.message) from None
    return [] if away is None else [f"{away}; the gateway starts all the same, and is ready once it is there"]
