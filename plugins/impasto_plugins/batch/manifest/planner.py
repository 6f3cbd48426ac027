"""The plan of a manifest, made before anything is spent: every invalid row, and the cost of the valid ones."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import attrs

from impasto import ConfigError, InvalidRequest, ManifestError, Operation, Problem, RegistryError
from impasto.ext import MAX_N, close_files
from impasto_plugins.batch.filenames import wrong_id
from impasto_plugins.batch.ledger.index import TaskIndex
from impasto_plugins.batch.ledger.states import TaskState
from impasto_plugins.batch.ledger.workspace import LedgerHistory
from impasto_plugins.batch.tasks import ImageTask, join_shared_tasks, join_tasks

from .fast_validation import FastValidator, ModelTotals, ValidRow
from .reader import Manifest
from .records import Line, RowFields, UnreadableLine
from .rows import ManifestRow, digest, mark_of, parse_row, tasks_of

_BUCKETS = 1024
"""Groups of ids whose hashes are compared at a time: a row takes 8 bytes."""


class InvalidRow(NamedTuple):
    """An invalid row. ``line`` is its number in the manifest."""

    line: int
    id: str | None
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{_place_of(self.line, self.id)}: {'; '.join(self.problems)}"


def _place_of(line: int, id: str | None) -> str:
    """Return the place of a row in words: its line and its id."""
    return f"line {line}" if id is None else f"line {line} ({id})"


@attrs.frozen(kw_only=True)
class RetrySelection:
    """Images of earlier runs to request again, beside those that every run does."""

    failed: bool = False
    ambiguous: bool = False

    def selects(self) -> tuple[bool, ...]:
        """Return True if an image in this state (by number) is requested; 0 is a new one."""
        taken = {
            0,
            TaskState.REFUSED_AGAIN,
            *[TaskState.REFUSED] * self.failed,
            *[TaskState.AMBIGUOUS] * self.ambiguous,
        }
        return tuple(number in taken for number in range(len(TaskState) + 1))


@attrs.define(kw_only=True)
class Plan:
    """The images of a manifest, and those that are still to be generated.

    ``orphans`` are images that the ledger knows and the manifest does not. ``skipped_lines``: invalid lines, and all
    but the first of duplicates.
    """

    mark: tuple[int, int]
    rows: int = 0
    totals: list[ModelTotals] = attrs.field(factory=list[ModelTotals])
    invalid: list[InvalidRow] = attrs.field(factory=list[InvalidRow])
    duplicates: list[InvalidRow] = attrs.field(factory=list[InvalidRow])
    orphans: Counter[TaskState] = attrs.field(factory=Counter[TaskState])
    extra_images: int = 0
    """Unasked images that came with the manifest's rows."""
    counts: list[int] = attrs.field(factory=lambda: [0] * (len(TaskState) + 1))
    """The number of the manifest's images in each state, by state number."""
    skipped_lines: set[int] = attrs.field(factory=set[int])

    @property
    def images(self) -> int:
        """The number of the manifest's images."""
        return sum(share.images for share in self.totals)

    @property
    def to_do(self) -> int:
        """The number of images to generate."""
        return sum(share.to_do for share in self.totals)

    @property
    def usd(self) -> float:
        """The cost of the images to generate, as far as it is known."""
        return sum(share.to_do * (share.usd or 0.0) for share in self.totals)

    def check_prices(self) -> None:
        """Raise ConfigError for models, and for rows of a priced model, whose price is unknown."""
        unpriced = [share for share in self.totals if share.usd is None and share.to_do]
        advice = "so it can't be run with a budget; leave --budget out"
        if models := sorted({share.model for share in unpriced if not share.unpriced_rows}):
            raise ConfigError(f"the price of {', '.join(models)} is unknown, {advice}")
        for share in unpriced:
            more = f" and {share.unpriced_rows - 1:,} more" if share.unpriced_rows > 1 else ""
            place = f"{share.first_unpriced}{more}"
            raise ConfigError(f"{place}: the price of {share.model} is unknown for these parameters, {advice}")


@attrs.define(kw_only=True)
class Planner:
    """Plans the work of a manifest that a folder's ``history`` still lacks."""

    manifest: Manifest
    history: LedgerHistory
    retry: RetrySelection = RetrySelection()
    drop_params: bool = False
    dedupe: bool = False
    is_shared: bool = False
    """True if other hosts make requests of the same manifest."""
    _operations: dict[str, Operation | RegistryError] = attrs.field(factory=dict[str, Operation | RegistryError])
    _validators: dict[str, FastValidator | None] = attrs.field(factory=dict[str, FastValidator | None])
    _others: dict[object, ModelTotals] = attrs.field(factory=dict[object, ModelTotals])
    _through: ModelTotals = attrs.field(factory=lambda: ModelTotals("", None, None))
    """Rows without work left."""

    _selected: tuple[bool, ...] = attrs.field(init=False)
    _images: TaskIndex = attrs.field(init=False)
    _folder: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._selected, self._images = self.retry.selects(), self.history.images
        self._folder = self.manifest.folder

    def plan(self) -> Plan:
        """Check every row. Raises ManifestError if the manifest can't be read, or is empty."""
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
                plan.invalid.append(InvalidRow(line[0], _id_of(line[1]), tuple(map(problem_text, error.problems))))
                continue
            key = hash(row.id)
            hashes[key % _BUCKETS].append(key)
            to_do = row.totals.to_do
            self._count(row, plan)
            if row.totals.usd is None and row.totals.to_do > to_do and self._has_price(row.totals):
                row.totals.unpriced_rows += 1
                row.totals.first_unpriced = row.totals.first_unpriced or _place_of(line[0], row.id)
        if not plan.rows:
            raise ManifestError(f"the manifest {self.manifest.name} has no rows")
        twins = {key for bucket in hashes if len(set(bucket)) < len(bucket) for key in _duplicates(bucket)}
        if twins:
            self._report_duplicates(twins, plan)
        plan.skipped_lines = {each.line for each in (*plan.invalid, *plan.duplicates)}
        counts = Counter({state: plan.counts[state] for state in TaskState})
        counts[TaskState.DONE] += plan.extra_images
        plan.orphans = self._images.count - counts
        plan.totals = self._sorted_totals()
        return plan

    @property
    def operations(self) -> list[Operation]:
        """Operations of the manifest's rows, after the plan is made."""
        return [each for each in self._operations.values() if isinstance(each, Operation)]

    def to_do(self, plan: Plan, *, start: float = 0.0) -> Iterator[ImageTask]:
        """Yield the tasks to run, in the manifest's order. Raises ManifestError if the manifest changed.

        ``start``: the part of the manifest that comes last; its other rows are the first.
        """
        if not plan.to_do and not self.is_shared:
            return
        for line in self._rows_from(int(start * plan.rows)):
            if line[0] not in plan.skipped_lines and self._is_finished(line) is None:
                tasks = self._tasks_of(line)
                states = self._images.states(tasks[0].id, len(tasks))
                selected = [(unit, state) for unit, state in zip(tasks, states, strict=True) if self._selected[state]]
                units, left = [unit for unit, _ in selected], [state for _, state in selected]
                yield from join_shared_tasks(units, left) if self.is_shared else join_tasks(units)
        if self.manifest.mark() != plan.mark:
            raise ManifestError("the manifest changed during the run; run it again to include the changes")

    def _rows_from(self, first: int) -> Iterator[Line]:
        yield from islice(self.manifest.rows(), first, None)
        yield from islice(self.manifest.rows(), first)

    def _read(self, line: Line) -> ValidRow:
        """Return a checked row. Raises InvalidRequest."""
        if not self._images:
            return self._validate_fast(line[1]) or self._validate(line)
        through = self._is_finished(line)
        if through is not None:
            return through
        right = self._validate_fast(line[1]) or self._validate(line)
        self._check_known(right, line)
        return right

    def _is_finished(self, line: Line) -> ValidRow | None:
        """Return the row if this very line requested each of its images, and no work is left."""
        _, row, written = line
        if not self._images or not isinstance(row, dict):
            return None
        body = row.get("body")
        id, words = (row.get("id"), row) if body is None else (row.get("custom_id"), body)
        if not isinstance(id, str) or not isinstance(words, dict):
            return None
        n = words.get("n", 1)
        if type(n) is not int or not 1 <= n <= MAX_N:
            return None
        states = self._images.states(id, n, self._mark_of(written, words))
        for state in states:
            if self._selected[state]:
                return None
        return ValidRow(id, n, self._through, None, states)

    def _mark_of(self, line: bytes, words: RowFields) -> int:
        model = words.get("base_model") or words.get("model")
        if not isinstance(model, str):
            return 0
        operation = self._load(model)
        files = operation.file_arguments if isinstance(operation, Operation) else {}
        return mark_of(line, words, files, self._folder)

    def _validate(self, line: Line) -> ValidRow:
        tasks = self._tasks_of(line)
        for unit in tasks:
            if unit.request is not None:
                close_files(unit.request.params)
        unit = tasks[0]
        usd = unit.cost.usd if unit.cost is not None else None
        share = self._others.setdefault(
            (unit.model, unit.base_model, usd), ModelTotals(unit.model, unit.base_model, usd)
        )
        return ValidRow(unit.id, len(tasks), share, unit.sha256)

    def _tasks_of(self, line: Line) -> list[ImageTask]:
        row = self._parse(line[1])
        operation = self._operation(row)
        number, _, written = line
        return tasks_of(row, operation, self._folder, drop_params=self.drop_params, line=written, position=number)

    def _validate_fast(self, row: RowFields | UnreadableLine) -> ValidRow | None:
        if isinstance(row, UnreadableLine):
            return None
        body = row.get("body")
        model = body.get("model") if isinstance(body, dict) else row.get("model")
        if not isinstance(model, str):
            return None
        if model not in self._validators:
            operation = self._load(model)
            self._validators[model] = (
                FastValidator.of_operation(model, operation) if isinstance(operation, Operation) else None
            )
        screen = self._validators[model]
        return screen.validate(row) if screen is not None else None

    def _parse(self, row: RowFields | UnreadableLine) -> ManifestRow:
        if isinstance(row, UnreadableLine):
            raise InvalidRequest([Problem("", row.reason)])
        return parse_row(row)

    def _operation(self, row: ManifestRow) -> Operation:
        operation = self._load(row.base_model or row.model)
        if isinstance(operation, RegistryError):
            raise InvalidRequest([Problem("model", operation.message)])
        return operation

    def _load(self, model: str) -> Operation | RegistryError:
        if model not in self._operations:
            try:
                self._operations[model] = self.manifest.load(model)
            except RegistryError as error:
                self._operations[model] = error
        return self._operations[model]

    def _has_price(self, totals: ModelTotals) -> bool:
        operation = self._operations.get(totals.base_model or totals.model)
        return isinstance(operation, Operation) and operation.price is not None

    def _check_known(self, row: ValidRow, line: Line) -> None:
        """Raise InvalidRequest if the ledger has the id with other content."""
        if self._images.states(row.id, 1) != [0] and self.history.intent_of(row.id, 0)["asks"] != self._sha256(
            row, line
        ):
            message = (
                "is the id of other content in an earlier run of this folder; give another id, or run in another folder"
            )
            raise InvalidRequest([Problem("id", message)])

    def _sha256(self, row: ValidRow, line: Line) -> str:
        if row.sha256 is not None:
            return row.sha256
        parsed = self._parse(line[1])
        return digest(parsed, parsed.arguments)

    def _count(self, row: ValidRow, plan: Plan, times: int = 1) -> None:
        share, n = row.totals, row.n
        share.images += n * times
        if not self._images:
            share.to_do += n * times
            return
        plan.extra_images += len(self._images.extras(row.id, n)) * times
        for state in row.states or self._images.states(row.id, n):
            plan.counts[state] += times
            share.to_do += self._selected[state] * times

    def _sorted_totals(self) -> list[ModelTotals]:
        screened = [screen.share for screen in self._validators.values() if screen is not None]
        return [share for share in (self._through, *screened, *self._others.values()) if share.images]

    def _report_duplicates(self, twins: set[int], plan: Plan) -> None:
        """Check the rows with duplicate ids again."""
        first: dict[str, tuple[int, str]] = {}
        bad = {each.line for each in plan.invalid}
        for line in self.manifest.rows():
            number, row_value, _ = line
            if number in bad or hash(_id_of(row_value)) not in twins:
                continue
            row = self._validate(line)
            sha256 = self._sha256(row, line)
            before, content = first.setdefault(row.id, (number, sha256))
            if before == number:
                continue
            self._count(self._read(line), plan, -1)
            if content != sha256:
                plan.invalid.append(
                    InvalidRow(number, row.id, (f"id: is also the id of line {before}, which has other content",))
                )
            elif self.dedupe:
                message = f"is a duplicate of line {before} and was skipped"
                plan.duplicates.append(InvalidRow(number, row.id, (message,)))
            else:
                message = f"id: is a duplicate of line {before}; remove one, or skip it with --dedupe"
                plan.invalid.append(InvalidRow(number, row.id, (message,)))
        plan.invalid.sort()


def _duplicates(bucket: array[int]) -> Iterator[int]:
    return (key for key, times in Counter(bucket).items() if times > 1)


def _id_of(row: RowFields | UnreadableLine) -> str | None:
    """Return the id of a row for a message: it may be invalid."""
    if isinstance(row, UnreadableLine):
        return None
    id = row.get("custom_id", row.get("id"))
    return id if isinstance(id, str) and wrong_id(id) is None else None


def problem_text(problem: Problem) -> str:
    """Return a row's problem in words."""
    return str(problem) if problem.field else problem.message
