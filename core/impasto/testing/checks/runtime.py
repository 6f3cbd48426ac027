"""Checks of running calls: cancelled anywhere, a call leaks nothing; the loop is never blocked."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

from impasto import Call, Client, ImpastoError, Pending, Result
from impasto.testing.subject import Subject, call_outcome
from impasto.testing.time_limit import check, run

_EACH_STEP = 70
"""Turns of the loop that are each tried: a call needs fewer to reach the network. After them it mostly waits."""

_LATER = 0.001
"""Seconds between the later tries."""

_MOST_STEPS = 2_000
_EVERY = 0.02
_MADE_UP = ("../account", "..", "x/../../account", "//host/x", "x?a=b", "x#y", "%2e%2e/account", "x y", "x\r\ny: z")
_LONGEST_BLOCK = 0.2
"""Seconds of a blocked loop that a busy machine alone does not explain."""


class RuntimeChecks(Subject):
    """Checks of running calls."""

    @check
    def test_a_call_may_be_cancelled_at_every_await(self) -> None:
        """Check that a cancelled call reports possible charges and leaves no task."""
        run(self._cancel_at_each_await())

    @check
    def test_the_loop_is_not_blocked(self) -> None:
        """Check that a call never blocks the event loop."""

        async def calls(watch: _LoopWatch) -> object:
            async with self.recording() as recorder, self.client(recorder.url) as client:
                await client.warm(self.model)
                with watch.over_this_loop():
                    return await call_outcome(client, self.model, self.minimal)

        with _LoopWatch() as watch:
            came = run(calls(watch))
        assert isinstance(came, Result), f"the call ended in {came!r}"
        assert not watch.stood_at, f"the loop was blocked in:\n{watch.stood_at}"

    @check
    def test_a_job_is_fetched_later_by_its_id_and_never_paid_again(self) -> None:
        """Check ``client.resume``."""
        run(self._try_resume())

    @check
    def test_a_made_up_job_id_sends_nothing(self) -> None:
        """Check that an invalid job id is refused."""
        run(self._try_made_up_ids())

    async def _try_made_up_ids(self) -> None:
        async with self.recording() as recorder, self.client(recorder.url) as client:
            for job in _MADE_UP:
                with suppress(ImpastoError):
                    await client.resume(self.model, job)
                sent = [before.target for before in recorder.requests]
                assert not sent, f"client.resume of {job!r} requested {sent[0]}: check request.job in transform_request"

    async def _try_resume(self) -> None:
        jobs: list[str] = []

        class Noting(Call):
            def mark_job_accepted(self, pending: Pending) -> None:
                """Note the id of the job."""
                super().mark_job_accepted(pending)
                jobs.append(pending.id)

        async with self.recording() as recorder, self.client(recorder.url) as client:
            if self.job_accepted is not None:
                await client.invoke(self.model, self.minimal, call=Noting)
                assert jobs, f"{self.model} accepted no job: normalize_response must return a Pending"
            paid = len(recorder.posts)
            try:
                came: object = await client.resume(self.model, (*jobs, "no-such-job")[0])
            except ImpastoError as error:
                came = error
            if jobs:
                problems = f"{type(came).__name__}: {came}"
                assert isinstance(came, Result), (
                    f"client.resume of {jobs[0]!r} ended in {problems}; see request.job in transform_request"
                )
            else:
                assert isinstance(came, ImpastoError), f"{self.model} has no jobs, but client.resume returned {came!r}"
            assert len(recorder.posts) == paid, "client.resume paid for it again"

    async def _cancel_at_each_await(self) -> None:
        for steps in (*range(_EACH_STEP), *range(_EACH_STEP, _MOST_STEPS, 3)):
            before = asyncio.all_tasks()
            async with self.recording() as recorder:
                async with self.client(recorder.url) as client:
                    came, notes = await self._cancel_after(steps, client)
                await recorder.settle()
            when = f"cancelled after {steps} steps"
            if isinstance(came, Result):
                return
            assert isinstance(came, asyncio.CancelledError), f"{when}, it ended in {came!r}"
            assert len(recorder.posts) <= 1, f"{when}, it made {len(recorder.posts)} paid requests"
            assert not recorder.posts or "charged" in notes, f"{when}, it may have been charged and no note says so"
            left = asyncio.all_tasks() - before
            assert not left, f"{when}, it left tasks: {left}"
        raise AssertionError(f"the call does not end within {_MOST_STEPS} steps")

    async def _cancel_after(self, steps: int, client: Client) -> tuple[object, str]:
        """Return the outcome of a call that was cancelled then (its result, if it was faster), and its notes."""
        await client.warm(self.model)
        task = asyncio.ensure_future(client.invoke(self.model, self.minimal))
        for step in range(steps):
            await asyncio.sleep(0 if step < _EACH_STEP else _LATER)
        task.cancel()
        try:
            return await task, ""
        except asyncio.CancelledError as cancelled:  # the task's own: gather would give another, without its notes
            return cancelled, " ".join(getattr(cancelled, "__notes__", ()))
        except Exception as error:  # noqa: BLE001 - the check reports that it is not a cancellation
            return error, ""


class _LoopWatch:
    """A thread that notices when a loop is blocked, and where."""

    def __init__(self) -> None:
        self.stood_at = ""
        self._beat = math.inf
        self._of = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @contextmanager
    def over_this_loop(self) -> Iterator[None]:
        """Begin to watch the running loop."""
        loop = asyncio.get_running_loop()
        self._of = threading.get_ident()

        timer: asyncio.Handle

        def beat() -> None:
            nonlocal timer
            self._beat = time.monotonic()
            timer = loop.call_later(_EVERY, beat)

        self._beat = time.monotonic()
        timer = loop.call_soon(beat)
        try:
            yield
        finally:
            timer.cancel()
            self._beat = math.inf

    def _look(self) -> None:
        looked = time.monotonic()
        while not self._is_over.wait(_EVERY):
            now = time.monotonic()
            if now - looked > _LONGEST_BLOCK / 2:  # this thread stood still too: the machine's doing
                self._beat = max(self._beat, now)
            looked = now
            frame = sys._current_frames().get(self._of)  # noqa: SLF001 - the documented way to a thread's frame
            if now - self._beat > _LONGEST_BLOCK and frame is not None and not self.stood_at:
                self.stood_at = _where(frame)


def _where(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame)[-6:])
