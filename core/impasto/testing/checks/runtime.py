"""Checks of running calls: cancelled anywhere, a call leaks nothing; the loop is never blocked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from unittest.mock import patch

import attrs
import pytest

from impasto import Account, Call, Client, ImpastoError, Pending, Result, Unauthorized
from impasto.dialects import TokenCache
from impasto.testing.recorder import Answer
from impasto.testing.subject import KEY, Scenario, Subject, call_outcome
from impasto.testing.watch import LoopWatch, check, check_short_blocks, run

from .stream import read_stream

_EACH_STEP = 70
"""Turns of the loop that are each tried: a call needs fewer to reach the network. After them it mostly waits."""

_LATER = 0.001
"""Seconds between the later tries."""

_MOST_STEPS = 2_000
_NOWHERE = "http://127.0.0.1:9"
_MADE_UP = ("../account", "..", "x/../../account", "//host/x", "x?a=b", "x#y", "%2e%2e/account", "x y", "x\r\ny: z")


class RuntimeChecks(Subject):
    """Checks of running calls."""

    @check
    def test_a_call_may_be_cancelled_at_every_await(self) -> None:
        """Check that a cancelled call reports possible charges and leaves no task."""
        run(self._cancel_at_each_await())

    @check
    def test_the_loop_is_not_blocked(self) -> None:
        """Check that a call never blocks the event loop."""
        check_short_blocks(self._watched_calls)

    @check
    def test_a_job_is_fetched_later_by_its_id_and_never_paid_again(self) -> None:
        """Check ``client.resume``."""
        run(self._try_resume())

    @check
    def test_a_made_up_job_id_sends_nothing(self) -> None:
        """Check that an invalid job id is refused."""
        run(self._try_made_up_ids())

    async def _watched_calls(self, watches: Sequence[LoopWatch]) -> None:
        """Make calls of each kind, a stream too, under each watch; the last is the minimal one."""
        longest = max((self.params_with(name, value) for name, value in self.values()), key=len, default=self.minimal)
        several = [each for each in self.scenarios.values() if each.images]
        calls = [Scenario(params=longest, answers=self.stages())]
        calls += [Scenario(answers=(refusal.answer,)) for refusal in self.refusals[:1]]
        calls += [*several[:1], Scenario(answers=self.stages())]
        came: object = None
        async with self.recording() as recorder, self.client(recorder.url) as client:
            await client.warm(self.model)
            for watch in watches:
                with watch.over_this_loop():
                    for each in calls:
                        recorder.answer = self.answering(each.answers, each.downloads)
                        came = await call_outcome(client, self.model, {**self.minimal, **each.params})
                    assert isinstance(came, Result), f"the call ended in {came!r}"
                    if self.stream is not None:
                        recorder.answer = self.answering([self.stream.answer])
                        await read_stream(client, self.model, {**self.minimal, **self.stream.params})

    @check
    def test_a_refused_token_is_replaced(self) -> None:
        """Check the hook ``authorize``: after a proven 401 it gets another token, and the request is sent once more."""
        if not hasattr(self.operation().provider, "authorize"):
            pytest.skip("the provider has no hook authorize: its key does not expire")
        refused = [refusal.answer for refusal in self.refusals if refusal.error is Unauthorized]
        assert refused, "declare the refusal of a token in refusals, with error=Unauthorized"
        refusals, headers = run(self._tokens_after(refused[0]))
        if not headers or all(KEY in each for each in headers):  # the token is the caller's own
            wrong = run(self._wrong_tokens())
            assert not wrong, wrong
            return
        assert len(headers) > 1, "after a 401 the request was not sent once more"
        is_replaced = any(refusals) if refusals else headers[0] != headers[1]
        assert is_replaced, (
            "a refused token is used again: pass refused on, TokenCache.get(account, refused=refused), or fetch another"
        )

    async def _wrong_tokens(self) -> str:
        """Return what is wrong with a token of the cache, which an account without the caller's own gets."""
        refusals: list[bool] = []

        async def get(self: TokenCache, account: Account, *, refused: bool = False) -> str:
            refusals.append(refused)
            return KEY

        async with self.client(_NOWHERE) as client:
            account = attrs.evolve(await client.account(self.model), headers={}, query={}, secrets=())
        with patch.object(TokenCache, "get", get):
            found = [await account.provider.authorize(account=account, refused=each) for each in (False, True)]  # type: ignore[attr-defined]  # it has the hook
        if not refusals:
            pytest.skip("the provider uses no TokenCache: test its tokens against your stand-in")
        if refusals != [False, True]:
            return "a refused token is used again: pass refused on, TokenCache.get(account, refused=refused)"
        places = {f"header:{name.lower()}": value for name, value in found[0].items()}
        for place, value in (self.auth or {}).items():
            if not (places.get(place) == value if isinstance(value, str) else value.fullmatch(str(places.get(place)))):
                return f"{place} with a token of the cache is not as in auth: see authorize"
        return ""

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
        for steps in _cancel_steps():
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


def _cancel_steps() -> Iterator[int]:
    """Yield the steps after which a call is cancelled: each, then fewer and fewer, since a busy machine takes many."""
    yield from range(_EACH_STEP)
    steps = _EACH_STEP
    while steps < _MOST_STEPS:
        yield steps
        steps += max(3, (steps - _EACH_STEP) // 6)
