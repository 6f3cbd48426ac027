"""Models by their public names, each with one or more deployments as alternatives."""

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
from impasto.ext import Description, Options, account_of, closest, describe, is_not_charged, printable, resolve_model
from impasto_plugins.gateway.config.litellm import ADVICE
from impasto_plugins.gateway.config.model import CALL_PARAMS, Config, DeploymentConfig, DeploymentParams
from impasto_plugins.gateway.config.yaml_nodes import Mistake
from impasto_plugins.gateway.telemetry.instrumentation import Observer
from impasto_plugins.gateway.telemetry.tracing import DeploymentLabel
from impasto_plugins.openai_compat.defaults import problems_of_defaults
from impasto_plugins.openai_compat.settings import own_settings, split_settings
from impasto_plugins.openai_compat.words import WORDS, may_be_dropped

from .queue_timeout import QueueTimeout

COOLDOWN_FAILURES = 3
"""Failures in a row after which a deployment pauses."""

COOLDOWN_SECONDS = 30.0
LONG_COOLDOWN_SECONDS = 60.0
"""Pause after a refused key or an empty account, which the next call would meet again."""

_FALLBACK_ERRORS = (NotSent, ProviderFault, RateLimited, Unauthorized, PaymentRequired, PermissionDenied, ConfigError)
"""Errors that say nothing about the request, so that another deployment may succeed."""

_ACCOUNT_ERRORS = (Unauthorized, PaymentRequired, PermissionDenied, ConfigError)


@attrs.define(eq=False)
class Deployment:
    """One way to a model, with its recent failures. ``name`` is unique among the model's deployments."""

    name: str
    config: DeploymentConfig
    operation: Operation
    client: Client
    account: Account
    description: Description
    drop_params: bool
    observer: Observer
    running: int = 0
    failures: int = 0
    cooldown_until: float = 0.0

    @cached_property
    def label(self) -> DeploymentLabel:
        """Its name for metrics and traces."""
        provider, _, model = self.config.model.partition("/")
        return DeploymentLabel(self.config.model_name, self.name, provider, model, self.operation.output)

    @property
    def rank(self) -> float:
        """The ``order`` of its entry; an entry without one comes last."""
        return math.inf if self.config.order is None else self.config.order

    def apply_price(self, result: Result) -> Result:
        """Return a result at the price of its entry, if that has one. A free result, as of a cache, stays free."""
        price = self.operation.flat_cost
        if self.config.input_cost_per_image is None or price is None:
            return result
        if result.cost is not None and not result.cost.usd:
            return result
        for each in result.errors:
            each.error.cost = None
        return result.priced(price)

    def price_error(self, error: ImpastoError) -> None:
        """Let the price of its entry count for an error too, if it has one, in place of what the provider says."""
        if self.config.input_cost_per_image is not None:
            for each in (error, *error.errors):
                each.cost = None

    def is_cooling_down(self) -> bool:
        """Return True if it failed so recently that others go first."""
        return time.monotonic() < self.cooldown_until

    def record_success(self) -> None:
        """Note a success."""
        self.failures, self.cooldown_until = 0, 0.0

    def record_failure(self, error: ImpastoError) -> None:
        """Count a failure of the deployment itself, and pause it after too many."""
        if isinstance(error, InvalidRequest | ContentFiltered):
            return
        self.failures += 1
        if isinstance(error, RateLimited):
            retry_after = error.retry_after  # None: the provider locks nothing, and is asked again soon
            cooldown = min(2.0 ** (self.failures - 1), COOLDOWN_SECONDS) if retry_after is None else retry_after
            self.cooldown_until = time.monotonic() + cooldown
        elif isinstance(error, _ACCOUNT_ERRORS):
            self.cooldown_until = time.monotonic() + LONG_COOLDOWN_SECONDS
        elif self.failures >= COOLDOWN_FAILURES:
            self.cooldown_until = time.monotonic() + COOLDOWN_SECONDS


@attrs.frozen(eq=False)
class Model:
    """A model under its public name."""

    name: str
    deployments: tuple[Deployment, ...]

    def by_preference(self) -> list[Deployment]:
        """Return the deployments in the order in which to try them.

        Paused ones come last; before them, those with a higher ``order``, or none, come later, then the busier ones.
        """
        if len(self.deployments) == 1:
            return list(self.deployments)
        return sorted(self.deployments, key=lambda d: (d.is_cooling_down(), d.rank, d.running, random.random()))  # noqa: S311 - which of equals, no secret


def can_fall_back(error: ImpastoError) -> bool:
    """Return True if another deployment may be tried: nothing was charged, and the request is not to blame."""
    return isinstance(error, _FALLBACK_ERRORS) and is_not_charged(error)


async def load_models(config: Config, client: Client, observer: Observer) -> tuple[Mapping[str, Model], list[Mistake]]:
    """Return the models of a configuration, their plugins imported, and every mistake in them."""
    deployments_by_model: dict[str, list[Deployment]] = {}
    mistakes: list[Mistake] = []
    for entry in config.models:
        if entry.unknown_fields & {"model", "base_model", "model_id"}:
            continue
        try:
            name, _ = resolve_model(entry.model, entry.base_model)
            operation = await client.operation(name)
        except ImpastoError as error:
            if not isinstance(error, NotAllowed) or "general_settings.plugins" not in config.unknown_fields:
                setting = "base_model" if "base_model" in entry.lines else "model"
                mistakes.append(_make_mistake(entry, setting, error.message))
            continue
        entry = _with_provider_settings(entry, operation)
        entry_mistakes = _check_defaults(entry, operation)
        entry_mistakes += await asyncio.to_thread(_check_settings, entry, operation)
        try:
            if entry_mistakes or entry.unknown_fields:
                await client.warm(name)  # what its transport needs may be missing too
            else:
                deployment = await _create_deployment(entry, operation, config, client, observer)
                others = deployments_by_model.setdefault(entry.model_name, [])
                if duplicates := sum(other.config.model == entry.model for other in others):
                    deployment.name += f"#{duplicates + 1}"
                others.append(deployment)
                observer.register_deployment(deployment.label)
        except ImpastoError as error:
            entry_mistakes.append(_make_mistake(entry, "model", error.message))
        mistakes += entry_mistakes
    return {name: Model(name, tuple(deployments)) for name, deployments in deployments_by_model.items()}, mistakes


def _with_provider_settings(entry: DeploymentConfig, operation: Operation) -> DeploymentConfig:
    """Return the entry with the settings that its provider declares apart from the model's default values."""
    own = own_settings(operation)
    return attrs.evolve(
        entry,
        defaults={name: value for name, value in entry.defaults.items() if name not in own},
        provider_settings={
            **entry.provider_settings, **{name: entry.defaults[name] for name in own if name in entry.defaults}
        },
    )  # fmt: skip


def _make_mistake(entry: DeploymentConfig, setting: str, message: str) -> Mistake:
    return entry.lines.get(setting, entry.line), f"{entry.model_name}: {message}"


def _check_defaults(entry: DeploymentConfig, operation: Operation) -> list[Mistake]:
    """Return the problems of a model's default values."""
    setting_names = {*attrs.fields_dict(DeploymentParams), *own_settings(operation)}
    unknown_names = (
        name for name in entry.unknown_fields if name not in setting_names and not _is_default(name, operation)
    )
    problems = [*problems_of_defaults(operation, entry.defaults), *(Problem(name, "") for name in unknown_names)]
    return [
        _make_mistake(entry, problem.field, f"{printable(problem.field)}: {_describe_problem(problem, operation)}")
        for problem in problems
    ]


def _is_default(field: str, operation: Operation) -> bool:
    """Return True if a name may be a default value of a model."""
    return field in (*WORDS, *operation.fields, *operation.aliases) or not may_be_dropped(field)


def _describe_problem(problem: Problem, operation: Operation) -> str:
    """Return the problem of a key in ``litellm_params`` that is meant as a model's default."""
    if _is_default(problem.field, operation):
        return problem.message
    if problem.field in ADVICE:
        return f"unknown setting; {ADVICE[problem.field]}"
    names = (*attrs.fields_dict(DeploymentParams), *own_settings(operation), *operation.fields, *WORDS)
    closest_names = closest(problem.field, dict.fromkeys(names), 1)
    hint = f"did you mean {closest_names[0]}?" if closest_names else f"the model takes {', '.join(operation.fields)}"
    return f"is not a setting of a deployment, nor a parameter of this model; {hint}"


_PLACEHOLDER_URL = "http://127.0.0.1"
"""An address without a key, to check the other settings if one is wrong or unknown."""


def _check_settings(entry: DeploymentConfig, operation: Operation) -> list[Mistake]:
    """Return the problems of the settings of a model's provider."""
    setting_names = {*attrs.fields_dict(DeploymentParams), *own_settings(operation)}.difference(CALL_PARAMS)
    unknown_names = [name for name in entry.unknown_fields if name in setting_names]
    _, foreign_names = split_settings(operation, {**entry.provider_settings, **dict.fromkeys(unknown_names, "")})
    provider = operation.provider
    mistakes = [
        _make_mistake(entry, name, f"{name} is not a setting of the provider {provider.name}; leave it out")
        for name in foreign_names
    ]
    settings = {name: value for name, value in entry.provider_settings.items() if name not in foreign_names}
    stand_in = _PLACEHOLDER_URL if unknown_names else None

    def problem_without(*names: str) -> str | None:
        settings_without, _ = split_settings(
            operation, {name: value for name, value in settings.items() if name not in names}
        )
        try:
            options = Options(**settings_without).settings(provider.name)
            account_of(provider, options, emulator_url=_PLACEHOLDER_URL if names else stand_in)
        except ImpastoError as error:
            return error.message
        return None

    while (message := problem_without()) is not None:
        setting = next((name for name in settings if problem_without(name) != message), "model")
        mistakes.append(_make_mistake(entry, setting, message))
        if settings.pop(setting, None) is None:
            break
        stand_in = _PLACEHOLDER_URL
    return mistakes


async def _create_deployment(
    entry: DeploymentConfig, operation: Operation, config: Config, client: Client, observer: Observer
) -> Deployment:
    name, _ = resolve_model(entry.model, entry.base_model)
    settings, _ = split_settings(operation, entry.provider_settings)
    timeout = entry.timeout if entry.timeout is not None else config.general.timeout
    settings["poll_interval"] = config.general.poll_interval
    settings["timeout"] = timeout
    settings["middleware"] = (QueueTimeout(), observer, *config.middleware)
    settings["rate_limit"] = entry.rate_limit
    sibling = client.with_options(**settings)
    options = Options(**settings).settings(operation.provider.name)
    account = await asyncio.to_thread(account_of, operation.provider, options)
    if entry.input_cost_per_image is not None:
        today = datetime.now(UTC).date().isoformat()
        price = FlatPrice(cost=Cost(usd=entry.input_cost_per_image, as_of=today))
        operation = attrs.evolve(operation, price=price)
    description = await asyncio.to_thread(describe, name, operation)
    await sibling.warm(name)
    if entry.rate_limit is not None:
        account = attrs.evolve(account, rate_limit=entry.rate_limit)
    drop_params = config.drop_params if entry.drop_params is None else entry.drop_params
    return Deployment(entry.model, entry, operation, sibling, account, description, drop_params, observer)
