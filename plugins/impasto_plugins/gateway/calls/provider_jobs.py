"""Jobs at a provider: fetched by id, by any process, with the key that began them. Fetching is free."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping

import attrs

from impasto import ChargeUnknown, Cost, ImpastoError, Result
from impasto_plugins.gateway.config.model import DAY_SECONDS
from impasto_plugins.gateway.errors import (
    CHARGE_UNKNOWN,
    SERVER,
    APIError,
    billed_of_images,
    partial_error_payload,
    to_api_error,
)
from impasto_plugins.gateway.storage import salvage

from .deployments import Deployment, Model
from .execution import CallOutcome, PreparedCall
from .runtime import Runtime


@attrs.frozen(kw_only=True)
class ProviderJobs:
    """The jobs of one call for ``n`` images. ``account`` is the fingerprint of its key and address."""

    model: str
    account: str
    ids: tuple[str, ...]
    n: int
    cost: Cost | None
    warnings: tuple[str, ...]
    created: int

    @classmethod
    def from_call(cls, prepared_call: PreparedCall, account: str, ids: Iterable[str], created: int) -> ProviderJobs:
        """Return the record of a call whose job was accepted."""
        return cls(
            model=prepared_call.deployment.config.model,
            account=account,
            ids=tuple(ids),
            n=prepared_call.n,
            cost=prepared_call.cost,
            warnings=prepared_call.warnings,
            created=created,
        )

    @classmethod
    def from_json(cls, text: str) -> ProviderJobs:
        """Return the record in a row's JSON."""
        payload = json.loads(text)
        cost = Cost(**payload.pop("cost")) if payload["cost"] is not None else payload.pop("cost")
        return cls(ids=tuple(payload.pop("ids")), warnings=tuple(payload.pop("warnings")), cost=cost, **payload)

    def to_json(self) -> str:
        """Return the JSON for a row."""
        return json.dumps(attrs.asdict(self))

    async def fetch(self, runtime: Runtime) -> CallOutcome:
        """Wait for all of them, for as long as the provider keeps them. Raises APIError."""
        deployment = self._find_deployment(runtime.models)
        outcomes = await asyncio.gather(*(_fetch_result(deployment, id, self.cost) for id in self.ids))
        results = [each for each in outcomes if isinstance(each, Result)]
        errors = [(i, each) for i, each in enumerate(outcomes) if isinstance(each, ImpastoError)]
        errors += [(i, ChargeUnknown(CHARGE_UNKNOWN)) for i in range(len(outcomes), self.n)]
        if not results:
            first, *others = sorted((error for _, error in errors), key=lambda each: each.billed == "no")
            first.errors = tuple(others)
            await salvage.save_unusable(runtime.salvage_store, first)
            raise to_api_error(first)
        await salvage.save_unusable(runtime.salvage_store, *(error for _, error in errors))
        artifacts = tuple(artifact for result in results for artifact in result.artifacts)
        charged = sum(billed_of_images(error).count("yes") for _, error in errors)
        return CallOutcome(
            artifacts=artifacts,
            warnings=self.warnings,
            lost=tuple({"index": i, **dict(partial_error_payload(error))} for i, error in errors),
            cost=self.cost.times(len(artifacts) + charged) if self.cost is not None else None,
            created=self.created,
        )

    def _find_deployment(self, models: Mapping[str, Model]) -> Deployment:
        for model in models.values():
            for each in model.deployments:
                if each.config.model == self.model and each.account.fingerprint == self.account:
                    return each
        message = f"the key or the address of job {self.ids[0]} is no longer configured, so the job can't be fetched"
        raise APIError(
            502, f"{message}; it may have been charged", SERVER, "charge_unknown", should_retry=False, not_charged=False
        )


async def _fetch_result(deployment: Deployment, id: str, price: Cost | None) -> Result | ImpastoError:
    try:
        with deployment.observer.record_call(deployment.label, price) as recorder:
            result = await deployment.client.resume(deployment.config.model, id, timeout=DAY_SECONDS)
            recorder.record_result(result)
            return result
    except ImpastoError as error:
        return error
