"""``client.batch``: many requests from a program, each outcome as it comes; with a folder, kept as a run keeps them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import TypedDict

import attrs

from impasto import Client, ConfigError, ImpastoError, InvalidRequest, Problem, StorageError
from impasto.ext import check_seconds, kind_in_words

from .addresses import check_addresses, note_addresses
from .classification import failed
from .filenames import Template, wrong_id
from .ledger.evidence import Strangers
from .ledger.filesystem import Disk
from .ledger.group_commit import Steps
from .ledger.recorder import Keeping
from .ledger.recovery import recall, recover
from .ledger.states import State
from .ledger.workspace import Folder, unusable
from .manifest.planner import Again
from .manifest.rows import asked, units
from .output.results import A_PAGE, ERRORS, RESULTS, write_results
from .output.s3 import Bucket, Target, check_target, claimed, local_folder, target_of
from .runner.concurrency import Pace
from .runner.health_check import is_reached
from .runner.limits import MostFailures, Stops
from .runner.scheduler import Run, of_client
from .tasks import Outcome, Standing, Unit, key_of

Requests = Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]

_STANDING: Mapping[int, Standing] = {
    State.DONE: "done",
    State.REFUSED: "refused",
    State.AMBIGUOUS: "ambiguous",
    State.UNUSABLE: "unusable",
    State.FILTERED: "filtered",
    State.EXPIRED: "expired",
}


class BatchOptions(TypedDict, total=False):
    """How ``Client.batch`` runs: see ``run_batch``."""

    out: str | os.PathLike[str] | None
    staging: str | os.PathLike[str] | None
    s3_endpoint: str | None
    concurrency: int
    budget_usd: float | None
    max_failures: str | None
    retry_failed: bool
    retry_ambiguous: bool
    start_over: bool


async def run_batch(
    client: Client,
    requests: Requests,
    *,
    out: str | os.PathLike[str] | None = None,
    staging: str | os.PathLike[str] | None = None,
    s3_endpoint: str | None = None,
    concurrency: int = 64,
    budget_usd: float | None = None,
    max_failures: str | None = None,
    retry_failed: bool = False,
    retry_ambiguous: bool = False,
    start_over: bool = False,
) -> AsyncGenerator[Outcome]:
    """``Client.batch`` as a function.

    ``out``: a folder for pictures and ledger, or ``s3://bucket/prefix`` for pictures and results; the ledger stays
    then in ``staging``, a folder of this machine, and ``s3_endpoint`` is the address of a service that is not Amazon's.
    ``concurrency``: pictures at once, at most. The batch stops at ``budget_usd`` and at ``max_failures`` (``"20"``, or
    ``"5%"`` of what is through). ``retry_failed`` takes what was refused again, ``retry_ambiguous`` what may have been
    charged. ``start_over`` begins again in a folder with results whose ledger is missing or damaged, and may pay for
    its images again. Raises ConfigError before anything is sent, BatchStopped if it ends early, StorageError if images
    came and their results can't be written, and what ``requests`` raises; images in flight are waited for first.
    """
    target = target_of(str(out or ""), staging, s3_endpoint)
    if type(concurrency) is not int or concurrency < 1:
        raise ConfigError(f"concurrency must be a whole number of at least 1, not {concurrency!r}")
    stops = Stops(
        budget=check_seconds("budget_usd", budget_usd, unit="USD") if budget_usd is not None else None,
        max_failures=MostFailures.of(max_failures) if max_failures is not None else None,
    )
    async with AsyncExitStack() as stack:
        folder, jobs, keeping, bucket = None, list[Unit](), None, None
        if out is not None:
            place = Path(staging or local_folder(str(out)))
            folder = await stack.enter_async_context(await Folder.open(place, Disk(), start_over=start_over))
            check_target(folder.history, place, target)
            accounts = [await client.account(model) for model in folder.history.job_models]
            keys = frozenset(map(key_of, accounts))
            try:
                bucket = await claimed(stack, target, folder.history)
                keeping = Keeping(folder, Template(), bucket, A_PAGE)
                await folder.post(_begun(folder, target))
                jobs = (await recover(folder, keeping, keys)).jobs
            except OSError as error:
                raise unusable(folder.layout, error) from None
            stops.usd = folder.pictures.usd
        service = _Service(client, folder, target, Again(failed=retry_failed, ambiguous=retry_ambiguous))
        if folder is not None:
            service.strangers = await asyncio.to_thread(Strangers, folder.history, Template())
        run = Run(of_client(client), Pace(concurrency), stops, keeping, partial(is_reached, client))
        async with aclosing(run.outcomes(service.work(jobs, requests))) as outcomes:
            async for outcome in outcomes:
                yield outcome
        if folder is not None:
            await _publish(folder, bucket, stops)
        if run.failure is not None:
            raise run.failure
        if (stopped := stops.error()) is not None:
            raise stopped


def _begun(folder: Folder, target: Target | None) -> Steps[None]:
    pictures = folder.pictures
    return folder.begin(len(pictures), target=target, stranger_extra=pictures.extra)


async def _publish(folder: Folder, bucket: Bucket | None, stops: Stops) -> None:
    """Write results.jsonl and errors.jsonl, and upload them to the bucket. Raises StorageError."""
    target = bucket.target if bucket is not None else None
    try:
        await folder.post(_begun(folder, target))
        await folder.post(write_results(folder))
        if bucket is not None:
            await bucket.publish([folder.layout.root / name for name in (RESULTS, ERRORS)])
            await bucket.remember(folder.layout)
    except OSError as error:
        how = "put up" if bucket is not None else "written"
        said = f"results could not be {how}: {error.strerror or error}; the next run does it, and pays nothing"
        failure = StorageError(said)
        failure.billed = stops.billed
        raise failure from (stops.error() or error)


@attrs.define(eq=False)
class _Service:
    """What is left to do of requests, and what is known of the others."""

    client: Client
    folder: Folder | None
    target: Target | None
    again: Again
    strangers: Strangers | None = None
    _ids: set[str] = attrs.field(factory=set[str])
    _recalled: set[str] = attrs.field(factory=set[str])
    _addressed: set[tuple[str, str | None]] = attrs.field(factory=set[tuple[str, str | None]])

    async def work(self, jobs: list[Unit], requests: Requests) -> AsyncIterator[Unit | Outcome]:
        for job in jobs:
            yield job
        async for request in _each(requests):
            try:
                made = await self._units(request)
            except ImpastoError as error:
                yield _refused(request, error)
                continue
            await self._note_address(made[0])
            left = [unit for unit in made if self.folder is None or not self._is_over(self.folder, unit)]
            for unit in made:
                if self.folder is None or unit in left:
                    yield unit
                else:
                    yield await asyncio.to_thread(self._known, self.folder, unit)
            if self.folder is not None and not left:
                for index in self.folder.pictures.extras(made[0].id, made[0].n):
                    yield await asyncio.to_thread(self._known, self.folder, attrs.evolve(made[0], index=index))

    async def _units(self, request: Mapping[str, object]) -> list[Unit]:
        if not isinstance(request, Mapping):
            raise InvalidRequest([Problem("request", f"must be a mapping, not {kind_in_words(request)}")])
        row = asked(dict(request))
        if row.id in self._ids:
            raise InvalidRequest([Problem("id", f"{row.id!r} was given before in this batch")])
        operation = await self.client.operation(row.model, base_model=row.base_model)
        if operation.file_words.isdisjoint(row.given):
            made = units(row, operation, Path(), position=len(self._ids))
        else:
            made = await asyncio.to_thread(units, row, operation, Path(), position=len(self._ids))
        await self._recall(made[0])
        await self._check_known(made[0])
        self._check_strangers(made)
        self._ids.add(row.id)
        return made

    async def _recall(self, unit: Unit) -> None:
        """Counts what an earlier process sent with the key of a model, at its first request."""
        if self.folder is None or unit.model in self._recalled:
            return
        self._recalled.add(unit.model)
        account = await self.client.account(unit.model, base_model=unit.base_model)
        if account.fingerprint not in self._recalled:
            self._recalled.add(account.fingerprint)
            recall([account], self.folder.history)

    async def _note_address(self, unit: Unit) -> None:
        """Write where a model is called into the ledger, at its first request. Raises ConfigError."""
        folder, model = self.folder, (unit.model, unit.base_model)
        if folder is None or model in self._addressed:
            return
        operation = await self.client.operation(unit.model, base_model=unit.base_model)
        await check_addresses(self.client, [operation], folder.history)
        try:
            is_new = await note_addresses(self.client, [operation], folder.history)
        except ConfigError:
            return  # there is no key: the call says so, and sends nothing
        if is_new:
            try:
                await folder.post(_begun(folder, self.target))
            except OSError as error:
                raise unusable(folder.layout, error) from None
        self._addressed.add(model)

    async def _check_known(self, unit: Unit) -> None:
        folder = self.folder
        if folder is None or folder.pictures.states(unit.id, 1) == [0]:
            return
        row = await asyncio.to_thread(folder.history.asked, unit.id, 0)
        if row["asks"] != unit.sha256:
            said = "was run in this folder before, with other content; give it another id"
            raise InvalidRequest([Problem("id", said)], operation=unit.model)

    def _check_strangers(self, made: list[Unit]) -> None:
        for unit in made if self.strangers else ():
            if self.strangers is not None and (name := self.strangers.find(unit)) is not None:
                said = f"{name!r} is in the folder, and its ledger does not know it: it may be paid for; see start_over"
                raise InvalidRequest([Problem("id", said)], operation=unit.model)

    def _is_over(self, folder: Folder, unit: Unit) -> bool:
        """Return True if nothing is left to do for an image."""
        state = folder.pictures.state(unit.id, unit.index)
        return not self.again.takes()[state]

    def _known(self, folder: Folder, unit: Unit) -> Outcome:
        """Return what came of an image in an earlier run."""
        state = folder.pictures.state(unit.id, unit.index)
        outcome = Outcome(id=unit.id, index=unit.index, model=unit.model, state=_STANDING.get(state, "pending"))
        if state != State.DONE:
            return outcome
        name = str(folder.history.asked(unit.id, unit.index)["path"])
        if self.target is not None:
            return attrs.evolve(outcome, url=self.target.url(name))
        return attrs.evolve(outcome, path=folder.layout.root / name)


def _refused(request: object, error: ImpastoError) -> Outcome:
    given = request if isinstance(request, Mapping) else {}
    id, model = given.get("id", given.get("custom_id")), given.get("model")
    unit = Unit(id=str(id) if wrong_id(id) is None else "", index=0, n=1, model=str(model or ""))
    return failed(unit, error)


async def _each(requests: Requests) -> AsyncIterator[Mapping[str, object]]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
