"""Jobs of asynchronous operations: accepted now, ready a little later, kept for a while."""

from __future__ import annotations

import asyncio
import secrets
import time

import attrs

from impasto.ext import Makes
from impasto_plugins.emulator.rendering.pictures.task import Made
from impasto_plugins.emulator.settings import Settings


@attrs.define(kw_only=True)
class Job:
    """One job. What was ordered is made while it waits; ``key`` is the fingerprint of the key that started it."""

    id: str
    key: str | None
    target: str
    results: str
    makes: Makes
    accepted: float
    ready: float
    made: asyncio.Task[Made]
    seed: int
    finish_reason: str


class Jobs:
    """The jobs that are kept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._jobs: dict[str, Job] = {}
        self._making: set[asyncio.Task[Made]] = set()

    def start(
        self,
        made: asyncio.Task[Made],
        *,
        key: str | None,
        target: str,
        results: str,
        makes: Makes,
        seed: int,
        finish_reason: str,
    ) -> Job:
        """Takes a job on."""
        now = time.monotonic()
        self._making.add(made)
        made.add_done_callback(self._making.discard)
        job = Job(
            id=secrets.token_hex(32),
            key=key,
            target=target,
            results=results,
            makes=makes,
            accepted=now,
            ready=now + self._settings.job_seconds,
            made=made,
            seed=seed,
            finish_reason=finish_reason,
        )
        self._forget_expired(now)
        self._jobs[job.id] = job
        return job

    def find(self, id: str, key: str | None) -> Job | None:
        """The job of an id, for the key that started it, while it is kept."""
        self._forget_expired(time.monotonic())
        job = self._jobs.get(id)
        return job if job is not None and job.key == key else None

    def is_ready(self, job: Job) -> bool:
        """Whether the result may be had."""
        return job.made.done() and time.monotonic() >= job.ready

    def reset(self) -> None:
        """Forgets all jobs. Safe in any thread: what is being made is only let go of."""
        self._jobs.clear()

    async def aclose(self) -> None:
        """Waits for what is being made."""
        await asyncio.gather(*self._making, return_exceptions=True)

    def _forget_expired(self, now: float) -> None:
        for job in list(self._jobs.values()):
            if now - job.accepted <= self._settings.kept_seconds:
                break  # in the order in which they were accepted
            del self._jobs[job.id]
