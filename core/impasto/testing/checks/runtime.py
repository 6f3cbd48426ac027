"""Checks of running calls: cancelled anywhere, a call leaks nothing; the loop is never blocked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from unittest.mock import patch

import pytest

from impasto import Account, Call, Client, ImpastoError, Pending, Result, Unauthorized
from impasto.dialects import TokenCache
from impasto.testing.recorder import Answer
from impasto.testing.subject import KEY, Subject, call_outcome
from impasto.testing.watch import LoopWatch, check, run

_EACH_STEP = 70
"""Turns of the loop that are each tried: a call needs fewer to reach the network. After them it mostly waits."""

_LATER = 0.001
"""Seconds between the later tries."""

_MOST_STEPS = 2_000
_MADE_UP = ("../account", "..", "x/../../account", "//host/x", "x?a=b", "x#y", "%2e%2e/account", "x y", "x\r\ny: z")
_LONGEST_BLOCK = 0.2
"""Seconds of a blocked loop that a busy machine alone does not explain."""

_SHORT_BLOCK = 0.03
_SHORT_TRIES = 12


class RuntimeChecks(Subject):
    """Checks of running calls."""

    @check
    def test_a_call_may_be_cancelled_at_every_await(self) -> None:
        """Check that a cancelled call reports possible charges and leaves no task."""
        run(self._cancel_at_each_await())

    @check
    def test_the_loop_is_not_blocked(self) -> None:
        """Check that a call never blocks the event loop."""
        watch = LoopWatch(_LONGEST_BLOCK, _LONGEST_BLOCK / 10)
        with watch:
            came = run(self._watched_calls([watch]))
        assert isinstance(came, Result), f"the call ended in {came!r}"
        assert not watch.stood_at, f"the loop was blocked in:\n{watch.stood_at}"
        watches: list[LoopWatch] = []
        # A busy machine may delay a loop as long, but hardly in each of many calls.
        while len(watches) < _SHORT_TRIES and not any(each.longest_gap <= _SHORT_BLOCK for each in watches):
            some = [LoopWatch(_SHORT_BLOCK, _SHORT_BLOCK / 8) for _ in range(_SHORT_TRIES // 4)]
            with ExitStack() as stack:
                for each in some:
                    stack.enter_context(each)
                run(self._watched_calls(some))
            watches += some
        least = min(each.longest_gap for each in watches)
        assert least <= _SHORT_BLOCK, (
            f"each call blocks the loop for {least * 1000:.0f} ms, more than {_SHORT_BLOCK * 1000:g} ms, in:\n"
            + next((each.stood_at for each in watches if each.stood_at), "a function that kept every thread waiting")
        )

    @check
    def test_a_job_is_fetched_later_by_its_id_and_never_paid_again(self) -> None:
        """Check ``client.resume``."""
        run(self._try_resume())

    @check
    def test_a_made_up_job_id_sends_nothing(self) -> None:
        """Check that an invalid job id is refused."""
        run(self._try_made_up_ids())

    async def _watched_calls(self, watches: Sequence[LoopWatch]) -> object:
        """Make a call with the most parameters, one that is refused, and the minimal one, under each watch."""
        longest = max((self.params_with(name, value) for name, value in self.values()), key=len, default=self.minimal)
        refused = (refusal.answer for refusal in self.refusals[:1])
        calls = [
            (longest, self.stages()),
            *((self.minimal, (each,)) for each in refused),
            (self.minimal, self.stages()),
        ]
        came: object = None
        async with self.recording() as recorder, self.client(recorder.url) as client:
            await client.warm(self.model)
            for watch in watches:
                with watch.over_this_loop():
                    for params, stages in calls:
                        recorder.answer = self.answering(stages)
                        came = await call_outcome(client, self.model, params)
        return came

    @check
    def test_a_refused_token_is_replaced(self) -> None:
        """Check the hook ``authorize``: after a proven 401 it gets another token, and the request is sent once more."""
        if not hasattr(self.operation().provider, "authorize"):
            pytest.skip("the provider has no hook authorize: its key does not expire")
        refused = [refusal.answer for refusal in self.refusals if refusal.error is Unauthorized]
        assert refused, "declare the refusal of a token in refusals, with error=Unauthorized"
        refusals, headers = run(self._tokens_after(refused[0]))
        if not headers or all(KEY in each for each in headers):
            pytest.skip("the key of these settings is a token that does not expire")
        assert len(headers) > 1, "after a 401 the request was not sent once more"
        is_replaced = any(refusals) if refusals else headers[0] != headers[1]
        assert is_replaced, (
            "a refused token is used again: pass refused on, TokenCache.get(account, refused=refused), or fetch another"
        )

    async def _tokens_after(self, refused: Answer) -> tuple[list[bool], list[str]]:
        """Return with which ``refused`` a TokenCache was asked, and the headers of the key, for a call after a 401."""
        refusals: list[bool] = []
        get = TokenCache.get

        async def note(self: TokenCache, account: Account, *, refused: bool = False) -> str:
            refusals.append(refused)
            return await get(self, account, refused=refused)

        answers = self.answering()
        async with self.recording() as recorder, self.client(recorder.url) as client:
            recorder.answer = lambda request: refused if len(recorder.requests) == 1 else answers(request)
            with patch.object(TokenCache, "get", note):
                await call_outcome(client, self.model, self.minimal)
            places = [place.removeprefix("header:") for place in self.auth or {} if place.startswith("header:")]
            return refusals, [request.header(place) for request in recorder.posts[:2] for place in places[:1]]

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
            if self.job_accepted is not None or self.downloads:
                await client.invoke(self.model, self.minimal, call=Noting)
                assert jobs, (
                    f"{self.model} accepted no job: normalize_response must return a Pending, or images_from_urls(...)"
                )
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
            is_noted = "result" in vars(came) or any(word in notes for word in ("charged", "client.resume"))
            assert not recorder.posts or is_noted, f"{when}, it may have been charged and no note says so"
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
