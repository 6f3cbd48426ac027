"""Jobs at a provider: fetched by id, by any process, with the key that began them. Fetching is free."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import attrs

from impasto import Cost, ImpastoError, Operation, Result
from impasto.ext import combined_error
from impasto_plugins.fetched_jobs import ProviderJob, combine_jobs
from impasto_plugins.gateway.config.model import DAY_SECONDS
from impasto_plugins.gateway.errors import CHARGE_UNKNOWN, SERVER, APIError, to_api_error
from impasto_plugins.gateway.http.memory_budget import IMAGE_BYTES, MemoryReservation
from impasto_plugins.gateway.storage import salvage

from .deployments import Deployment, Model
from .execution import CallOutcome, PreparedCall
from .runtime import Runtime
from .streamed_answers import AnswerSpools, Attempt, GatewayCall, Quote


@attrs.frozen(kw_only=True)
class ProviderJobs:
    """The jobs of one call for ``n`` images. ``account`` is the fingerprint of its key and address.

    ``cost``: the price of an image. ``ids``: the jobs in a row of the version before, which has no ``jobs``.
    """

    model: str
    account: str
    jobs: tuple[ProviderJob, ...] = ()
    ids: tuple[str, ...] = ()
    n: int
    cost: Cost | None
    warnings: tuple[str, ...]
    created: int

    @classmethod
    def from_call(cls, prepared_call: PreparedCall, jobs: Sequence[ProviderJob], created: int) -> ProviderJobs:
        """Return the record of a call whose job was accepted."""
        return cls(
            model=prepared_call.deployment.config.model,
            account=prepared_call.deployment.account.fingerprint,
            jobs=tuple(jobs),
            n=prepared_call.n,
            cost=prepared_call.cost,
            warnings=prepared_call.warnings,
            created=created,
        )

    @classmethod
    def from_json(cls, text: str) -> ProviderJobs:
        """Return the record in a row's JSON."""
        payload = json.loads(text)
        jobs = map(ProviderJob.from_json, payload.pop("jobs", ()))
        ids, warnings, cost = payload.pop("ids"), payload.pop("warnings"), payload.pop("cost")
        return cls(
            jobs=tuple(jobs),
            ids=tuple(ids),
            warnings=tuple(warnings),
            cost=Cost(**cost) if cost is not None else None,
            **payload,
        )

    @property
    def room(self) -> int:
        """The bytes of memory to reserve for their images."""
        return self.n * IMAGE_BYTES

    def to_json(self) -> str:
        """Return the JSON for a row."""
        return json.dumps(attrs.asdict(self))

    async def fetch(
        self, runtime: Runtime, memory: MemoryReservation, stack: ExitStack, timeout: float = DAY_SECONDS
    ) -> CallOutcome:
        """Wait for all of them, as long as the provider keeps them, or for ``timeout`` seconds. Raises APIError.

        ``memory`` has room for their images. Large ones are on the disk until ``stack`` closes.
        """
        spools = AnswerSpools(memory, stack, runtime.places.salvage, self.created)
        deployment = self._find_deployment(runtime.models)
        jobs = self.jobs or self._jobs_of_ids(deployment.operation)
        outcomes = await asyncio.gather(*(_fetch_result(deployment, job, self.cost, spools, timeout) for job in jobs))
        pairs = zip(jobs, outcomes, strict=True)
        result = combine_jobs(pairs, self.n, unknown=CHARGE_UNKNOWN, price=self.cost)
        if not result.artifacts:
            first = combined_error(sorted((each.error for each in result.errors), key=lambda each: each.billed == "no"))
            await salvage.save_unusable(runtime.places.salvage, first)
            raise to_api_error(first)
        await salvage.save_unusable(runtime.places.salvage, *(each.error for each in result.errors))
        return CallOutcome.from_result(result, warnings=self.warnings, created=self.created)

    def _jobs_of_ids(self, operation: Operation) -> Sequence[ProviderJob]:
        maximum = operation.native_n[1] if operation.native_n is not None else 1
        places = [number * maximum for number in range(len(self.ids))]
        return [
            ProviderJob(id=id, place=place, count=max(min(maximum, self.n - place), 1))
            for id, place in zip(self.ids, places, strict=True)
        ]

    def _find_deployment(self, models: Mapping[str, Model]) -> Deployment:
        for model in models.values():
            for each in model.deployments:
                if each.config.model == self.model and each.account.fingerprint == self.account:
                    return each
        id = (*self.ids, *(job.id for job in self.jobs))[0]
        message = f"the key or the address of job {id} is no longer configured, so the job can't be fetched"
        raise APIError(
            502, f"{message}; it may have been charged", SERVER, "charge_unknown", should_retry=False, not_charged=False
        )


async def _fetch_result(
    deployment: Deployment, job: ProviderJob, price: Cost | None, spools: AnswerSpools, timeout: float
) -> Result | ImpastoError:
    try:
        return await resume_job(deployment, job, price, spools, timeout)
    except ImpastoError as error:
        return error


async def resume_job(
    deployment: Deployment, job: ProviderJob, price: Cost | None, spools: AnswerSpools, timeout: float = DAY_SECONDS
) -> Result:
    """Fetch the result of a job, which is free. Its cost is that of the job. Raises ImpastoError.

    ``price``: of each image, None if unknown. ``timeout`` in seconds.
    """
    call = partial(GatewayCall, spools, Quote(price, ()), Attempt(_record_nothing))
    with deployment.observer.record_call(deployment.label, price) as recorder:
        result = await deployment.client.resume(
            deployment.config.model, job.id, n=job.count, timeout=timeout, call=call
        )
        result = job.completed(result)
        if result.cost is None and price is not None:
            result = result.priced(price)
        result = deployment.apply_price(result)
        recorder.record_result(result)
        return result


async def _record_nothing(jobs: Sequence[ProviderJob]) -> None:
    """Record no job: it was recorded when it was accepted."""
