"""Rules for faults: which exchanges fail, how often, and if they are charged.

A fault is a mapping: ``kind`` and that kind's options (the classes of ``kinds.KINDS``), and a selection of requests
(the fields of ``FaultCondition``). ``{"kind": "status", "status": 502, "body": "html", "target": "/v2beta/", "times":
1}``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import attrs
from aiohttp import web

from impasto import InvalidRequest
from impasto.ext import structure
from impasto_plugins.emulator.server.exchange import Refuse, Reply
from impasto_plugins.emulator.settings import bounded_number
from impasto_plugins.emulator.state.charges import LogEntry

from .kinds import KINDS, FaultKind


@attrs.frozen(kw_only=True)
class FaultCondition:
    """A selection of requests: those whose path begins with ``target``, of a ``method``.

    At most ``times`` (None: always) are selected, each with a ``probability`` drawn from ``seed``. ``charged``: the
    operation runs and is booked.
    """

    target: str = ""
    method: str | None = None
    times: int | None = None
    probability: float = bounded_number(1.0, 0, 1)
    seed: int = 0
    charged: bool | None = None


@attrs.define(eq=False)
class Fault:
    """One fault, and the number of times it may still happen."""

    kind: str
    condition: FaultCondition
    behaviour: FaultKind
    remaining: float
    random: random.Random

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> Fault:
        """Create a fault from its mapping. Raises ValueError that names every invalid key."""
        options = dict(mapping)
        kind = options.pop("kind", None)
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"kind: must be one of {', '.join(KINDS)}, not {kind!r}")
        conditions = {a.name: options.pop(a.name) for a in attrs.fields(FaultCondition) if a.name in options}
        problems: list[str] = []
        records: list[object] = []
        for params, values in ((FaultCondition, conditions), (KINDS[kind], options)):
            try:
                records.append(structure(params, values))
            except InvalidRequest as error:
                problems += map(str, error.problems)
        if problems:
            raise ValueError("; ".join(problems))
        when, failure = records
        assert isinstance(when, FaultCondition)  # noqa: S101 - structured in that order
        assert isinstance(failure, FaultKind)  # noqa: S101 - as above
        remaining = float("inf") if when.times is None else when.times
        return cls(kind, when, failure, remaining, random.Random(when.seed))  # noqa: S311 - no secret

    @property
    def charged(self) -> bool:
        """True if a success is booked before it fails."""
        return self.behaviour.charged if self.condition.charged is None else self.condition.charged

    @property
    def needs_answer(self) -> bool:
        """True if the operation runs."""
        return self.charged or not self.behaviour.replaces

    def applies_to(self, record: LogEntry) -> bool:
        """Return True if the fault happens to a request, and count it."""
        when = self.condition
        if not record.target.startswith(when.target) or when.method not in (None, record.method) or self.remaining <= 0:
            return False
        if when.probability < 1 and self.random.random() >= when.probability:
            return False
        self.remaining -= 1
        return True

    async def apply(
        self, request: web.Request, record: LogEntry, answer: Reply | None, refuse: Refuse
    ) -> web.StreamResponse:
        """Send the fault's answer, or none."""
        return await self.behaviour.apply(request, record, answer or Reply(), refuse)


class FaultRules:
    """The active faults; of several that match a request, the first happens."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, values: Mapping[str, object]) -> None:
        """Add one. Raises ValueError."""
        self._faults.append(Fault.from_mapping(values))

    def replace(self, faults: Iterable[Mapping[str, object]]) -> None:
        """Replace all faults. Raises ValueError; then nothing changes."""
        self._faults = [Fault.from_mapping(each) for each in faults]

    def reset(self) -> None:
        """Remove all faults."""
        self._faults = []

    def take(self, record: LogEntry) -> Fault | None:
        """Return the fault that happens to a request, if any."""
        return next((fault for fault in self._faults if fault.applies_to(record)), None)
