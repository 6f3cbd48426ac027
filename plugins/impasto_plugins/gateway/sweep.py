"""Deletes expired data periodically: each gateway its own, and one of several replicas what they share."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs

from impasto.ext import StateError, StateStore, StoredObject

from .batches.scheduler import BatchScheduler
from .calls.runtime import Runtime
from .errors import APIError
from .idempotency.late_uploads import KIND as UPLOADS
from .idempotency.store import OutcomeStore
from .storage.bucket import BucketContents
from .storage.contents import FolderContents, StoreError

SWEEP_SECONDS = 300.0
_TURN = "sweep"
"""The kind and the id of the object that says when a replica swept last."""

_log = logging.getLogger("impasto.gateway")


async def sweep(runtime: Runtime, state: StateStore, outcomes: OutcomeStore, batches: BatchScheduler) -> float:
    """Delete expired data once; return the seconds until the next time. Raises nothing."""
    places = runtime.places
    seconds = min(places.folder.seconds, SWEEP_SECONDS)
    await asyncio.to_thread(places.folder.remove_expired)
    await asyncio.to_thread(places.salvage.folder.remove_expired)
    async with _reported():
        if isinstance(places.outcomes, BucketContents):
            await batches.remove_strays(FolderContents(places.batches.folder))
    async with _reported():
        if not places.shared or await _take_turn(state, seconds):
            await state.budgets.delete_old()
            await state.objects.delete_expired(UPLOADS)
            await outcomes.remove_expired(others_delete=runtime.config.has_shared_state and not places.shared)
            await batches.remove_expired()
            for images in places.shared:
                await images.remove_expired()
    return seconds


@asynccontextmanager
async def _reported() -> AsyncIterator[None]:
    with suppress(StateError, APIError):  # reported by the calls that need it
        try:
            yield
        except StoreError as error:
            _log.error("expired data could not be deleted: %s", error)


async def _take_turn(state: StateStore, seconds: float) -> bool:
    """Return True if no replica has swept for so many seconds: this one is to do it. Raises StateError."""
    now, objects = await state.now(), state.objects
    body = json.dumps({"at": now, "by": secrets.token_hex(8)})
    turn = StoredObject(kind=_TURN, id=_TURN, owner=b"", status="", size=0, body=body, created=now, expires=now)
    last = await objects.insert(turn, max_count=1)
    if not isinstance(last, StoredObject):
        (last,) = await objects.of_kind(_TURN)
    if last.body == body:
        return True
    is_over = not 0 <= now - float(json.loads(last.body)["at"]) < seconds / 2
    return is_over and await objects.replace(last, attrs.evolve(last, body=body)) is True
