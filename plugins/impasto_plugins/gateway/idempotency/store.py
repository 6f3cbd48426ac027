"""Stored calls and their outcomes, so that a repeated request costs nothing.

A row is ``running`` (it has an Idempotency-Key, or is a job), ``done`` or ``failed``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set as AbstractSet
from contextlib import suppress
from functools import partial

import attrs

from impasto.ext import StateError, StateStore, StoredCall
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.errors import APIError, charge_unknown_error, image_missing_error
from impasto_plugins.gateway.storage.contents import ContentStore, StoreError
from impasto_plugins.gateway.storage.failures import storage_required
from impasto_plugins.gateway.storage.late_writes import Change, LateWrites

from .late_uploads import LateUploads, UploadQueue
from .serialization import OutcomeFiles, dump_outcome, load_failure

KEY_SECONDS = 24 * 3600.0
"""Seconds for which an Idempotency-Key is valid and a job is stored."""

RETRY_SECONDS = 15 * 60.0
"""Seconds for which an SDK's retry gets the outcome of an earlier attempt."""

MAX_GROUP_SIZE = 64
"""Outcomes that are stored together at most: each is in memory until its group is stored."""

PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.5, 10.0
"""Seconds until images are stored again that could not be: each time twice as long."""

_log = logging.getLogger("impasto.gateway")


def new_row_id() -> str:
    """Return a row's id: 64 hexadecimal digits that nobody can guess."""
    return secrets.token_hex(32)


@attrs.frozen(eq=False)
class _PendingOutcome:
    """An outcome to be stored. ``is_accepted`` is False if a bug lost it; ``on_stored`` is called when it is stored."""

    identity: bytes
    outcome: CallOutcome | APIError
    on_stored: Callable[[], object]
    is_accepted: asyncio.Future[bool]


class OutcomeStore:
    """Rows in the state, and their images."""

    def __init__(self, state: StateStore, contents: ContentStore, *queues: UploadQueue) -> None:
        self.calls = state.calls
        self.contents, self._files = contents, OutcomeFiles(contents)
        self._queue: list[_PendingOutcome] = []
        self._storing: asyncio.Task[None] | None = None
        self._has_reported_strays = False
        self.late_writes = LateWrites()
        self.uploads = LateUploads(state, contents, *queues)
        self._hurries = asyncio.Event()

    def hurry(self) -> None:
        """Wait for no disk any more: the process ends."""
        self._hurries.set()

    async def aclose(self) -> None:
        """Store what could not be stored before."""
        await self.uploads.aclose()
        await self.late_writes.aclose()

    async def insert_or_join(self, row: StoredCall, *, join: bool) -> StoredCall:
        """Insert a call before it is made, and return it; with ``join``, return an existing one with its fingerprint.

        Raises StateError, and StoreError for a new one if its result could not be stored now: it would be lost to a
        repeated request.
        """
        failure: StoreError | None = None
        try:
            await self.contents.check()
        except StoreError as error:
            if not join:
                raise
            failure = error
        try:
            found = await self.calls.insert_or_join(row, join=join)
            if failure is not None and found.id == row.id:
                await self.delete(row.id)
                raise failure
        except BaseException as error:
            if error is not failure and (not isinstance(error, StateError) or error.may_have_changed):
                self.late_writes.add(partial(self.calls.delete, row.id), record=row.id)
            raise
        return found

    async def delete(self, id: str) -> None:
        """Delete the row of a call that nobody has to find any more."""
        await self.late_writes.make(partial(self.calls.delete, id), record=id)

    async def record_jobs(self, row: StoredCall, jobs: Callable[[], str]) -> None:
        """Store the accepted jobs of a call, so that they can be fetched later. ``jobs`` returns the JSON of all."""

        async def change() -> None:
            await self.calls.update(row.id, jobs=jobs())

        await self.late_writes.make(change, record=row.id)

    async def insert_jobs(
        self, row: StoredCall, jobs: Callable[[], str], get_worker: Callable[[], Awaitable[str]]
    ) -> None:
        """Do the same for a call without a row, under this one. ``get_worker`` returns the name of this worker."""

        async def change() -> None:
            new_row = attrs.evolve(row, jobs=jobs(), worker=await get_worker())
            if (await self.calls.insert_or_join(new_row, join=False)).jobs != new_row.jobs:
                await self.calls.update(row.id, jobs=new_row.jobs)

        await self.late_writes.make(change, record=row.id)

    async def finish(
        self,
        row: StoredCall,
        outcome: CallOutcome | APIError,
        *,
        forget: bool,
        is_patient: bool = False,
        on_stored: Callable[[], object] = object,
    ) -> None:
        """Store the outcome of a call that was begun, and then call ``on_stored``, which may take a while.

        A call that cost nothing is no longer found by its fingerprint; with ``forget`` it is not found at all.
        ``is_patient``: no response waits for it, so that images that can't be stored are tried again.
        """
        # A refused call runs again if it is repeated, so that its row must not be found; a job's row still has its id.
        not_charged = isinstance(outcome, APIError) and outcome.not_charged
        if not_charged and forget:
            return await self.late_writes.make(partial(self.calls.delete, row.id), on_stored, record=row.id)
        state, text = (await self._save_outcomes({row.id: outcome}, is_patient=is_patient))[row.id]
        columns: dict[str, str | bytes] = {"state": state, "outcome": text}
        if not_charged:
            columns["identity"] = b""
        change: Change = partial(self.calls.update, row.id, **columns)
        if self.contents.waiting:
            change = partial(self.uploads.announce_before, change)
        return await self.late_writes.make(change, on_stored, record=row.id)

    async def update(self, row: StoredCall, outcome: CallOutcome) -> None:
        """Store changes of an outcome, except its images."""
        change = partial(self.calls.update, row.id, outcome=dump_outcome(outcome))
        await self.late_writes.make(change, record=row.id)

    async def add_images(self, row: StoredCall, outcome: CallOutcome, places: AbstractSet[int]) -> None:
        """Store further images of a call, those at these places. If that fails, they can be fetched again."""
        if await self._files.add(row.id, outcome, places):
            await self.update(row, outcome)

    async def forget_content(self, row: StoredCall) -> None:
        """Note that a job's caller has its id: it is no longer found by its content."""
        await self.late_writes.make(partial(self.calls.update, row.id, identity=b""), record=row.id)

    async def save(
        self, identity: bytes, outcome: CallOutcome | APIError, on_stored: Callable[[], object] = object
    ) -> bool:
        """Store the outcome of a call for its retry, and then call ``on_stored``, which may take a while.

        Calls that wait at the same time are stored together, with one sync of the folder and one transaction. Return
        False if a bug lost it.
        """
        pending = _PendingOutcome(identity, outcome, on_stored, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store_groups())
        return await asyncio.shield(pending.is_accepted)  # others wait for the group too, whoever is cancelled

    async def _store_groups(self) -> None:
        while self._queue:
            group, self._queue = self._queue[:MAX_GROUP_SIZE], self._queue[MAX_GROUP_SIZE:]
            is_accepted = False
            try:
                await self._store_group(group)
                is_accepted = True
            except Exception:  # noqa: BLE001 - a bug here must not leave those waiting who come next
                _log.exception("outcomes of calls could not be stored")
            finally:
                for each in group:
                    each.is_accepted.set_result(is_accepted)

    async def _store_group(self, group: list[_PendingOutcome]) -> None:
        ids = [new_row_id() for _ in group]
        by_id = {id: each.outcome for id, each in zip(ids, group, strict=True)}
        outcomes = await self._save_outcomes(by_id, is_patient=True)
        rows = [
            StoredCall(
                id=id,
                owner=b"",
                identity=each.identity,
                state=outcomes[id][0],
                outcome=outcomes[id][1],
                expires=RETRY_SECONDS,
            )
            for id, each in zip(ids, group, strict=True)
        ]
        insert = partial(self.uploads.announce_before, partial(self.calls.insert, rows))
        callbacks = [each.on_stored for each in group]
        await self.late_writes.make(insert, lambda: [callback() for callback in callbacks])

    async def release(self, row: StoredCall, count: int) -> None:
        """Release a result whose retry left before it got it; the next retry gets it."""
        await self.late_writes.make(partial(self.calls.release, row, count), record=row.id)

    async def load(self, row: StoredCall) -> CallOutcome:
        """Return a call's outcome. Raises APIError: its own, or that its images are gone or can't be read now."""
        if row.state == "failed":
            raise load_failure(row.outcome)
        with storage_required("looked up"):
            outcome = await self._files.load(row.id, row.outcome)
            if outcome is None:
                are_awaited = await self.uploads.are_awaited()
                outcome = await self._files.load(row.id, row.outcome)  # it may have been uploaded just now
                if outcome is None and are_awaited:
                    raise StoreError("its image is not in the bucket yet: a replica that has it uploads it")
        if outcome is None:
            _log.error("a stored image is missing")
            raise image_missing_error()
        return outcome

    async def take_over(self, dead: Mapping[str, Sequence[bytes]], worker: str) -> list[StoredCall]:
        """Give a worker the jobs of dead ones, and return them; mark the rest as possibly charged. Raises StateError.

        Fetching a job is free. Whatever else ran there may have been charged.
        """
        outcome = dump_outcome(charge_unknown_error())
        return await self.calls.take_over(dead, worker, outcome=outcome, seconds=RETRY_SECONDS)

    async def remove_expired(self, *, others_delete: bool = False) -> None:
        """Delete expired rows with their images, and old images without a row. Report lost rows, once.

        ``others_delete``: replicas that do not have these images delete rows too, so that a missing row means nothing.
        Raises StateError, StoreError.
        """
        expired = await self.calls.delete_expired()
        candidates = await self._files.stored_ids()
        missing = await self.calls.missing(candidates.difference(expired))
        strays = await self._files.remove({*expired}, {*missing}, lifetime=KEY_SECONDS)
        if strays and not others_delete and not self._has_reported_strays:
            self._has_reported_strays = True
            _log.warning(
                "%d stored images in %r have no record: the database is an older copy or was damaged, or the gateway"
                " was killed while it stored them; their requests are charged again if they are repeated",
                strays,
                str(self.contents.folder),
            )

    async def _save_outcomes(
        self, outcomes: Mapping[str, CallOutcome | APIError], *, is_patient: bool
    ) -> dict[str, tuple[str, str]]:
        """Return the state and the outcome of each row."""
        successes = {id: outcome for id, outcome in outcomes.items() if isinstance(outcome, CallOutcome)}
        failures = {id: dump_outcome(outcome) for id, outcome in outcomes.items() if isinstance(outcome, APIError)}
        json_by_id = await self._files.save(successes) if successes else {}
        pause, end = PAUSE_SECONDS, time.monotonic() + RETRY_SECONDS
        while is_patient and (left := successes.keys() - json_by_id.keys()) and time.monotonic() < end:
            if self._hurries.is_set():
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurries.wait(), pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            json_by_id |= await self._files.save({id: successes[id] for id in left})
        for id in successes.keys() - json_by_id.keys():
            failures[id] = dump_outcome(charge_unknown_error())
        return {id: ("done", json_by_id[id]) if id in json_by_id else ("failed", failures[id]) for id in outcomes}
