"""What an author declares of a model for its suite, and how every check calls it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import attrs

from impasto import Client, ImpastoError, Operation, RateLimit, Registry, Result, Retry
from impasto.client_state import BUILT_IN
from impasto.options import Settings
from impasto.registry import MIDDLEWARE, OPERATIONS, TRANSPORTS

from .recorder import Answer, Seen

KEY = "sk-canary-5f2d9c71b6e84a30"
"""The key of every call: it must turn up in requests only."""

_ONCE = Retry(attempts=1, refused=0, max_wait=0)
"""Nothing is tried again, and a 429 pauses nobody."""

_ANY = RateLimit(1_000_000, 1.0)


@attrs.frozen(kw_only=True)
class Refusal:
    """A refusal in the provider's own form, and what must become of it."""

    answer: Answer
    error: type[ImpastoError]
    billed: str = "no"


@attrs.frozen(kw_only=True)
class Requirements:
    """What a model can and can't do, which decides what is asked of it.

    ``tells_cut_ones``: its plugin sees that a picture (or sound, or model) of a complete answer is cut short.
    ``respelled``: fields whose value does not stand on the wire as it was given. ``formed``: fields whose text has a
    form of its own, so that not every text of a right length is taken.
    """

    tells_cut_ones: bool = True
    respelled: frozenset[str] = frozenset()
    formed: frozenset[str] = frozenset()


class Subject:
    """The declarations of one model."""

    model: ClassVar[str] = ""
    """Its name, as it is installed."""
    least: ClassVar[Mapping[str, object]] = {}
    """The least that it takes."""
    others: ClassVar[Mapping[str, object]] = {}
    """A value for each of its other fields."""
    beside: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """What has to be given beside a field, where a rule ties it to others. None takes a field of ``least`` away."""
    good: ClassVar[Answer]
    """The provider's answer with a result."""
    accepted: ClassVar[Answer | None] = None
    """The provider's answer that a job was accepted, where it has jobs."""
    refusals: ClassVar[Sequence[Refusal]] = ()
    """The provider's own refusals, one of each kind at least."""
    requirements: ClassVar[Requirements] = Requirements()

    def setup_method(self) -> None:
        """Finds the model before each test: what reads installed metadata must not run in a loop."""
        self._operation = Registry().operation(self.model)
        self._alone = self._registry()

    def settings(self, url: str) -> Settings:
        """The client's settings by which the provider is found at ``url`` and called with ``KEY``."""
        return {"providers": {self.operation().provider.name: {"api_base": url, "api_key": KEY}}}

    def operation(self) -> Operation:
        """The plugin."""
        return self._operation

    def alone(self) -> Registry:
        """A registry of this model and what it needs: what else is installed can't colour a result."""
        return self._alone

    def _registry(self) -> Registry:
        installed, operation = Registry(), self.operation()
        transport = operation.provider.transport
        registry = Registry(discover=False)
        registry.add(OPERATIONS, self.model, operation)
        registry.add(TRANSPORTS, transport, installed.load(TRANSPORTS, transport, type))
        for name in BUILT_IN:
            registry.add(MIDDLEWARE, name, installed.load(MIDDLEWARE, name, object))
        return registry

    def usual(self, seen: Seen) -> Answer:
        """What the provider answers where all is well."""
        if self.accepted is not None and seen.method == "POST":
            return self.accepted
        return self.good

    def client(self, url: str) -> Client:
        """A client that finds the provider at ``url`` and tries nothing again."""
        client = Client(registry=self.alone(), **self.settings(url))
        return client.with_options(retry=_ONCE, rate_limit=_ANY, poll_interval=0.01, timeout=30.0)

    def given(self, field: str, value: object) -> dict[str, object]:
        """The least call in which a field has this value. Override it where that depends on the value."""
        given = {**self.least, **self.beside.get(field, {}), field: value}
        return {name: each for name, each in given.items() if each is not None}

    def values(self) -> Iterator[tuple[str, object]]:
        """Every field with the value that its author gave."""
        yield from {**self.others, **self.least}.items()


async def outcome(client: Client, model: str, given: Mapping[str, object]) -> Result | BaseException:
    """What a call came to."""
    try:
        return await client.invoke(model, given)
    except Exception as error:  # noqa: BLE001 - what it is, is what the check is about
        return error
