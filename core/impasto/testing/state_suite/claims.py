"""Checks of results that retries claim."""

from __future__ import annotations

import attrs

from impasto.states import StateStore
from impasto.testing.watch import check

from .subject import IDENTITY, OTHER_IDENTITY, StateSubject, at_once, insert_call

_TASKS = 20


class ClaimChecks(StateSubject):
    """Checks of claims: each result is handed out once."""

    @check
    def test_each_result_is_claimed_once_for_a_count(self, address: str) -> None:
        """Check which result a retry gets, as it was before, and that none is handed out twice for a count."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            await insert_call(state, state="running")
            await insert_call(state, state="failed")
            await insert_call(state, state="done", identity=OTHER_IDENTITY)
            newer = await insert_call(state, state="done", created=now - 10)
            older = await insert_call(state, state="done", created=now - 20)
            first = await state.calls.claim(IDENTITY, 1, as_job=False)
            assert first == older, "claim must return the oldest result, as it was before the claim"
            second = await state.calls.claim(IDENTITY, 1, as_job=False)
            assert second == newer, "a result was handed to two retries with one count"
            assert await state.calls.claim(IDENTITY, 1, as_job=False) is None, "claim returned a result twice"
            third = await state.calls.claim(IDENTITY, 2, as_job=False)
            assert third == attrs.evolve(older, attempt=1), "the next retry gets no result that an earlier one got"

        self.use(address, work)

    @check
    def test_a_job_is_claimed_whatever_became_of_it(self, address: str) -> None:
        """Check ``as_job``: a call with a worker."""

        async def work(state: StateStore) -> None:
            await insert_call(state, state="done")
            job = await insert_call(state, state="running", worker="w")
            claimed = await state.calls.claim(IDENTITY, 1, as_job=True)
            assert claimed == job, "as_job must return the call that has a worker"
            assert await state.calls.claim(IDENTITY, 1, as_job=True) is None, "a job was handed to two retries"

        self.use(address, work)

    @check
    def test_a_result_that_is_released_is_claimed_again(self, address: str) -> None:
        """Check ``release``; after a later retry's claim it must change nothing."""

        async def work(state: StateStore) -> None:
            call = await insert_call(state, state="done")
            claimed = await state.calls.claim(IDENTITY, 1, as_job=False)
            assert claimed is not None, "claim did not return the result"
            assert claimed == call, "claim returned another call"
            await state.calls.release(claimed, 1)
            assert await state.calls.claim(IDENTITY, 1, as_job=False) == call, "a released result can't be claimed"
            later = await state.calls.claim(IDENTITY, 2, as_job=False)
            assert later is not None, "a result is handed to one retry for each count"
            await state.calls.release(claimed, 1)
            assert await state.calls.claim(IDENTITY, 2, as_job=False) is None, (
                "release took back the claim of a later retry"
            )

        self.use(address, work)

    @check
    def test_results_are_handed_out_once_at_once(self, address: str) -> None:
        """Check many claims at once, on two connections: no result twice."""

        async def work(state: StateStore) -> None:
            for _ in range(_TASKS // 2):
                await insert_call(state, state="done")
            async with self.open_store(address) as second:
                stores = [state, second] * (_TASKS // 2)
                claimed = await at_once([each.calls.claim(IDENTITY, 1, as_job=False) for each in stores])
            ids = [call.id for call in claimed if call is not None]
            assert len(ids) == len(set(ids)), "a result was handed to two retries that came at once"
            assert len(ids) == _TASKS // 2, "a result was handed to nobody"

        self.use(address, work)
