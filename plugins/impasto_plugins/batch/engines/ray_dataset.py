"""Datasets of Ray: their rows are checked before anything is sent, then workers take them in parts."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs

from impasto import ConfigError, InvalidRequest, ManifestError, MissingExtra, Registry, RegistryError
from impasto.ext import close_files, kind_in_words
from impasto_plugins.batch.manifest.planner import problem_text
from impasto_plugins.batch.manifest.rows import parse_row, tasks_of
from impasto_plugins.batch.manifest.tabular import row_of_columns
from impasto_plugins.cli.terminal.output import count_of

from .worker import RowWorker, WorkerSpec

if TYPE_CHECKING:
    from pyarrow import Table  # type: ignore[import-untyped]  # it ships no types
    from ray.data import Dataset

WORKER_CPUS = 0.25
"""The part of a CPU that Ray reserves for a worker, which mostly waits for the network."""

_ROUNDS = 4
"""Images of a part for each that may be in flight: a worker waits for the slowest of each part."""

_CHECKED_ROWS = 1_024
_MOST_NAMED = 20


def import_ray() -> ModuleType:
    """Return the module ``ray`` with ``ray.data``. Raises MissingExtra."""
    try:
        import ray.data
    except ModuleNotFoundError:
        raise MissingExtra("batches on Ray need ray: pip install 'impasto[ray]'") from None
    return ray


def generate_rows(ds: Dataset, spec: WorkerSpec, model: str | None) -> Dataset:
    """Return the dataset of the images of ``ds``, which are requested when it is read.

    Raises ConfigError, ManifestError, MissingExtra.
    """
    ray = import_ray()
    if not isinstance(ds, ray.data.Dataset):
        kind = kind_in_words(ds)
        raise ConfigError(f"ds must be a dataset of Ray, not {kind}; ray.data.from_items(rows) makes one from a list")
    ds = ds.materialize()  # the same rows are checked and requested, whatever computes them
    ds.context.enable_progress_bars = False  # of this copy, and of the images' dataset: they count blocks, not images
    ds.context.print_on_execution_start = False
    if not {"id", "custom_id"} & {*(ds.columns() or ())}:
        raise ManifestError("the dataset has no column 'id': give each row its own id; nothing was sent")
    checked = _check(ds, spec, model)
    rows = math.ceil(checked.rows / spec.workers)
    return ds.map_batches(
        RowWorker,
        fn_constructor_args=(attrs.evolve(spec, models=tuple(sorted(checked.models)), images=checked.images), model),
        batch_format="pyarrow",
        batch_size=max(1, min(rows, _ROUNDS * spec.run.concurrency)),
        compute=ray.data.ActorPoolStrategy(size=spec.workers),
        num_cpus=WORKER_CPUS,
    )


def _quietly(ds: Dataset) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a dataset that the user does not know; the log of Ray Data has its warnings and errors only."""
    log = logging.getLogger("ray.data")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield from ds.iter_rows()
    finally:
        log.setLevel(before)


@attrs.define
class _Checked:
    """Facts about the rows of a dataset."""

    rows: int = 0
    images: int = 0
    models: set[tuple[str, str | None]] = attrs.field(factory=set[tuple[str, str | None]])
    problems: list[str] = attrs.field(factory=list[str])


def _check(ds: Dataset, spec: WorkerSpec, model: str | None) -> _Checked:
    """Check all rows, in Ray's own tasks. Raises ManifestError, ConfigError."""
    check = partial(check_rows, model=model, plugins=spec.settings.get("plugins"))
    found, ids, unpriced = _Checked(), set[str](), set[str]()
    for row in _quietly(ds.map_batches(check, batch_format="pyarrow", batch_size=_CHECKED_ROWS)):
        found.rows += 1
        problem = row["problem"]
        if problem is None and row["id"] in ids:
            problem = "id: another row has it too; give each row its own id"
        if problem is not None:
            found.problems.append(f"row {row['id']!r}: {problem}")
            continue
        ids.add(row["id"])
        found.images += row["n"]
        found.models.add((row["model"], row["base_model"]))
        unpriced |= set() if row["is_priced"] else {row["model"]}
    if found.problems:
        head = f"{len(found.problems):,} of {count_of(found.rows, 'row')} can't be run; nothing was sent"
        more = len(found.problems) - _MOST_NAMED
        raise ManifestError("\n".join((head, *found.problems[:_MOST_NAMED], *[f"and {more:,} more"] * (more > 0))))
    if not found.rows:
        raise ManifestError("the dataset has no rows")
    if unpriced and spec.run.budget_usd is not None:
        names = ", ".join(sorted(unpriced))
        raise ConfigError(f"the price of {names} is unknown for some rows; leave budget_usd out")
    return found


def check_rows(table: Table, *, model: str | None, plugins: object = None) -> Table:
    """Return facts about each row of a block: a task of Ray's."""
    import pyarrow as pa

    registry = Registry(allow=plugins)  # type: ignore[arg-type]  # the client's own setting, which was checked
    text, whole, flag = pa.string(), pa.int64(), pa.bool_()
    columns = {"id": text, "model": text, "base_model": text, "n": whole, "is_priced": flag, "problem": text}
    rows = [_check_row(row, registry) for row in requests_of(table, registry, model)]
    return pa.Table.from_pylist(rows, schema=pa.schema(list(columns.items())))


def _check_row(request: Mapping[str, object], registry: Registry) -> Mapping[str, object]:
    id = str(request.get("id", request.get("custom_id")))
    try:
        row = parse_row(dict(request))
        operation = registry.operation(row.base_model or row.model)
        tasks = tasks_of(row, operation, Path())
    except InvalidRequest as error:
        return {"id": id, "problem": "; ".join(map(problem_text, error.problems))}
    except RegistryError as error:
        return {"id": id, "problem": f"model: {error.message}"}
    for task in tasks:
        if task.request is not None:
            close_files(task.request.params)
    is_priced = all(task.cost is not None for task in tasks)
    return {"id": id, "model": row.model, "base_model": row.base_model, "n": len(tasks), "is_priced": is_priced}


def requests_of(table: Table, registry: Registry, model: str | None) -> Iterator[dict[str, object]]:
    """Yield the requests of a block; a null means not given."""
    for row in table.to_pylist():
        if model is not None and row.get("model") is None and row.get("body") is None:
            row["model"] = model
        yield row_of_columns(row, registry.operation)
