"""One call with an idempotency key: it is made here, joins the one that runs, or returns the outcome of an earlier one.

Before anything is sent the store has a record of the call, and its worker: this process. Whoever repeats the call finds
the record. It waits while the worker lives; of a worker that ended without an outcome it fetches the jobs, which is
free, and anything else may have been charged. A call that is proved to have cost nothing leaves no record.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs

from impasto import (
    Call,
    ChargeUnknown,
    Client,
    ClientClosedError,
    ConfigError,
    Cost,
    ImpastoError,
    InvalidRequest,
    Problem,
    Request,
    Result,
    Retry,
    StorageError,
)
from impasto.ext import (
    RESULTS,
    Options,
    StateError,
    StateStore,
    StoredCall,
    check_seconds,
    combined_error,
    finish,
    is_not_charged,
    result_of_cancelled,
)
from impasto_plugins.concurrency.seats import SEATS, Seat, seat_in
from impasto_plugins.fetched_jobs import ProviderJob, combine_jobs, ends_job, open_jobs, with_later_images
from impasto_plugins.fingerprints import IDEMPOTENCY_KEY, canonical_json

from .artifact_files import ArtifactFiles
from .outcomes import dump_outcome, is_failure, load_outcome
from .progress import CallProgress, KeyedCall

KEY_SECONDS = 24 * 3600.0
"""Seconds for which a key is bound to its request."""

_FIRST_LOOK, _LAST_LOOK = 0.02, 1.0
"""Seconds between looks at a call that runs elsewhere: each twice as long as the one before."""

_SWEEP_SECONDS = 600.0

_CUT_OFF = "the call was cut off; it may have been charged"

_log = logging.getLogger("impasto")

_running: set[str] = set()
"""Records of the calls that run in this process."""

_swept_at: dict[Path, float] = {}


@attrs.frozen(kw_only=True)
class _KeyedRequest:
    """A request with its key. ``owner``: the fingerprint of the account; ``seconds``: how long to wait for others.

    ``price``: that of an image, None if unknown.
    """

    key: str
    owner: str
    request: Request
    n: int
    seconds: float
    price: Cost | None

    @property
    def identity(self) -> bytes:
        """The fingerprint of the key, which belongs to one account."""
        return hashlib.sha256(f"key\0{self.owner}\0{self.key}".encode()).digest()

    def content(self) -> bytes:
        """Return the fingerprint of the request. Blocks: files are read."""
        request = self.request
        content = [request.operation, request.target, self.n, request.user, request.params]
        return hashlib.sha256(canonical_json(content).encode()).digest()


Make = Callable[[Callable[..., Call]], Awaitable[Result]]
"""Makes the call with calls of this class."""

Resume = Callable[[str, int], Awaitable[Result]]
"""Fetches a job for so many images."""


async def run_idempotent(  # noqa: PLR0917 - as the client has them
    client: Client,
    options: Options,
    open_store: Callable[[], AbstractAsyncContextManager[StateStore]],
    key: object,
    model: str,
    request: Request,
    n: int,
    timeout: float | None,
    retry: Retry | None,
    base_model: str | None,
) -> Result:
    """Return the result of a call with an idempotency key. ``timeout`` in seconds: for waiting for others too.

    Raises InvalidRequest if the key is invalid or belongs to another request, StorageError if the store can't be used
    (nothing was sent then), and the errors of the call.
    """
    if not isinstance(key, str) or IDEMPOTENCY_KEY.fullmatch(key) is None:
        message = "must be text of 1 to 255 printable ASCII characters, without a space at an end"
        raise InvalidRequest([Problem("idempotency_key", message)], operation=request.operation)
    if not isinstance(folder := options.state, Path):
        raise ConfigError(
            'idempotency_key needs a state on this machine, which has the images too: Client(state="machine"), or a'
            " folder; with a database send the call to a gateway. Nothing was sent"
        )
    operation = await client.operation(model, base_model=base_model)
    account = await client.account(model, base_model=base_model)
    keyed = _KeyedRequest(
        key=key,
        owner=account.fingerprint,
        request=request,
        n=n,
        seconds=options.timeout if timeout is None else check_seconds("timeout", timeout),
        price=operation.cost(request),
    )

    def make(call: Callable[..., Call]) -> Awaitable[Result]:
        return client.invoke(model, request, n=n, timeout=timeout, retry=retry, base_model=base_model, call=call)

    def resume(job: str, count: int) -> Awaitable[Result]:
        return client.resume(model, job, n=count, timeout=timeout)

    async def check() -> None:
        await client.operation(model, base_model=base_model)

    try:
        async with open_store() as store:
            seat = await asyncio.to_thread(seat_in, folder / SEATS)
            files = ArtifactFiles(folder / RESULTS)
            return await _Repeats(store, seat, files, keyed, make, resume, check).result()
    except (StateError, OSError) as error:
        raise StorageError(f"the call can't be recorded under its idempotency key: {error}; nothing was sent") from None


@attrs.define(eq=False)
class _Repeats:
    _store: StateStore
    _seat: Seat
    _files: ArtifactFiles
    _keyed: _KeyedRequest
    _make: Make
    _resume: Resume
    _check: Callable[[], Awaitable[None]]
    """Raises ClientClosedError."""

    async def result(self) -> Result:
        keyed, content = self._keyed, await asyncio.to_thread(self._keyed.content)
        end, delay = time.monotonic() + keyed.seconds, _FIRST_LOOK
        await self._sweep()
        record = self._new_record(content)
        with _running_here(record.id):
            found = await self._begin(record)
            while found.id != record.id:
                try:
                    if (result := await self._earlier_result(found, record)) is not None:
                        return result
                    if time.monotonic() + delay > end:
                        raise ChargeUnknown(
                            f"the call of this idempotency key still runs after {keyed.seconds:g} s; it may have been"
                            " charged; repeat it with the same key to get its result"
                        )
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, _LAST_LOOK)
                    await self._check()
                    found = await self._begin(record)
                except (StateError, OSError, ClientClosedError) as error:  # after a call that may have been sent
                    raise ChargeUnknown(
                        f"{error}; the call of this idempotency key may have been charged; repeat it with the same key"
                        " to get its result"
                    ) from None
            return await self._run(record)

    async def _earlier_result(self, found: StoredCall, record: StoredCall) -> Result | None:
        """Return the result of an earlier call, or None if it runs or has just changed. Raises its error."""
        if found.content != record.content:
            message = "belongs to another request; use a new one for each"
            raise InvalidRequest([Problem("idempotency_key", message)], operation=record.model)
        if found.state != "running":
            return await self._load(found)
        if not await self._has_ended(found) or await self._adopt(found):
            return None
        taken = await self._take_over(found, record)
        return None if taken is None else await self._fetch(taken)

    def _new_record(self, content: bytes) -> StoredCall:
        id = secrets.token_hex(32)
        return StoredCall(
            id=id,
            owner=self._keyed.owner.encode(),
            identity=self._keyed.identity,
            content=content,
            model=self._keyed.request.operation,
            worker=f"{self._seat.number:x}:{id}",  # of this call alone: others of the process may go on
            expires=KEY_SECONDS,
        )

    async def _begin(self, record: StoredCall) -> StoredCall:
        try:
            return await self._store.calls.insert_or_join(record, join=True)
        except asyncio.CancelledError:  # it may have been inserted, and nothing was sent
            with suppress(StateError):
                await finish(self._store.calls.delete(record.id))
            raise

    async def _has_ended(self, record: StoredCall) -> bool:
        seat, _, token = record.worker.partition(":")
        if seat == f"{self._seat.number:x}":
            return token not in _running
        return await asyncio.to_thread(self._seat.has_ended, int(seat, 16))

    async def _adopt(self, found: StoredCall) -> bool:
        """Record the outcome that a call which ended left on the disk. Return False if there is none."""
        if (text := await asyncio.to_thread(self._files.read_outcome, found.id)) is None:
            return False
        await self._record_outcome(found.id, text)
        return True

    async def _take_over(self, found: StoredCall, record: StoredCall) -> StoredCall | None:
        """Take a call that ended over if it has jobs; otherwise it becomes a failed one."""
        outcome, _ = dump_outcome(
            ChargeUnknown("the call of this idempotency key was cut off; it may have been charged")
        )
        dead = {found.worker: ()}
        taken = await self._store.calls.take_over(dead, record.worker, outcome=outcome, seconds=KEY_SECONDS)
        return taken[0] if taken else None

    async def _run(self, record: StoredCall) -> Result:
        progress = CallProgress(self._store, record.id)
        try:
            result = await self._make(partial(KeyedCall, progress))
        except ImpastoError as error:
            if is_not_charged(error) and not progress.is_paid:
                await finish(self._forget(record.id))
            elif progress.can_resume(error):
                await finish(progress.record())  # who repeats the call fetches its jobs
            else:
                await finish(self._store_outcome(record.id, error))
            raise
        except BaseException as error:  # cancelled, or the process ends
            if (part := result_of_cancelled(error)) is not None:
                await finish(self._store_result(record.id, part, progress))
            elif not progress.is_paid:
                await finish(self._forget(record.id))
            else:  # its jobs can be fetched, and anything else may have been charged
                await finish(progress.record())
            raise
        await finish(self._store_result(record.id, result, progress))
        return result

    async def _fetch(self, record: StoredCall) -> Result:
        """Fetch the jobs of a call that ended before them."""
        progress = CallProgress(self._store, record.id, jobs=[*map(ProviderJob.from_json, json.loads(record.jobs))])
        outcomes = await asyncio.gather(*map(self._fetch_job, progress.jobs))
        pairs = [*zip(progress.jobs, outcomes, strict=True)]
        price, (part, first) = self._keyed.price, await self._load_part(record)
        if part is not None:
            result = with_later_images(part, pairs, price=price)
        else:
            result = combine_jobs(pairs, self._keyed.n, unknown=_CUT_OFF, price=price)
        error = None if result.artifacts else combined_error([each.error for each in result.errors])
        if error is None:
            await finish(self._store_result(record.id, result, progress, first))
        elif not all(isinstance(each, Result) or ends_job(each) for each in outcomes):
            pass  # a job runs on, or the provider could not be asked: who repeats the call asks again
        elif is_not_charged(error):
            await finish(self._forget(record.id))
        else:
            await finish(self._store_outcome(record.id, error))
        if error is not None:
            raise error
        return result

    async def _fetch_job(self, job: ProviderJob) -> Result | ImpastoError:
        try:
            result = job.completed(await self._resume(job.id, job.count))
        except ImpastoError as error:
            return error
        price = self._keyed.price
        return result.priced(price) if result.cost is None and price is not None else result

    async def _load_part(self, record: StoredCall) -> tuple[Result | None, int]:
        """Return the images of a call that had come before, and the number of the next content."""
        try:
            text, first = await asyncio.to_thread(self._files.read_part, record.id)
            if text is None:
                return None, first
            part = await asyncio.to_thread(load_outcome, text, partial(self._files.read, record.id))
        except OSError as error:  # its jobs may still bring them
            _log.error("a stored image is missing: %s", error.strerror)
            return None, 0
        return (part, first) if isinstance(part, Result) else (None, first)

    async def _load(self, record: StoredCall) -> Result:
        try:
            outcome = await asyncio.to_thread(load_outcome, record.outcome, partial(self._files.read, record.id))
        except OSError as error:
            _log.error("a stored image is missing: %s", error.strerror)
            raise ChargeUnknown("the stored images of this idempotency key are missing; they were charged") from None
        if isinstance(outcome, ImpastoError):
            raise outcome
        return outcome

    async def _store_result(self, id: str, result: Result, progress: CallProgress, first: int = 0) -> None:
        """Store a result, or its images for whoever repeats the call while jobs may bring others."""
        if not (jobs := open_jobs(progress.jobs, result)):
            await self._store_outcome(id, result, first)
            return
        try:
            text, contents = dump_outcome(result, first)
            await asyncio.to_thread(partial(self._files.save, id, text, contents, first=first, waits=True))
        except (OSError, ValueError) as error:
            _log.error("images of a call could not be stored under its idempotency key: %s", error)
        else:
            await progress.record_only(jobs)  # the images of the others are stored

    async def _store_outcome(self, id: str, outcome: Result | ImpastoError, first: int = 0) -> None:
        """Store an outcome; without it a repeated call learns only that it may have been charged."""
        try:
            text, contents = dump_outcome(outcome, first)
            await asyncio.to_thread(partial(self._files.save, id, text, contents, first=first))
            await self._record_outcome(id, text)
        except (StateError, OSError, ValueError) as error:
            _log.error("the outcome of a call could not be stored under its idempotency key: %s", error)

    async def _record_outcome(self, id: str, text: str) -> None:
        await self._store.calls.update(id, state="failed" if is_failure(text) else "done", outcome=text)

    async def _forget(self, id: str) -> None:
        try:
            await self._store.calls.delete(id)
        except StateError as error:
            _log.error("a call that cost nothing can't be removed from its idempotency key: %s", error)

    async def _sweep(self) -> None:
        """Delete expired calls and their artifacts now and then."""
        now, folder = time.monotonic(), self._files.folder
        if now - _swept_at.get(folder, -math.inf) > _SWEEP_SECONDS:
            _swept_at[folder] = now
            await self._store.calls.delete_expired()
            old = await asyncio.to_thread(self._files.old_ids, KEY_SECONDS + _SWEEP_SECONDS)
            await asyncio.to_thread(self._files.delete, await self._store.calls.missing(old))


@contextmanager
def _running_here(token: str) -> Iterator[None]:
    _running.add(token)
    try:
        yield
    finally:
        _running.discard(token)
