"""Models as callers name them, each with one or more deployments that stand in for each other."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property

import attrs

from impasto import (
    Account,
    Client,
    ConfigError,
    ContentFiltered,
    Cost,
    FlatPrice,
    ImpastoError,
    InvalidRequest,
    NotSent,
    Operation,
    PaymentRequired,
    PermissionDenied,
    Problem,
    ProviderFault,
    RateLimited,
    Result,
    Unauthorized,
)
from impasto.ext import Description, Options, account_of, closest, describe, printable, resolve_model
from impasto_plugins.gateway.config.model import Config, Entry, Mistakes, Params
from impasto_plugins.gateway.errors import is_free
from impasto_plugins.gateway.telemetry.instrumentation import Observer
from impasto_plugins.gateway.telemetry.tracing import DeploymentLabel
from impasto_plugins.openai_compat.settings import split_settings
from impasto_plugins.openai_compat.translate import problems_of_defaults
from impasto_plugins.openai_compat.words import WORDS, may_be_dropped

from .queue_timeout import QueueTimeout

FAILURES = 3
"""How many failures in a row send a deployment to rest."""

REST_SECONDS = 30.0
LONG_REST_SECONDS = 60.0
"""After a refused key or an empty account, which the next call would only meet again."""

_ELSEWHERE = (NotSent, ProviderFault, RateLimited, Unauthorized, PaymentRequired, PermissionDenied, ConfigError)
"""What says nothing about the request, so that another deployment may do better."""

_AT_ONCE = (Unauthorized, PaymentRequired, PermissionDenied, ConfigError)


@attrs.define(eq=False)
class Deployment:
    """One way to a model, and how it did lately. ``name`` tells it from the model's others."""

    name: str
    entry: Entry
    operation: Operation
    client: Client
    account: Account
    description: Description
    timeout: float
    drop_params: bool
    observer: Observer
    running: int = 0
    failures: int = 0
    rests_until: float = 0.0

    @cached_property
    def label(self) -> DeploymentLabel:
        """Its name for metrics and traces."""
        provider, _, model = self.entry.model.partition("/")
        return DeploymentLabel(self.entry.model_name, self.name, provider, model, self.operation.makes)

    @property
    def rank(self) -> float:
        """The ``order`` of its entry; one that has none comes last."""
        return math.inf if self.entry.order is None else self.entry.order

    def priced(self, result: Result) -> Result:
        """Return a result at the price of its entry, if that has one. What cost nothing, as of a cache, stays free."""
        price = self.operation.price
        if self.entry.input_cost_per_image is None or price is None or price.cost is None:
            return result
        is_free = result.cost is not None and not result.cost.usd
        return result if is_free else attrs.evolve(result, cost=price.cost.times(len(result.artifacts)))

    def is_resting(self) -> bool:
        """Whether it failed so lately that others go first."""
        return time.monotonic() < self.rests_until

    def succeeded(self) -> None:
        """It works."""
        self.failures, self.rests_until = 0, 0.0

    def failed(self, error: ImpastoError) -> None:
        """Counts a failure that is the deployment's own, and sends it to rest where it was one too many."""
        if isinstance(error, InvalidRequest | ContentFiltered):
            return
        self.failures += 1
        if isinstance(error, RateLimited):
            asked = error.retry_after  # None: the provider locks nothing, and is asked again soon
            rest = min(2.0 ** (self.failures - 1), REST_SECONDS) if asked is None else asked
            self.rests_until = time.monotonic() + rest
        elif isinstance(error, _AT_ONCE):
            self.rests_until = time.monotonic() + LONG_REST_SECONDS
        elif self.failures >= FAILURES:
            self.rests_until = time.monotonic() + REST_SECONDS


@attrs.frozen(eq=False)
class Model:
    """A model as callers name it."""

    name: str
    deployments: tuple[Deployment, ...]

    def in_turn(self) -> list[Deployment]:
        """Return the deployments in the order in which to try them.

        Those at rest come last, then those of a higher ``order``, or none, come later, then the busier ones.
        """
        if len(self.deployments) == 1:
            return list(self.deployments)
        return sorted(self.deployments, key=lambda d: (d.is_resting(), d.rank, d.running, random.random()))  # noqa: S311 - which of equals, no secret


def may_go_elsewhere(error: ImpastoError) -> bool:
    """Whether another deployment may be asked: nothing was charged, and not because of what was asked."""
    return isinstance(error, _ELSEWHERE) and is_free(error)


async def models_of(config: Config, client: Client, observer: Observer) -> Mapping[str, Model]:
    """Return the models of a configuration, their plugins imported. Raises ConfigError with every mistake's line."""
    found: dict[str, list[Deployment]] = {}
    problems: list[tuple[int, str]] = []
    for entry in config.models:
        try:
            deployment = await _deployment(entry, config, client, observer)
        except ImpastoError as error:
            named = max((name for name in entry.lines if name in error.message), key=len, default="model")
            line = entry.lines.get(named, entry.line)  # that of the setting that the message is about
            problems.append((line, f"{entry.model_name}: {error.message}"))
            continue
        for problem in problems_of_defaults(deployment.operation, entry.defaults):
            said = _said(problem, deployment.operation)
            problems.append((entry.lines[problem.field], f"{entry.model_name}: {printable(problem.field)}: {said}"))
        others = found.setdefault(entry.model_name, [])
        if same := sum(other.entry.model == entry.model for other in others):
            deployment.name += f"#{same + 1}"
        others.append(deployment)
        observer.knows(deployment.label)
    if problems:
        raise Mistakes(config.source, problems)
    return {name: Model(name, tuple(deployments)) for name, deployments in found.items()}


def _said(problem: Problem, operation: Operation) -> str:
    """Return what is wrong with a key of ``litellm_params`` that is meant as a model's default."""
    settings = attrs.fields_dict(Params)
    if problem.field in (*WORDS, *operation.fields, *operation.also) or not may_be_dropped(problem.field):
        return problem.message
    near = closest(problem.field, dict.fromkeys([*settings, *operation.fields, *WORDS]), 1)
    hint = f"did you mean {near[0]}?" if near else f"the model takes {', '.join(operation.fields)}"
    return f"is not taken here, and is no parameter of this model; {hint}"


async def _deployment(entry: Entry, config: Config, client: Client, observer: Observer) -> Deployment:
    name, _ = resolve_model(entry.model, entry.base_model)
    operation = await client.operation(name)
    settings, others = split_settings(operation, entry.reach)
    if others:
        reached_by = operation.provider.name
        raise ConfigError(f"{', '.join(others)} is not how {reached_by} is reached; leave it out")
    timeout = entry.timeout if entry.timeout is not None else config.general.timeout
    settings["poll_interval"] = config.general.poll_interval
    settings["timeout"] = timeout
    settings["middleware"] = (QueueTimeout(), observer, *config.middleware)
    settings["rate_limit"] = entry.rate_limit
    sibling = client.with_options(**settings)
    reached = Options(**settings).settings(operation.provider.name)
    account = await asyncio.to_thread(account_of, operation.provider, reached)  # a wrong key or address is told now
    if entry.input_cost_per_image is not None:
        today = datetime.now(UTC).date().isoformat()
        price = FlatPrice(cost=Cost(usd=entry.input_cost_per_image, as_of=today))
        operation = attrs.evolve(operation, price=price)
    description = await asyncio.to_thread(describe, name, operation)
    await sibling.warm(name)
    if entry.rate_limit is not None:
        account = attrs.evolve(account, rate_limit=entry.rate_limit)
    drop_params = config.drop_params if entry.drop_params is None else entry.drop_params
    return Deployment(entry.model, entry, operation, sibling, account, description, timeout, drop_params, observer)
