"""Models as callers name them, each with one or more deployments that stand in for each other."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from functools import cached_property

import attrs

from impasto import (
    Account,
    Client,
    ConfigError,
    ContentFiltered,
    ImpastoError,
    InvalidRequest,
    NotSent,
    Operation,
    PaymentRequired,
    PermissionDenied,
    ProviderFault,
    RateLimited,
    Unauthorized,
)
from impasto.ext import Description, Options, account_of
from impasto_plugins.gateway.config.model import Config, Entry
from impasto_plugins.gateway.errors import is_free
from impasto_plugins.gateway.telemetry.instrumentation import Observer
from impasto_plugins.gateway.telemetry.tracing import DeploymentLabel
from impasto_plugins.openai_compat.settings import split_settings

from .queue_timeout import QueueTimeout

FAILURES = 3
"""How many failures in a row send a deployment to rest."""

REST_SECONDS = 30.0
LONG_REST_SECONDS = 60.0
"""After a refused key, an empty account or too many requests, which the next call would only meet again."""

_ELSEWHERE = (NotSent, ProviderFault, RateLimited, Unauthorized, PaymentRequired, PermissionDenied, ConfigError)
"""What says nothing about the request, so that another deployment may do better."""

_AT_ONCE = (RateLimited, Unauthorized, PaymentRequired, PermissionDenied, ConfigError)


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
    observer: Observer
    running: int = 0
    failures: int = 0
    rests_until: float = 0.0

    @cached_property
    def label(self) -> DeploymentLabel:
        """Its name for metrics and traces."""
        provider, _, model = self.entry.model.partition("/")
        return DeploymentLabel(self.entry.model_name, self.name, provider, model, self.operation.makes)

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
        if isinstance(error, _AT_ONCE):
            asked = error.retry_after if isinstance(error, RateLimited) else None
            self.rests_until = time.monotonic() + (LONG_REST_SECONDS if asked is None else asked)
        elif self.failures >= FAILURES:
            self.rests_until = time.monotonic() + REST_SECONDS


@attrs.frozen(eq=False)
class Model:
    """A model as callers name it."""

    name: str
    deployments: tuple[Deployment, ...]

    def in_turn(self) -> list[Deployment]:
        """The deployments in the order in which to try them: the least busy first, those at rest last."""
        if len(self.deployments) == 1:
            return list(self.deployments)
        return sorted(self.deployments, key=lambda d: (d.is_resting(), d.running, random.random()))  # noqa: S311 - which of equals, no secret


def may_go_elsewhere(error: ImpastoError) -> bool:
    """Whether another deployment may be asked: nothing was charged, and not because of what was asked."""
    return isinstance(error, _ELSEWHERE) and is_free(error)


async def models_of(config: Config, client: Client, observer: Observer) -> Mapping[str, Model]:
    """The models of a configuration, their plugins imported. Raises ConfigError, naming the entry's line."""
    found: dict[str, list[Deployment]] = {}
    for entry in config.models:
        try:
            deployment = await _deployment(entry, config, client, observer)
        except ImpastoError as error:
            raise ConfigError(f"{config.source}: line {entry.line}: {entry.model_name}: {error.message}") from None
        others = found.setdefault(entry.model_name, [])
        if same := sum(other.entry.model == entry.model for other in others):
            deployment.name += f"#{same + 1}"
        others.append(deployment)
        observer.knows(deployment.label)
    return {name: Model(name, tuple(deployments)) for name, deployments in found.items()}


async def _deployment(entry: Entry, config: Config, client: Client, observer: Observer) -> Deployment:
    operation = await client.operation(entry.model, base_model=entry.base_model)
    settings, others = split_settings(operation, entry.reach)
    if others:
        name = operation.provider.name
        raise ConfigError(f"{', '.join(others)} is not how {name} is reached; leave it out")
    timeout = entry.timeout if entry.timeout is not None else config.general.timeout
    settings["poll_interval"] = config.general.poll_interval
    settings["timeout"] = timeout
    settings["middleware"] = (QueueTimeout(), observer, *config.middleware)
    sibling = client.with_options(**settings)
    reached = Options(**settings).settings(operation.provider.name)
    account = await asyncio.to_thread(account_of, operation.provider, reached)  # a wrong key or address is told now
    description = await asyncio.to_thread(sibling.describe, entry.base_model or entry.model)
    await sibling.warm(entry.base_model or entry.model)
    return Deployment(entry.model, entry, operation, sibling, account, description, timeout, observer)
