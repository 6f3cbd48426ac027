"""Faults on request: which exchanges fail, how often, and whether they were charged all the same.

A fault is a mapping: ``kind`` and that kind's options (the classes of ``failures.KINDS``), and of which requests
(the fields of ``When``). ``{"kind": "status", "status": 502, "body": "html", "target": "/v2beta/", "times": 1}``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import attrs
from aiohttp import web

from impasto import InvalidRequest
from impasto.ext import structure
from impasto_plugins.emulator.server.exchange import Answer, Refuse
from impasto_plugins.emulator.settings import bounded
from impasto_plugins.emulator.state.charges import Record

from .kinds import KINDS, Failure


@attrs.frozen(kw_only=True)
class When:
    """Which requests: those whose path begins with ``target``, of a ``method``, at most ``times`` (None: always),
    each with a ``probability`` drawn from ``seed``. ``charged``: whether the operation runs and is booked."""

    target: str = ""
    method: str | None = None
    times: int | None = None
    probability: float = bounded(1.0, 0, 1)
    seed: int = 0
    charged: bool | None = None


@attrs.define(eq=False)
class Fault:
    """One fault, and how often it may still happen."""

    kind: str
    when: When
    failure: Failure
    left: float
    random: random.Random

    @classmethod
    def of(cls, given: Mapping[str, object]) -> Fault:
        """Makes a fault of its mapping. Raises ValueError, naming every key that is wrong."""
        options = dict(given)
        kind = options.pop("kind", None)
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"kind: must be one of {', '.join(KINDS)}, not {kind!r}")
        about = {a.name: options.pop(a.name) for a in attrs.fields(When) if a.name in options}
        problems = []
        made: list[object] = []
        for params, values in ((When, about), (KINDS[kind], options)):
            try:
                made.append(structure(params, values))
            except InvalidRequest as error:
                problems += [f"{problem.field}: {problem.message}" for problem in error.problems]
        if problems:
            raise ValueError("; ".join(problems))
        when, failure = made
        assert isinstance(when, When)  # noqa: S101 - structured in that order
        assert isinstance(failure, Failure)  # noqa: S101 - as above
        left = float("inf") if when.times is None else when.times
        return cls(kind, when, failure, left, random.Random(when.seed))  # noqa: S311 - no secret

    @property
    def charged(self) -> bool:
        """Whether a success is booked before it fails."""
        return self.failure.charged if self.when.charged is None else self.when.charged

    @property
    def needs_answer(self) -> bool:
        """Whether the operation runs."""
        return self.charged or not self.failure.replaces

    def strikes(self, record: Record) -> bool:
        """Whether it happens to a request; counts it."""
        when = self.when
        if not record.target.startswith(when.target) or when.method not in (None, record.method) or self.left <= 0:
            return False
        if when.probability < 1 and self.random.random() >= when.probability:
            return False
        self.left -= 1
        return True

    async def apply(
        self, request: web.Request, record: Record, answer: Answer | None, refuse: Refuse
    ) -> web.StreamResponse:
        """Answers, or fails to."""
        return await self.failure.apply(request, record, answer or Answer(), refuse)


class Faults:
    """The faults in force; of several that match, the first happens."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, given: Mapping[str, object]) -> None:
        """Adds one. Raises ValueError."""
        self._faults.append(Fault.of(given))

    def replace(self, given: Iterable[Mapping[str, object]]) -> None:
        """Puts these in the place of all. Raises ValueError, and then changes nothing."""
        self._faults = [Fault.of(each) for each in given]

    def reset(self) -> None:
        """Takes all away."""
        self._faults = []

    def take(self, record: Record) -> Fault | None:
        """The fault that happens to a request."""
        return next((fault for fault in self._faults if fault.strikes(record)), None)
