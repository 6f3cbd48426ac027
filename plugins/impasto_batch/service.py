"""``client.batch``: many requests from a program, each outcome as it comes; with a folder, kept as a run keeps them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path

import attrs

from impasto import Client, ConfigError, ImpastoError, InvalidRequest, Problem
from impasto.options import check_seconds

from .disk import Disk
from .folder import Folder
from .items import asked, units
from .keeping import Keeping
from .names import Template, wrong_id
from .outcomes import failed
from .pace import Pace
from .preflight import Again
from .probe import is_reached
from .recovery import recover
from .results import write_results
from .rows import State
from .run import Run, of_client
from .stops import MostFailures, Stops
from .unit import Outcome, Standing, Unit

Requests = Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]

_STANDING: Mapping[int, Standing] = {
    State.DONE: "done",
    State.REFUSED: "refused",
    State.AMBIGUOUS: "ambiguous",
    State.UNUSABLE: "unusable",
    State.FILTERED: "filtered",
    State.EXPIRED: "expired",
}


async def run_batch(
    client: Client,
    requests: Requests,
    *,
    out: str | os.PathLike[str] | None = None,
    concurrency: int = 64,
    budget_usd: float | None = None,
    max_failures: str | None = None,
    retry_failed: bool = False,
    retry_ambiguous: bool = False,
) -> AsyncGenerator[Outcome]:
    """``Client.batch`` as a function. Raises ConfigError."""
    if out is not None and str(out).startswith("s3:"):
        raise ConfigError("out must be a folder of this machine; impasto batch run --out s3://... writes to a bucket")
    if type(concurrency) is not int or concurrency < 1:
        raise ConfigError(f"concurrency must be a whole number of at least 1, not {concurrency!r}")
    stops = Stops(
        budget=check_seconds("budget_usd", budget_usd, unit="USD") if budget_usd is not None else None,
        max_failures=MostFailures.of(max_failures) if max_failures is not None else None,
    )
    async with AsyncExitStack() as stack:
        folder, jobs, keeping = None, list[Unit](), None
        if out is not None:
            folder = await stack.enter_async_context(await Folder.open(Path(out), Disk()))
            keeping = Keeping(folder, Template())
            await folder.post(folder.begin(len(folder.pictures), manifest=None, strangers={}))
            accounts = [await client.account(model) for model in folder.history.job_models]
            keys = frozenset(account.fingerprint[:16] for account in accounts)
            jobs = (await recover(folder, keeping, keys)).jobs
            stops.usd = folder.pictures.usd
        service = _Service(client, folder, Again(failed=retry_failed, ambiguous=retry_ambiguous))
        run = Run(of_client(client), Pace(concurrency), stops, keeping, partial(is_reached, client))
        async with aclosing(run.outcomes(service.work(jobs, requests))) as outcomes:
            async for outcome in outcomes:
                yield outcome
        if folder is not None:
            await folder.post(folder.begin(len(folder.pictures), manifest=None, strangers={}))
            await folder.post(write_results(folder))
        if stops.reason is not None:
            raise ConfigError(f"the batch was stopped: {stops.reason}")


@attrs.define(eq=False)
class _Service:
    """What is left to do of requests, and what is known of the others."""

    client: Client
    folder: Folder | None
    again: Again
    _ids: set[str] = attrs.field(factory=set[str])
    _recalled: set[str] = attrs.field(factory=set[str])

    async def work(self, jobs: list[Unit], requests: Requests) -> AsyncIterator[Unit | Outcome]:
        for job in jobs:
            yield job
        async for request in _each(requests):
            try:
                made = await self._units(request)
            except ImpastoError as error:
                yield _refused(request, error)
                continue
            for unit in made:
                known = await asyncio.to_thread(self._known, self.folder, unit) if self.folder is not None else None
                yield known if known is not None else unit

    async def _units(self, request: Mapping[str, object]) -> list[Unit]:
        if not isinstance(request, Mapping):
            raise InvalidRequest([Problem("request", f"must be a mapping, not {type(request).__name__}")])
        row = asked(dict(request))
        if row.id in self._ids:
            raise InvalidRequest([Problem("id", f"{row.id!r} was given before in this batch")])
        operation = await self.client.operation(row.model, base_model=row.base_model)
        if operation.file_words.isdisjoint(row.given):
            made = units(row, operation, Path())
        else:
            made = await asyncio.to_thread(units, row, operation, Path())
        await self._recall(made[0])
        await self._check_known(made[0])
        self._ids.add(row.id)
        return made

    async def _recall(self, unit: Unit) -> None:
        """Counts what an earlier process sent with the key of a model, at its first request."""
        if self.folder is None or unit.model in self._recalled:
            return
        from impasto_middleware.limit import gate_of

        self._recalled.add(unit.model)
        account = await self.client.account(unit.model, base_model=unit.base_model)
        ages = [age for key, age in self.folder.history.sent if account.fingerprint.startswith(key)]
        if ages and account.rate_limit is not None and account.fingerprint not in self._recalled:
            self._recalled.add(account.fingerprint)
            gate_of(account).recall(ages, account.rate_limit)

    async def _check_known(self, unit: Unit) -> None:
        folder = self.folder
        if folder is None or folder.pictures.states(unit.id, 1) == [0]:
            return
        row = await asyncio.to_thread(folder.history.asked, unit.id, 0)
        if row["asks"] != unit.sha256:
            said = "was run in this folder before, with other content; give it another id"
            raise InvalidRequest([Problem("id", said)], operation=unit.model)

    def _known(self, folder: Folder, unit: Unit) -> Outcome | None:
        """What came of a picture in an earlier run, where nothing is left to do."""
        state = folder.pictures.states(unit.id, unit.index + 1)[unit.index]
        if self.again.takes()[state]:
            return None
        path = None
        if state == State.DONE:
            path = folder.layout.root / str(folder.history.asked(unit.id, unit.index)["path"])
        standing = _STANDING.get(state, "pending")
        return Outcome(id=unit.id, index=unit.index, model=unit.model, state=standing, path=path)


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
