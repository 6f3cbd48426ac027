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
    NotAllowed,
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
from impasto_plugins.gateway.config.model import CALL, Config, Entry, Params
from impasto_plugins.gateway.config.yaml_nodes import Mistake
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


async def models_of(config: Config, client: Client, observer: Observer) -> tuple[Mapping[str, Model], list[Mistake]]:
    """Return the models of a configuration, their plugins imported, and every mistake in them."""
    found: dict[str, list[Deployment]] = {}
    mistakes: list[Mistake] = []
    for entry in config.models:
        if entry.unread & {"model", "base_model", "model_id"}:
            continue
        try:
            name, _ = resolve_model(entry.model, entry.base_model)
            operation = await client.operation(name)
        except ImpastoError as error:
            if not isinstance(error, NotAllowed) or "general_settings.plugins" not in config.unread:
                named = "base_model" if "base_model" in entry.lines else "model"
                mistakes.append(_mistake(entry, named, error.message))
            continue
        own = _mistakes_of_defaults(entry, operation)
        own += await asyncio.to_thread(_mistakes_of_settings, entry, operation)
        try:
            if own or entry.unread:
                await client.warm(name)  # what its transport needs may be missing too
            else:
                deployment = await _deployment(entry, operation, config, client, observer)
                others = found.setdefault(entry.model_name, [])
                if same := sum(other.entry.model == entry.model for other in others):
                    deployment.name += f"#{same + 1}"
                others.append(deployment)
                observer.knows(deployment.label)
        except ImpastoError as error:
            own.append(_mistake(entry, "model", error.message))
        mistakes += own
    return {name: Model(name, tuple(deployments)) for name, deployments in found.items()}, mistakes


def _mistake(entry: Entry, setting: str, message: str) -> Mistake:
    return entry.lines.get(setting, entry.line), f"{entry.model_name}: {message}"


def _mistakes_of_defaults(entry: Entry, operation: Operation) -> list[Mistake]:
    """Return what is wrong with the default values for a model."""
    own = attrs.fields_dict(Params)
    unread = (name for name in entry.unread if name not in own and not _is_taken(name, operation))
    problems = [*problems_of_defaults(operation, entry.defaults), *(Problem(name, "") for name in unread)]
    return [
        _mistake(entry, problem.field, f"{printable(problem.field)}: {_said(problem, operation)}")
        for problem in problems
    ]


def _is_taken(field: str, operation: Operation) -> bool:
    """Return True if a name may stand among the default values for a model."""
    return field in (*WORDS, *operation.fields, *operation.also) or not may_be_dropped(field)


def _said(problem: Problem, operation: Operation) -> str:
    """Return what is wrong with a key of ``litellm_params`` that is meant as a model's default."""
    if _is_taken(problem.field, operation):
        return problem.message
    near = closest(problem.field, dict.fromkeys([*attrs.fields_dict(Params), *operation.fields, *WORDS]), 1)
    hint = f"did you mean {near[0]}?" if near else f"the model takes {', '.join(operation.fields)}"
    return f"is not taken here, and is no parameter of this model; {hint}"


_STAND_IN = "http://127.0.0.1"
"""An address that needs no key, for the check of the other settings if one is wrong or not known."""


def _mistakes_of_settings(entry: Entry, operation: Operation) -> list[Mistake]:
    """Return what is wrong with the way in which a model's provider is reached."""
    unread = [name for name in entry.unread if name in attrs.fields_dict(Params) and name not in CALL]
    _, foreign = split_settings(operation, {**entry.reach, **dict.fromkeys(unread, "")})
    provider = operation.provider
    mistakes = [
        _mistake(entry, name, f"{name} is not how {provider.name} is reached; leave it out") for name in foreign
    ]
    given = {name: value for name, value in entry.reach.items() if name not in foreign}
    stand_in = _STAND_IN if unread else None

    def wrong_without(*names: str) -> str | None:
        rest, _ = split_settings(operation, {name: value for name, value in given.items() if name not in names})
        try:
            reached = Options(**rest).settings(provider.name)
            account_of(provider, reached, stand_in=_STAND_IN if names else stand_in)
        except ImpastoError as error:
            return error.message
        return None

    while (message := wrong_without()) is not None:
        setting = next((name for name in given if wrong_without(name) != message), "model")
        mistakes.append(_mistake(entry, setting, message))
        if given.pop(setting, None) is None:
            break
        stand_in = _STAND_IN
    return mistakes


async def _deployment(
    entry: Entry, operation: Operation, config: Config, client: Client, observer: Observer
) -> Deployment:
    name, _ = resolve_model(entry.model, entry.base_model)
    settings, _ = split_settings(operation, entry.reach)
    timeout = entry.timeout if entry.timeout is not None else config.general.timeout
    settings["poll_interval"] = config.general.poll_interval
    settings["timeout"] = timeout
    settings["middleware"] = (QueueTimeout(), observer, *config.middleware)
    settings["rate_limit"] = entry.rate_limit
    sibling = client.with_options(**settings)
    reached = Options(**settings).settings(operation.provider.name)
    account = await asyncio.to_thread(account_of, operation.provider, reached)
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
