"""The bucket of a gateway: what its start and ``--check`` say about it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from impasto.ext import StateError
from impasto_plugins.transports.s3 import S3Clients

from .config.model import Config, InvalidConfig
from .state import state_store
from .storage.contents import StoreError
from .storage.pair import BucketPair
from .storage.places import Places
from .storage.s3 import S3Store

_SETTING = "files.s3"

_log = logging.getLogger("impasto.gateway")


async def open_bucket(config: Config, places: Places) -> None:
    """Use the bucket for the first time. One that is away is logged: it may come later. Raises InvalidConfig."""
    try:
        if isinstance(places.images, S3Store):
            await places.images.check()
        await places.outcomes.check()
    except StoreError as error:
        if error.is_permanent:
            raise InvalidConfig.of(config, _SETTING, str(error)) from None
        _log.error("%s", error)


async def check_bucket(config: Config, images: S3Store) -> list[str]:
    """Return a warning if the bucket is away now. Changes nothing. Raises InvalidConfig, as a start would."""
    try:
        await images.check()
        if config.has_shared_state:
            state = await asyncio.to_thread(state_store, config)
            try:
                with suppress(StateError):  # reported with its own setting
                    await BucketPair(images.objects, state, needs_conditions=False).compare()
            finally:
                await state.aclose()
    except StoreError as error:
        if error.is_permanent:
            raise InvalidConfig.of(config, _SETTING, str(error)) from None
        return [f"{error}; the gateway starts all the same"]
    return []


async def pair_with_state(config: Config) -> None:
    """Let the bucket and the store of state belong together from now on. Raises ConfigError, StateError, StoreError."""
    if config.files.s3 is None or not config.has_shared_state:
        raise InvalidConfig(config.source, [(0, "files.s3 and a general_settings.state that is a URL make a pair")])
    state = await asyncio.to_thread(state_store, config)
    try:
        async with S3Clients() as clients:
            images = await S3Store.open(config.files.s3, config.files.seconds, clients)
            await BucketPair(images.objects, state, needs_conditions=False).renew()
    finally:
        await state.aclose()
