"""``client.batch``: many requests from a program, each outcome as it comes; stored in a folder if there is one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
)
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from impasto import (
    Client,
)
from impasto.ext import closest, shared_state

from .filenames import Template
from .joined import run_joined
from .ledger.evidence import Orphans
from .ledger.filesystem import Disk
from .ledger.recorder import LedgerRecorder
from .ledger.recovery import recover
from .ledger.workspace import Workspace, unusable_folder
from .option_names import ARGUMENTS, options_as
from .output.results import A_PAGE
from .output.s3 import check_target, claim_bucket, local_folder, target_of
from .program import Requests, RequestTasks, RunOptions, each_of, publish, raise_failure, write_start
from .runner.concurrency import AdaptiveConcurrency
from .runner.health_check import is_reachable
from .runner.scheduler import Scheduler, of_client
from .shared.share import JoinOptions
from .tasks import ImageTask, Outcome, key_of


class BatchOptions(TypedDict, total=False):
    """Options of ``Client.batch``, see ``run_batch``."""

    out: str | os.PathLike[str] | None
    staging: str | os.PathLike[str] | None
    s3_endpoint: str | None
    concurrency: int
    budget_usd: float | None
    max_failures: str | None
    retry_failed: bool
    retry_ambiguous: bool
    start_over: bool
    join: bool
    share: str | None


def run_batch(client: Client, requests: Requests, **options: Unpack[BatchOptions]) -> AsyncGenerator[Outcome]:
    """Run requests side by side and yield their outcomes: ``Client.batch`` as a function.

    ``out``: a folder for images and ledger, or ``s3://bucket/prefix`` for images and results; the ledger is then in
    ``staging``, a local folder, and ``s3_endpoint`` is the address of a service other than Amazon's. ``concurrency``:
    the most images in flight. The batch stops at ``budget_usd`` and at ``max_failures`` (``"20"``, or ``"5%"`` of the
    finished images). ``retry_failed`` includes refused images, ``retry_ambiguous`` those that may have been charged.
    ``start_over`` begins again in a folder with results whose ledger is missing or damaged, and may pay for its images
    again. With ``join`` several hosts share the batch in an ``out`` of S3; ``share``, such as ``"1/3"``, is this host's
    part of its requests, its rate limit and its budget. ``requests`` are then read to their end first.

    Raises TypeError for an unknown option, ConfigError before anything is sent, BatchStopped if it ends early,
    StorageError if images came and their results can't be written, and the errors of ``requests``; images in flight
    are waited for first.
    """
    allowed = BatchOptions.__annotations__
    if unknown := next((name for name in options if name not in allowed), None):
        advice = f"; did you mean {near[0]}?" if (near := closest(unknown, allowed)) else "."
        raise TypeError(f"unknown batch option {unknown!r}{advice} Allowed: {', '.join(allowed)}")
    return _run_batch(client, requests, options)


async def _run_batch(client: Client, requests: Requests, options: BatchOptions) -> AsyncGenerator[Outcome]:
    with options_as(ARGUMENTS):
        async with aclosing(_outcomes(client, requests, **options)) as outcomes:
            async for outcome in outcomes:
                yield outcome


async def _outcomes(
    client: Client,
    requests: Requests,
    *,
    out: str | os.PathLike[str] | None = None,
    staging: str | os.PathLike[str] | None = None,
    s3_endpoint: str | None = None,
    concurrency: int = 64,
    budget_usd: float | None = None,
    max_failures: str | None = None,
    retry_failed: bool = False,
    retry_ambiguous: bool = False,
    start_over: bool = False,
    join: bool = False,
    share: str | None = None,
) -> AsyncGenerator[Outcome]:
    target = target_of(str(out or ""), staging, s3_endpoint)
    has_state = (open_state := shared_state(client)) is not None
    if open_state is not None:
        async with open_state():  # a wrong address is an error of the batch, not of each request
            pass
    joined = JoinOptions.of(target, join=join, share=share, start_over=start_over, has_state=has_state)
    run_options = RunOptions(
        concurrency=concurrency,
        budget_usd=budget_usd,
        max_failures=max_failures,
        retry_failed=retry_failed,
        retry_ambiguous=retry_ambiguous,
    )
    stops, retry = run_options.stops(), run_options.retry
    if joined is not None:
        place = Path(staging or joined.target.staging)
        sequence = [each async for each in each_of(requests)]
        running = run_joined(client, sequence, options=joined, place=place, run_options=run_options)
        async with aclosing(running) as outcomes:
            async for outcome in outcomes:
                yield outcome
        return
    async with AsyncExitStack() as stack:
        folder, jobs, keeping, bucket = None, list[ImageTask](), None, None
        if out is not None:
            place = Path(staging or local_folder(str(out)))
            folder = await stack.enter_async_context(await Workspace.open(place, Disk(), start_over=start_over))
            check_target(folder.history, place, target)
            accounts = [await client.account(model) for model in folder.history.job_models]
            keys = frozenset(map(key_of, accounts))
            try:
                bucket = await claim_bucket(stack, target, folder.history)
                keeping = LedgerRecorder(folder, Template(), bucket, A_PAGE)
                await folder.submit(write_start(folder, target))
                jobs = (await recover(folder, keeping, keys)).jobs
            except OSError as error:
                raise unusable_folder(folder.layout, error) from None
            stops.usd = folder.images.usd
        service = RequestTasks(client, folder, target, retry)
        if folder is not None:
            service.orphans = await asyncio.to_thread(Orphans, folder.history, Template())
        run = Scheduler(
            of_client(client), AdaptiveConcurrency(concurrency), stops, keeping, partial(is_reachable, client)
        )
        async with aclosing(run.outcomes(service.work(jobs, requests))) as outcomes:
            async for outcome in outcomes:
                yield outcome
        if folder is not None:
            await publish(folder, bucket, stops)
        raise_failure(run, stops)
