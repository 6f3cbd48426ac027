"""Images of an outcome at URLs: stored for them, and again if the URLs have expired."""

from __future__ import annotations

import logging
import time

import attrs

from impasto.ext import StoredCall
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.storage.local import StoreError, save_all

from .context import RequestContext
from .response_body import ResponseContent, present

_log = logging.getLogger("impasto.gateway")


async def present_replay(context: RequestContext, row: StoredCall, outcome: CallOutcome) -> ResponseContent:
    """Present a stored outcome; store its images again if their URLs have expired."""
    if row.response_format == "url" and not await _has_valid_urls(context, outcome):
        outcome = await store_for_urls(context, outcome)
        await context.services.idempotency.store.update(row, outcome)
    return await present(outcome, is_replayed=True)


async def _has_valid_urls(context: RequestContext, outcome: CallOutcome) -> bool:
    if time.time() >= outcome.urls_end:
        return False
    try:
        return all([await context.runtime.store.exists(name) for name in outcome.names])
    except StoreError:  # reported when it is stored again
        return False


async def store_for_urls(context: RequestContext, outcome: CallOutcome) -> CallOutcome:
    """Return the outcome with its images stored for URLs."""
    store, files = context.runtime.store, context.runtime.config.files
    expires_at = time.time() + files.seconds
    try:
        names = await save_all(store, outcome.artifacts)
        urls = [await store.url_for(name, context.services.images_base_url) for name in names]
    except StoreError as error:  # what was paid for is delivered all the same
        _log.error("request %s: an image could not be stored for its URL: %s", context.id, error)
        warning = "the image could not be stored for a URL; it is in b64_json"
        return attrs.evolve(outcome, warnings=tuple(dict.fromkeys((*outcome.warnings, warning))), urls=())
    return attrs.evolve(outcome, names=tuple(names), urls=tuple(urls), urls_end=expires_at)
