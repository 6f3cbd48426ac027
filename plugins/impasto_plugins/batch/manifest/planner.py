"""All of a manifest, looked at before anything is spent: every bad row, and what the good ones will cost."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import attrs

from impasto import InvalidRequest, ManifestError, Operation, Problem, RegistryError
from impasto.ext import MOST, close_files
from impasto_plugins.batch.filenames import wrong_id
from impasto_plugins.batch.ledger.index import Pictures
from impasto_plugins.batch.ledger.states import State
from impasto_plugins.batch.ledger.workspace import History
from impasto_plugins.batch.tasks import Unit

from .fast_validation import Right, Screen, Share
from .reader import Manifest
from .records import Given, Line, Unread
from .rows import Asked, asked, digest, marked, units

_BUCKETS = 1024
"""Ids are compared by their hashes, so many of them at a time: a row takes 8 bytes."""


class Bad(NamedTuple):
    """A row that can't be run. ``line`` is its number in the manifest."""

    line: int
    id: str | None
    problems: tuple[str, ...]

    def __str__(self) -> str:
        named = f" ({self.id})" if self.id is not None else ""
        return f"line {self.line}{named}: {'; '.join(self.problems)}"


@attrs.frozen(kw_only=True)
class Again:
    """Which pictures of earlier runs are taken up, beside those that every run takes up."""

    failed: bool = False
    ambiguous: bool = False

    def takes(self) -> tuple[bool, ...]:
        """Whether a picture is asked for, by the number of the state in which it stands; 0 is one that is new."""
        taken = {0, State.REFUSED_AGAIN, *[State.REFUSED] * self.failed, *[State.AMBIGUOUS] * self.ambiguous}
        return tuple(number in taken for number in range(len(State) + 1))


@attrs.define(kw_only=True)
class Plan:
    """What a manifest asks for, and what of it is still to be made.

    ``strangers`` are pictures that the ledger knows and the manifest does not. ``passed_over`` are lines: the bad
    ones, and the later ones of twins.
    """

    mark: tuple[int, int]
    rows: int = 0
    shares: list[Share] = attrs.field(factory=list[Share])
    bad: list[Bad] = attrs.field(factory=list[Bad])
    twins: list[Bad] = attrs.field(factory=list[Bad])
    strangers: Counter[State] = attrs.field(factory=Counter[State])
    extra: int = 0
    """How many images of the manifest's rows came and were not asked for."""
    known: list[int] = attrs.field(factory=lambda: [0] * (len(State) + 1))
    """How many of the manifest's pictures stand where, by the numbers of the states."""
    passed_over: set[int] = attrs.field(factory=set[int])

    @property
    def pictures(self) -> int:
        return sum(share.pictures for share in self.shares)

    @property
    def to_do(self) -> int:
        return sum(share.to_do for share in self.shares)

    @property
    def usd(self) -> float:
        """What the pictures that are to be made cost, as far as that is known."""
        return sum(share.to_do * (share.usd or 0.0) for share in self.shares)


@attrs.define(kw_only=True)
class Preflight:
    """Reads a manifest, for what a folder's ``history`` still lacks of it."""

    manifest: Manifest
    history: History
    again: Again = Again()
    drop_params: bool = False
    dedupe: bool = False
    _operations: dict[str, Operation | RegistryError] = attrs.field(factory=dict[str, Operation | RegistryError])
    _screens: dict[str, Screen | None] = attrs.field(factory=dict[str, Screen | None])
    _file_words: dict[str, frozenset[str]] = attrs.field(factory=dict[str, frozenset[str]])
    _others: dict[object, Share] = attrs.field(factory=dict[object, Share])
    _through: Share = attrs.field(factory=lambda: Share("", None, None))
    """Rows of which nothing is left to do."""

    _takes: tuple[bool, ...] = attrs.field(init=False)
    _pictures: Pictures = attrs.field(init=False)
    _folder: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._takes, self._pictures = self.again.takes(), self.history.pictures
        self._folder = self.manifest.folder

    def plan(self) -> Plan:
        """Looks at every row. Raises ManifestError where the manifest can't be read, or has none."""
        try:
            return self._plan()
        finally:
            self.history.close()

    def _plan(self) -> Plan:
        plan = Plan(mark=self.manifest.mark())
        hashes = [array("q") for _ in range(_BUCKETS)]
        for line in self.manifest.rows():
            plan.rows += 1
            try:
                row = self._read(line)
            except InvalidRequest as error:
                plan.bad.append(Bad(line[0], _id_of(line[1]), tuple(map(_said, error.problems))))
                continue
            key = hash(row.id)
            hashes[key % _BUCKETS].append(key)
            self._count(row, plan)
        if not plan.rows:
            raise ManifestError(f"the manifest {self.manifest.name} has no rows")
        twins = {key for bucket in hashes if len(set(bucket)) < len(bucket) for key in _repeated(bucket)}
        if twins:
            self._tell_twins(twins, plan)
        plan.passed_over = {each.line for each in (*plan.bad, *plan.twins)}
        known = Counter({state: plan.known[state] for state in State})
        known[State.DONE] += plan.extra
        plan.strangers = self._pictures.count - known
        plan.shares = self._shares()
        return plan

    @property
    def operations(self) -> list[Operation]:
        """Operations of the manifest's rows, once the plan is made."""
        return [each for each in self._operations.values() if isinstance(each, Operation)]

    def to_do(self, plan: Plan) -> Iterator[Unit]:
        """The pictures that are to be made, in the manifest's order. Raises ManifestError where it was changed."""
        if not plan.to_do:
            return
        for line in self.manifest.rows():
            if line[0] not in plan.passed_over and self._is_through(line) is None:
                made = self._units(line)
                left = self._pictures.states(made[0].id, len(made))
                yield from (unit for unit, state in zip(made, left, strict=True) if self._takes[state])
        if self.manifest.mark() != plan.mark:
            raise ManifestError("the manifest was changed while it was run; run it again to take up what is new")

    def _read(self, line: Line) -> Right:
        """A row, looked at. Raises InvalidRequest."""
        if not self._pictures:
            return self._glance(line[1]) or self._looked_at(line)
        through = self._is_through(line)
        if through is not None:
            return through
        right = self._glance(line[1]) or self._looked_at(line)
        self._check_known(right, line)
        return right

    def _is_through(self, line: Line) -> Right | None:
        """The row, where each of its pictures was asked for by this very line, and none is left to do."""
        _, given, written = line
        if not self._pictures or not isinstance(given, dict):
            return None
        body = given.get("body")
        id, words = (given.get("id"), given) if body is None else (given.get("custom_id"), body)
        if not isinstance(id, str) or not isinstance(words, dict):
            return None
        n = words.get("n", 1)
        if type(n) is not int or not 1 <= n <= MOST:
            return None
        states = self._pictures.states(id, n, self._marked(written, words))
        for state in states:
            if self._takes[state]:
                return None
        return Right(id, n, self._through, None, states)

    def _marked(self, line: bytes, words: Given) -> int:
        model = words.get("base_model") or words.get("model")
        if not isinstance(model, str):
            return 0
        if (files := self._file_words.get(model)) is None:
            operation = self._loaded(model)
            files = operation.file_words if isinstance(operation, Operation) else frozenset()
            self._file_words[model] = files
        return marked(line, words, files, self._folder)

    def _looked_at(self, line: Line) -> Right:
        made = self._units(line)
        for unit in made:
            if unit.request is not None:
                close_files(unit.request.params)
        unit = made[0]
        usd = unit.cost.usd if unit.cost is not None else None
        share = self._others.setdefault((unit.model, unit.base_model, usd), Share(unit.model, unit.base_model, usd))
        return Right(unit.id, len(made), share, unit.sha256)

    def _units(self, line: Line) -> list[Unit]:
        row = self._asked(line[1])
        operation = self._operation(row)
        number, _, written = line
        return units(row, operation, self._folder, drop_params=self.drop_params, line=written, position=number)

    def _glance(self, given: Given | Unread) -> Right | None:
        if isinstance(given, Unread):
            return None
        body = given.get("body")
        model = body.get("model") if isinstance(body, dict) else given.get("model")
        if not isinstance(model, str):
            return None
        if model not in self._screens:
            operation = self._loaded(model)
            self._screens[model] = Screen.of(model, operation) if isinstance(operation, Operation) else None
        screen = self._screens[model]
        return screen.glance(given) if screen is not None else None

    def _asked(self, given: Given | Unread) -> Asked:
        if isinstance(given, Unread):
            raise InvalidRequest([Problem("", given.reason)])
        return asked(given)

    def _operation(self, row: Asked) -> Operation:
        operation = self._loaded(row.base_model or row.model)
        if isinstance(operation, RegistryError):
            raise InvalidRequest([Problem("model", operation.message)])
        return operation

    def _loaded(self, model: str) -> Operation | RegistryError:
        if model not in self._operations:
            try:
                self._operations[model] = self.manifest.load(model)
            except RegistryError as error:
                self._operations[model] = error
        return self._operations[model]

    def _check_known(self, row: Right, line: Line) -> None:
        """Raises InvalidRequest where the ledger knows the id with other content."""
        if self._pictures.states(row.id, 1) != [0] and self.history.asked(row.id, 0)["asks"] != self._sha256(row, line):
            said = "was run in this folder before, with other content; give it another id, or run in another folder"
            raise InvalidRequest([Problem("id", said)])

    def _sha256(self, row: Right, line: Line) -> str:
        return row.sha256 if row.sha256 is not None else digest(self._asked(line[1]), {})

    def _count(self, row: Right, plan: Plan, times: int = 1) -> None:
        share, n = row.share, row.n
        share.pictures += n * times
        if not self._pictures:
            share.to_do += n * times
            return
        plan.extra += len(self._pictures.extras(row.id, n)) * times
        for state in row.states or self._pictures.states(row.id, n):
            plan.known[state] += times
            share.to_do += self._takes[state] * times

    def _shares(self) -> list[Share]:
        screened = [screen.share for screen in self._screens.values() if screen is not None]
        return [share for share in (self._through, *screened, *self._others.values()) if share.pictures]

    def _tell_twins(self, twins: set[int], plan: Plan) -> None:
        """Looks again at the rows whose ids come more than once."""
        first: dict[str, tuple[int, str]] = {}
        bad = {each.line for each in plan.bad}
        for line in self.manifest.rows():
            number, given, _ = line
            if number in bad or hash(_id_of(given)) not in twins:
                continue
            row = self._looked_at(line)
            sha256 = self._sha256(row, line)
            before, content = first.setdefault(row.id, (number, sha256))
            if before == number:
                continue
            self._count(self._read(line), plan, -1)
            if content != sha256:
                plan.bad.append(Bad(number, row.id, (f"id: is that of line {before} too, with other content",)))
            elif self.dedupe:
                plan.twins.append(Bad(number, row.id, (f"is the same as line {before}, and passed over",)))
            else:
                said = f"id: is the same row as line {before}; leave one out, or pass it over with --dedupe"
                plan.bad.append(Bad(number, row.id, (said,)))
        plan.bad.sort()


def _repeated(bucket: array[int]) -> Iterator[int]:
    return (key for key, times in Counter(bucket).items() if times > 1)


def _id_of(given: Given | Unread) -> str | None:
    """The id that a row gives, for a message: it may be wrong."""
    if isinstance(given, Unread):
        return None
    id = given.get("custom_id", given.get("id"))
    return id if isinstance(id, str) and wrong_id(id) is None else None


def _said(problem: Problem) -> str:
    return str(problem) if problem.field else problem.message
