"""Jobs of asynchronous operations: accepted at once, ready later, available for a limited time."""

from __future__ import annotations

import asyncio
import secrets
import time

import attrs

from impasto.ext import Makes
from impasto_plugins.emulator.rendering.pictures.task import Generated
from impasto_plugins.emulator.settings import EmulatorSettings


@attrs.define(kw_only=True)
class EmulatorJob:
    """One job, rendered while it waits; ``key`` is the fingerprint of the key that started it."""

    id: str
    key: str | None
    target: str
    results: str
    makes: Makes
    accepted_at: float
    ready_at: float
    task: asyncio.Task[Generated]
    seed: int
    finish_reason: str


class JobStore:
    """All jobs."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self._jobs: dict[str, EmulatorJob] = {}
        self._rendering: set[asyncio.Task[Generated]] = set()

    def start(
        self,
        task: asyncio.Task[Generated],
        *,
        key: str | None,
        target: str,
        results: str,
        makes: Makes,
        seed: int,
        finish_reason: str,
    ) -> EmulatorJob:
        """Accept a job."""
        now = time.monotonic()
        self._rendering.add(task)
        task.add_done_callback(self._rendering.discard)
        job = EmulatorJob(
            id=secrets.token_hex(32),
            key=key,
            target=target,
            results=results,
            makes=makes,
            accepted_at=now,
            ready_at=now + self._settings.job_seconds,
            task=task,
            seed=seed,
            finish_reason=finish_reason,
        )
        self._forget_expired(now)
        self._jobs[job.id] = job
        return job

    def find(self, id: str, key: str | None) -> EmulatorJob | None:
        """Return a job by id for the key that started it, while its result is available."""
        self._forget_expired(time.monotonic())
        job = self._jobs.get(id)
        return job if job is not None and job.key == key else None

    def is_ready(self, job: EmulatorJob) -> bool:
        """Return True if the result is available."""
        return job.task.done() and time.monotonic() >= job.ready_at

    def reset(self) -> None:
        """Forget all jobs. Safe in any thread: running renderings are only released."""
        self._jobs.clear()

    async def aclose(self) -> None:
        """Wait for running renderings."""
        await asyncio.gather(*self._rendering, return_exceptions=True)

    def _forget_expired(self, now: float) -> None:
        for job in list(self._jobs.values()):
            if now - job.accepted_at <= self._settings.result_seconds:
                break  # jobs are in the order in which they were accepted
            del self._jobs[job.id]
