"""Requests the images of a batch: within its key's limits, on each deployment in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import attrs

from impasto import Call, ChargeUnknown, NotSent, Result
from impasto.ext import Budgets, files_of
from impasto_plugins.batch.runner.health_check import is_reachable
from impasto_plugins.batch.runner.scheduler import Execute
from impasto_plugins.batch.tasks import ImageTask
from impasto_plugins.fetched_jobs import ProviderJob
from impasto_plugins.gateway.calls.budgets import BudgetGuard
from impasto_plugins.gateway.calls.execution import PreparedCall, invoke_deployment, try_each
from impasto_plugins.gateway.calls.provider_jobs import resume_job
from impasto_plugins.gateway.calls.queue_timeout import with_queue_timeout
from impasto_plugins.gateway.calls.runtime import Runtime
from impasto_plugins.gateway.calls.streamed_answers import AnswerSpools
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.http.memory_budget import IMAGE_BYTES, MemoryBudget, MemoryReservation
from impasto_plugins.gateway.storage.late_writes import LateWrites

from .input_lines import LineTask
from .output import KeyLimitRefusal


def create_execute(
    get_runtime: Callable[[], Runtime], budgets: Budgets, late_writes: LateWrites, memory: MemoryBudget
) -> Execute:
    """Return the function that generates a line's images, or resumes its provider job.

    It uses the configuration current at that moment. Its answers are within ``memory`` until they are stored.
    """

    async def execute(task: ImageTask, call: Callable[..., Call], resources: ExitStack) -> Result:
        reservation, runtime = resources.enter_context(MemoryReservation(memory)), get_runtime()
        await reservation.wait_for(_input_bytes(task) + len(task.images) * IMAGE_BYTES)
        spools = AnswerSpools(reservation, resources, runtime.places.salvage, int(time.time()))
        if (job := task.provider_job) is not None:
            return await _fetch_job(task, job, runtime, spools)
        assert isinstance(task, LineTask)  # noqa: S101 - a batch's other units are jobs
        guard = BudgetGuard(budgets, late_writes, task.caller, is_counted=True)
        return await _execute_line(task, guard, partial(call, spools=spools))

    return execute


def _input_bytes(task: ImageTask) -> int:
    """Return the bytes of a line's own images that are in memory."""
    calls = task.calls.values() if isinstance(task, LineTask) else ()
    files = {file for call in calls for file in files_of(call.request.params)}
    return sum(file.size for file in files if not file.on_disk)


async def is_reachable_again(task: ImageTask) -> bool:
    """Return True if any provider for this task is reachable (checked with a free request).

    Resumed jobs always return True.
    """
    if not isinstance(task, LineTask):
        return True
    for deployment in task.calls:
        config = deployment.config
        probe = attrs.evolve(task, model=config.model, base_model=config.base_model)
        if await is_reachable(deployment.client, probe):
            return True
    return False


async def _execute_line(task: LineTask, budget_guard: BudgetGuard, call_factory: Callable[..., Call]) -> Result:
    async def attempt(prepared_call: PreparedCall, *, waits: bool) -> Result:
        make_attempt = partial(
            with_queue_timeout,
            prepared_call.deployment.account,
            partial(invoke_deployment, prepared_call, call_factory),
            waits=waits,
        )
        try:
            result = await budget_guard.charge(prepared_call, make_attempt)
            return attrs.evolve(result, warnings=(*prepared_call.warnings, *result.warnings))
        except APIError as failure:  # the key's limits
            if failure.status >= 500:  # they can't be looked up
                raise NotSent(failure.message, retryable=True) from None
            raise KeyLimitRefusal(failure) from None

    preferred, n = task.model_config.by_preference(), len(task.images)
    candidates = _LineCandidates([attrs.evolve(task.calls[each], n=n) for each in preferred if each in task.calls])
    first = await candidates.next()
    assert first is not None  # noqa: S101 - a line that no deployment accepts has no task
    return await try_each(first, candidates, attempt)


@attrs.define
class _LineCandidates:
    """The calls for the deployments that accept a line, in order."""

    untried: list[PreparedCall]

    async def next(self) -> PreparedCall | None:
        return self.untried.pop(0) if self.untried else None


async def _fetch_job(task: ImageTask, job: ProviderJob, runtime: Runtime, spools: AnswerSpools) -> Result:
    """Return the result of a job, fetched with the key that began it."""
    # The job's own model comes first: another one with the same key may read its answer in another way.
    models = sorted(runtime.models.values(), key=lambda model: model.name != task.model)
    for deployment in (deployment for model in models for deployment in model.deployments):
        if deployment.account.fingerprint.startswith(task.key):
            return await resume_job(deployment, job, task.cost, spools)
    error = ChargeUnknown(f"the key of job {job.id} is no longer configured; the job may have been charged")
    error.id = job.id
    raise error
