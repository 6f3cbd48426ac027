"""What a provider took on as a job of its own: fetched by its id, by whichever process, with the key it began with.

Asking for it costs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping

import attrs

from impasto import Cost, ImpastoError, Result
from impasto_plugins.gateway.config.model import DAY
from impasto_plugins.gateway.errors import SERVER, Failure, failure_of, lost, unknown
from impasto_plugins.gateway.storage import salvage

from .deployments import Deployment, Model
from .execution import Checked, Done
from .runtime import Setup


@attrs.frozen(kw_only=True)
class Accepted:
    """Jobs of one call for ``n`` pictures. ``account`` is the fingerprint of the key and the address it is with."""

    model: str
    account: str
    ids: tuple[str, ...]
    n: int
    cost: Cost | None
    warnings: tuple[str, ...]
    created: int

    @classmethod
    def of(cls, checked: Checked, account: str, ids: Iterable[str], created: int) -> Accepted:
        """What is known of a call when its job was taken on."""
        return cls(
            model=checked.deployment.entry.model,
            account=account,
            ids=tuple(ids),
            n=checked.n,
            cost=checked.cost,
            warnings=checked.warnings,
            created=created,
        )

    @classmethod
    def read(cls, text: str) -> Accepted:
        """The same from its JSON."""
        told = json.loads(text)
        cost = Cost(**told.pop("cost")) if told["cost"] is not None else told.pop("cost")
        return cls(ids=tuple(told.pop("ids")), warnings=tuple(told.pop("warnings")), cost=cost, **told)

    def json(self) -> str:
        """For its row."""
        return json.dumps(attrs.asdict(self))

    async def fetch(self, setup: Setup) -> Done:
        """Waits for all of them, for as long as the provider keeps them. Raises Failure."""
        deployment = self._deployment(setup.models)
        outcomes = await asyncio.gather(*(_fetched(deployment, id) for id in self.ids))
        results = [each for each in outcomes if isinstance(each, Result)]
        errors = [(i, each) for i, each in enumerate(outcomes) if isinstance(each, ImpastoError)]
        await salvage.keep(setup.unread, *(error for _, error in errors))
        if not results:
            raise failure_of(errors[0][1])
        never_seen = {**unknown().body()["error"], "billed": "unknown"}
        artifacts = tuple(artifact for result in results for artifact in result.artifacts)
        return Done(
            artifacts=artifacts,
            warnings=self.warnings,
            lost=(
                *({"index": i, **dict(lost(error))} for i, error in errors),
                *({"index": i, **never_seen} for i in range(len(outcomes), self.n)),
            ),
            cost=self.cost.times(len(artifacts)) if self.cost is not None else None,
            created=self.created,
        )

    def _deployment(self, models: Mapping[str, Model]) -> Deployment:
        for model in models.values():
            for each in model.deployments:
                if each.entry.model == self.model and each.account.fingerprint == self.account:
                    return each
        said = f"the key or the address that it began with is gone, and without it job {self.ids[0]} can't be fetched"
        raise Failure(
            502, f"{said}; it may have been charged", SERVER, "charge_unknown", should_retry=False, free=False
        )


async def _fetched(deployment: Deployment, id: str) -> Result | ImpastoError:
    try:
        with deployment.observer.attempt(deployment.label) as attempt:
            result = await deployment.client.resume(deployment.entry.model, id, timeout=DAY)
            attempt.came(result)
            return result
    except ImpastoError as error:
        return error
