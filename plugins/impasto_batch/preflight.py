"""All of a manifest, looked at before anything is spent: every bad row, and what the good ones will cost."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import attrs

from impasto import InvalidRequest, ManifestError, Operation, Problem, RegistryError
from impasto.params import close_files

from .items import Asked, asked, digest, units
from .manifest import Given, Manifest, Unread
from .names import wrong_id
from .pictures import Pictures, Standing, digest_bits
from .rows import State
from .screen import Right, Screen, Share
from .unit import Unit

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

    def takes(self, standing: Standing | None) -> bool:
        """Whether a picture is to be asked for."""
        match standing.state if standing is not None else None:
            case None | State.REFUSED_AGAIN:
                return True
            case State.REFUSED:
                return self.failed
            case State.AMBIGUOUS:
                return self.ambiguous
            case _:
                return False


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
    """Reads a manifest, for what the ledger's ``pictures`` still lack of it."""

    manifest: Manifest
    load: Callable[[str], Operation]
    pictures: Pictures
    again: Again = Again()
    drop_params: bool = False
    dedupe: bool = False
    _operations: dict[str, Operation | RegistryError] = attrs.field(factory=dict[str, Operation | RegistryError])
    _screens: dict[str, Screen | None] = attrs.field(factory=dict[str, Screen | None])
    _others: dict[object, Share] = attrs.field(factory=dict[object, Share])

    def plan(self) -> Plan:
        """Looks at every row. Raises ManifestError where the manifest can't be read, or has none."""
        plan = Plan(mark=self.manifest.mark())
        hashes = [array("q") for _ in range(_BUCKETS)]
        for line, given in self.manifest.rows():
            plan.rows += 1
            try:
                row = self._read(given)
                self._check_known(row, given)
            except InvalidRequest as error:
                plan.bad.append(Bad(line, _id_of(given), tuple(map(_said, error.problems))))
                continue
            key = hash(row.id)
            hashes[key % _BUCKETS].append(key)
            self._count(row, plan)
        if not plan.rows:
            raise ManifestError(f"the manifest {str(self.manifest.path)!r} has no rows")
        twins = {key for bucket in hashes if len(set(bucket)) < len(bucket) for key in _repeated(bucket)}
        if twins:
            self._tell_twins(twins, plan)
        plan.passed_over = {each.line for each in (*plan.bad, *plan.twins)}
        plan.strangers = self.pictures.count - plan.strangers
        plan.shares = self._shares()
        return plan

    def to_do(self, plan: Plan) -> Iterator[Unit]:
        """The pictures that are to be made, in the manifest's order. Raises ManifestError where it was changed."""
        for line, given in self.manifest.rows():
            if line not in plan.passed_over:
                yield from self._left(given)
        if self.manifest.mark() != plan.mark:
            raise ManifestError("the manifest was changed while it was run; run it again to take up what is new")

    def _left(self, given: Given | Unread) -> Iterator[Unit]:
        if (glance := self._glance(given)) is not None and not any(self._are_left(glance.id, glance.n)):
            return
        row = self._asked(given)
        made = units(row, self._operation(row), self.manifest.path.parent, drop_params=self.drop_params)
        yield from (unit for unit, left in zip(made, self._are_left(row.id, len(made)), strict=True) if left)

    def _are_left(self, id: str, n: int) -> Iterator[bool]:
        return (self.again.takes(self.pictures.find(id, index)) for index in range(n))

    def _read(self, given: Given | Unread) -> Right:
        """A row, looked at. Raises InvalidRequest."""
        return self._glance(given) or self._looked_at(given)

    def _looked_at(self, given: Given | Unread) -> Right:
        row = self._asked(given)
        made = units(row, self._operation(row), self.manifest.path.parent, drop_params=self.drop_params)
        for unit in made:
            if unit.request is not None:
                close_files(unit.request.params)
        usd = made[0].cost.usd if made[0].cost is not None else None
        share = self._others.setdefault((row.model, row.base_model, usd), Share(row.model, row.base_model, usd))
        return Right(row.id, len(made), share, made[0].sha256)

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
                self._operations[model] = self.load(model)
            except RegistryError as error:
                self._operations[model] = error
        return self._operations[model]

    def _check_known(self, row: Right, given: Given | Unread) -> None:
        """Raises InvalidRequest where the ledger knows the id with other content."""
        standing = self.pictures.find(row.id, 0)
        if standing is not None and standing.digest and standing.digest != digest_bits(self._sha256(row, given)):
            said = "was run in this folder before, with other content; give it another id, or run in another folder"
            raise InvalidRequest([Problem("id", said)])

    def _sha256(self, row: Right, given: Given | Unread) -> str:
        return row.sha256 if row.sha256 is not None else digest(self._asked(given), {})

    def _count(self, row: Right, plan: Plan, times: int = 1) -> None:
        share, n = row.share, row.n
        share.pictures += n * times
        if not self.pictures:
            share.to_do += n * times
            return
        for index in range(n):
            standing = self.pictures.find(row.id, index)
            if standing is not None:
                plan.strangers[standing.state] += times  # those that are none, until all are counted
            share.to_do += self.again.takes(standing) * times

    def _shares(self) -> list[Share]:
        screened = [screen.share for screen in self._screens.values() if screen is not None]
        return [share for share in (*screened, *self._others.values()) if share.pictures]

    def _tell_twins(self, twins: set[int], plan: Plan) -> None:
        """Looks again at the rows whose ids come more than once."""
        first: dict[str, tuple[int, str]] = {}
        bad = {each.line for each in plan.bad}
        for line, given in self.manifest.rows():
            if line in bad or hash(_id_of(given)) not in twins:
                continue
            row = self._read(given)
            sha256 = self._sha256(row, given)
            before, content = first.setdefault(row.id, (line, sha256))
            if before == line:
                continue
            self._count(row, plan, -1)
            if content != sha256:
                plan.bad.append(Bad(line, row.id, (f"id: is that of line {before} too, with other content",)))
            elif self.dedupe:
                plan.twins.append(Bad(line, row.id, (f"is the same as line {before}, and passed over",)))
            else:
                said = f"id: is the same row as line {before}; leave one out, or pass it over with --dedupe"
                plan.bad.append(Bad(line, row.id, (said,)))
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
