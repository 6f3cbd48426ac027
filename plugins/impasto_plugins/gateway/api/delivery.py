"""What a caller is shown of a call's outcome: pictures inline, or at URLs that are good."""

from __future__ import annotations

import logging
from itertools import zip_longest

import attrs

from impasto_plugins.gateway.calls.execution import Done
from impasto_plugins.gateway.idempotency.store import Row
from impasto_plugins.gateway.storage.local import NotKept, keep_all

from .context import Exchange
from .response_body import Made, Picture

_log = logging.getLogger("impasto.gateway")


async def shown(done: Done, *, replayed: bool = False) -> Made:
    """The outcome with its pictures looked at."""
    pictures = [await Picture.of(artifact, url) for artifact, url in zip_longest(done.artifacts, done.urls)]
    return Made(done, pictures, replayed)


async def shown_again(exchange: Exchange, row: Row, done: Done) -> Made:
    """The same of a call that was written down: where its URLs are good no more, it gets others."""
    if row.response_format == "url" and not await _is_served(exchange, done):
        done = await addressed(exchange, done)
        await exchange.services.repeats.kept.update(row, done)
    return await shown(done, replayed=True)


async def _is_served(exchange: Exchange, done: Done) -> bool:
    if exchange.services.data.clock() >= done.urls_end:
        return False
    try:
        return all([await exchange.setup.store.holds(name) for name in done.names])
    except NotKept:  # it is told where it is kept anew
        return False


async def addressed(exchange: Exchange, done: Done) -> Done:
    """The outcome with its pictures kept for URLs."""
    store, files = exchange.setup.store, exchange.setup.config.files
    end = exchange.services.data.clock() + files.seconds
    try:
        names = await keep_all(store, done.artifacts)
        urls = [await store.url(name, exchange.services.own_url) for name in names]
    except NotKept as error:  # what was paid for is delivered all the same
        _log.error("request %s: a picture could not be kept for its URL: %s", exchange.id, error)
        said = "the picture could not be kept for a URL and is in b64_json"
        return attrs.evolve(done, warnings=tuple(dict.fromkeys((*done.warnings, said))), urls=())
    return attrs.evolve(done, names=tuple(names), urls=tuple(urls), urls_end=end)
