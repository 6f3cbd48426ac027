"""Checks of how a call behaves while it runs: cancelled anywhere, it leaks nothing; the loop is never blocked."""

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

from .recorder import recording
from .requirements import Subject, outcome

_EACH_STEP = 70
"""Turns of the loop: the way to the network takes fewer. After it, a call mostly waits."""

_LATER = 0.001
"""Seconds of each step after those."""

_MOST_STEPS = 2_000
_EVERY = 0.02
_MADE_UP = ("../account", "..", "x/../../account", "//host/x", "x?a=b", "x#y", "%2e%2e/account", "x y", "x\r\ny: z")
_LONGEST_BLOCK = 0.2
"""Seconds of standing still that are more than a busy machine's own."""


class Running(Subject):
    """Checks of running calls."""

    def test_a_call_may_be_cancelled_at_every_await(self) -> None:
        asyncio.run(self._cancelled_everywhere())

    def test_the_loop_is_not_blocked(self) -> None:
        async def calls(watch: _Watch) -> object:
            async with recording(self.usual) as recorder, self.client(recorder.url) as client:
                await client.warm(self.model)
                with watch.over_this_loop():
                    return await outcome(client, self.model, self.least)

        with _Watch() as watch:
            came = asyncio.run(calls(watch))
        assert isinstance(came, Result), f"the call came to {came!r}"
        assert not watch.stood_at, f"the loop stood still in:\n{watch.stood_at}"

    def test_a_job_is_fetched_later_by_its_id_and_never_paid_again(self) -> None:
        asyncio.run(self._resumed())

    def test_a_made_up_job_id_sends_nothing(self) -> None:
        asyncio.run(self._made_up())

    async def _made_up(self) -> None:
        async with recording(self.usual) as recorder, self.client(recorder.url) as client:
            for job in _MADE_UP:
                with suppress(ImpastoError):
                    await client.resume(self.model, job)
                sent = [seen.target for seen in recorder.seen]
                assert not sent, f"client.resume of {job!r} asked for {sent[0]}: check request.job in pack"

    async def _resumed(self) -> None:
        jobs: list[str] = []

        class Noting(Call):
            def accepted(self, pending: Pending) -> None:
                super().accepted(pending)
                jobs.append(pending.id)

        async with recording(self.usual) as recorder, self.client(recorder.url) as client:
            if self.accepted is not None:
                await client.invoke(self.model, self.least, call=Noting)
                assert jobs, f"{self.model} has jobs, and its accepted answer is none: unpack must give a Pending"
            paid = len(recorder.posts)
            try:
                came: object = await client.resume(self.model, (*jobs, "no-such-job")[0])
            except ImpastoError as error:
                came = error
            if jobs:
                said = f"{type(came).__name__}: {came}"
                assert isinstance(came, Result), f"client.resume of {jobs[0]!r} came to {said}; see request.job in pack"
            else:
                assert isinstance(came, ImpastoError), f"{self.model} has no jobs, and client.resume made {came!r}"
            assert len(recorder.posts) == paid, "client.resume paid for it again"

    async def _cancelled_everywhere(self) -> None:
        for steps in (*range(_EACH_STEP), *range(_EACH_STEP, _MOST_STEPS, 3)):
            before = asyncio.all_tasks()
            async with recording(self.usual) as recorder:
                async with self.client(recorder.url) as client:
                    came, notes = await self._cancelled_after(steps, client)
                await recorder.settle()
            when = f"cancelled after {steps} steps"
            if isinstance(came, Result):
                return
            assert isinstance(came, asyncio.CancelledError), f"{when}, it came to {came!r}"
            assert len(recorder.posts) <= 1, f"{when}, it made {len(recorder.posts)} paid requests"
            assert not recorder.posts or "charged" in notes, f"{when}, it may have been charged and no note says so"
            left = asyncio.all_tasks() - before
            assert not left, f"{when}, it left tasks: {left}"
        raise AssertionError(f"the call does not end within {_MOST_STEPS} steps")

    async def _cancelled_after(self, steps: int, client: Client) -> tuple[object, str]:
        """What a call came to that was cancelled then (its result, where it was faster), and its notes."""
        await client.warm(self.model)
        task = asyncio.ensure_future(client.invoke(self.model, self.least))
        for step in range(steps):
            await asyncio.sleep(0 if step < _EACH_STEP else _LATER)
        task.cancel()
        try:
            return await task, ""
        except asyncio.CancelledError as cancelled:  # the task's own: gather would give another, without its notes
            return cancelled, " ".join(getattr(cancelled, "__notes__", ()))
        except Exception as error:  # noqa: BLE001 - that it is no cancellation is told by the check
            return error, ""


class _Watch:
    """A thread that sees when a loop stands still, and where."""

    def __init__(self) -> None:
        self.stood_at = ""
        self._beat = math.inf
        self._of = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @contextmanager
    def over_this_loop(self) -> Iterator[None]:
        """The running loop is watched from here."""
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
        while not self._ended.wait(_EVERY):
            now = time.monotonic()
            if now - looked > _LONGEST_BLOCK / 2:  # this thread stood still too: the machine's doing
                self._beat = max(self._beat, now)
            looked = now
            frame = sys._current_frames().get(self._of)  # noqa: SLF001 - the documented way to a thread's frame
            if now - self._beat > _LONGEST_BLOCK and frame is not None and not self.stood_at:
                self.stood_at = _where(frame)


def _where(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame)[-6:])
