"""Batches on Ray: ``impasto.ray``. Ray starts the workers; what was paid for is in the ledger of the shared batch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from ray.data import Dataset

    from impasto.ext import Settings


def generate(
    ds: Dataset,
    *,
    out: str,
    model: str | None = None,
    workers: int = 1,
    concurrency: int = 64,
    budget_usd: float | None = None,
    max_failures: str | None = None,
    retry_failed: bool = False,
    retry_ambiguous: bool = False,
    staging: str | os.PathLike[str] | None = None,
    s3_endpoint: str | None = None,
    **settings: Unpack[Settings],
) -> Dataset:
    """Return a dataset with a row for each image that the rows of ``ds`` ask for.

    A row of ``ds`` has the columns of a manifest: ``id``, ``model`` (or ``model`` for all rows), the model's fields,
    ``n``. All rows are computed and checked here; images are requested when the result is read. Its columns are ``id``,
    ``index``, ``state`` (as in ``Outcome``), ``url``, ``sha256``, ``seed``, ``usd`` and ``error``.

    ``out``, ``"s3://bucket/prefix"``, has images and ledger, so a task that Ray repeats pays for nothing twice, and
    the same call resumes the batch. ``workers`` processes have up to ``concurrency`` images in flight each, and
    divide the rate limit and ``budget_usd`` evenly. ``staging`` is a folder on each node, ``settings`` are those of
    ``Client``; the others are those of ``Client.batch``.

    Raises ConfigError, ManifestError with the invalid rows, MissingExtra if Ray is not installed.
    """
    from impasto_plugins.batch.option_names import ARGUMENTS, options_as
    from impasto_plugins.batch.program import RunOptions

    from .ray_dataset import generate_rows
    from .worker import WorkerSpec

    with options_as(ARGUMENTS):
        run = RunOptions(
            concurrency=concurrency,
            budget_usd=budget_usd,
            max_failures=max_failures,
            retry_failed=retry_failed,
            retry_ambiguous=retry_ambiguous,
        )
        spec = WorkerSpec.of(
            out=out, staging=staging, s3_endpoint=s3_endpoint, workers=workers, run=run, settings=settings
        )
        return generate_rows(ds, spec, model)
