"""Images of an outcome at URLs: stored for them, and again if the URLs have expired."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack

import attrs

from impasto.ext import StoredCall
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.calls.provider_jobs import ProviderJobs
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.http.memory_budget import MemoryReservation
from impasto_plugins.gateway.storage.contents import StoreError
from impasto_plugins.gateway.storage.local import save_all

from .context import RequestContext
from .response_body import ResponseContent, present

FETCH_SECONDS = 30.0
"""Seconds for which a repeated request waits for images that it lacks."""

_log = logging.getLogger("impasto.gateway")


async def present_replay(
    context: RequestContext, row: StoredCall, outcome: CallOutcome, memory: MemoryReservation, stack: ExitStack
) -> ResponseContent:
    """Present a stored outcome; store its images again if their URLs have expired.

    Images that it lacks, and that are at the provider, are fetched, which is free, and stored with the others.
    ``memory`` has room for the outcome; ``stack`` holds large images until the response is sent.
    """
    if outcome.is_open and row.jobs:
        outcome = await _with_later_images(context, row, outcome, memory, stack)
    if row.response_format == "url" and not await _has_valid_urls(context, outcome):
        outcome = await store_for_urls(context, outcome)
        await context.services.idempotency.store.update(row, outcome)
    return await present(outcome, is_replayed=True)


async def _with_later_images(
    context: RequestContext, row: StoredCall, outcome: CallOutcome, memory: MemoryReservation, stack: ExitStack
) -> CallOutcome:
    """Return an outcome with the images that the call's jobs bring now, and store them."""
    provider_jobs = ProviderJobs.from_json(row.jobs)
    if not memory.try_reserve(provider_jobs.room):
        return outcome  # they stay at the provider
    try:
        async with asyncio.timeout(2 * FETCH_SECONDS):  # with the wait for a connection
            found = await provider_jobs.fetch(context.runtime, memory, stack, FETCH_SECONDS)
    except (APIError, TimeoutError):
        return outcome
    later = outcome.with_later_images(found)
    if len(later.artifacts) == len(outcome.artifacts):
        return outcome
    memory.resize(later.bytes_in_memory)
    await context.services.idempotency.store.add_images(row, later, {*later.places} - {*outcome.places})
    return later


async def _has_valid_urls(context: RequestContext, outcome: CallOutcome) -> bool:
    if time.time() >= outcome.urls_end:
        return False
    try:
        return all([await context.runtime.places.images.exists(name) for name in outcome.names])
    except StoreError:  # reported when it is stored again
        return False


async def store_for_urls(context: RequestContext, outcome: CallOutcome) -> CallOutcome:
    """Return the outcome with its images stored for URLs."""
    store, files = context.runtime.places.images, context.runtime.config.files
    expires_at = time.time() + files.seconds
    try:
        names = await save_all(store, outcome.artifacts)
        urls = [await store.url_for(name, context.services.images_base_url) for name in names]
    except StoreError as error:  # what was paid for is delivered all the same
        _log.error("request %s: an image could not be stored for its URL: %s", context.id, error)
        warning = "the image could not be stored for a URL; it is in b64_json"
        return attrs.evolve(outcome, warnings=tuple(dict.fromkeys((*outcome.warnings, warning))), urls=())
    return attrs.evolve(outcome, names=tuple(names), urls=tuple(urls), urls_end=expires_at)
