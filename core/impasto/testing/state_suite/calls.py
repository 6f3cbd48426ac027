"""Checks of the calls."""

from __future__ import annotations

from typing import Any

import attrs

from impasto.state_records import CALLER_WAITS, StoredCall
from impasto.states import StateStore
from impasto.testing.watch import check

from .subject import (
    HOUR,
    IDENTITY,
    OTHER,
    OTHER_IDENTITY,
    OWNER,
    StateSubject,
    at_once,
    insert_call,
    new_call,
    new_id,
)

_TASKS = 20


class CallChecks(StateSubject):
    """Checks of calls: inserted, joined, changed, taken over, deleted."""

    @check
    def test_a_call_is_stored_as_it_was(self, address: str) -> None:
        """Check every field, bytes with zeros, and text of any length."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            call = StoredCall(
                id=new_id(),
                owner=OWNER,
                identity=IDENTITY,
                content=bytes(range(32)),
                state="done",
                model="acme/one é",
                response_format="url",
                worker="w",
                attempt=3,
                jobs='[{"id": "7"}]',
                outcome='"\u20ac\U0001f3de"' * 50_000,
                created=now - 1.5,
                expires=now + HOUR,
            )
            assert await state.calls.insert_or_join(call, join=True) == call, "insert_or_join returned another call"
            found = await state.calls.find(call.id, OWNER)
            assert found == call, "a call is not stored as it was"
            assert await state.calls.find(call.id, OTHER) is None, "a call was found for another owner"
            assert await state.calls.find(new_id(), OWNER) is None, "a call that does not exist was found"

        self.use(address, work)

    @check
    def test_a_call_without_a_beginning_begins_now(self, address: str) -> None:
        """Check both ways to insert a call."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            first, second = [StoredCall(id=new_id(), owner=OWNER, identity=IDENTITY, expires=HOUR) for _ in "ab"]
            inserted = await state.calls.insert_or_join(first, join=False)
            await state.calls.insert([second])
            for call in (first, second):
                found = await state.calls.find(call.id, OWNER)
                assert found is not None, "a call without a beginning was not inserted"
                assert found.created >= now, "a call without a beginning does not begin now"
                assert abs(found.expires - found.created - HOUR) < 1e-3, "its end does not count from its beginning"
                assert call is second or found == inserted, "insert_or_join returned other times"

        self.use(address, work)

    @check
    def test_a_repeated_call_joins_the_first(self, address: str) -> None:
        """Check ``join``: the call with the fingerprint is returned, whatever became of it."""

        async def work(state: StateStore) -> None:
            first = await new_call(state)
            await state.calls.insert_or_join(first, join=True)
            outcomes: tuple[dict[str, Any], ...] = ({}, {"state": "failed"}, {"state": "done", "outcome": "{}"})
            for changes in outcomes:
                if changes:
                    await state.calls.update(first.id, **changes)
                again = await state.calls.insert_or_join(await new_call(state, content=b"x"), join=True)
                assert again == attrs.evolve(first, **changes), "a repeated call did not join the first"
                first = again
            other = await new_call(state, identity=OTHER_IDENTITY)
            assert await state.calls.insert_or_join(other, join=True) == other, "calls of two fingerprints were joined"

        self.use(address, work)

    @check
    def test_without_join_a_call_stands_for_itself(self, address: str) -> None:
        """Check that calls with one fingerprint are stored side by side."""

        async def work(state: StateStore) -> None:
            calls = [await new_call(state) for _ in range(3)]
            for call in calls:
                assert await state.calls.insert_or_join(call, join=False) == call, "it was joined without join"
            assert not await state.calls.missing([call.id for call in calls]), "a call was not inserted"

        self.use(address, work)

    @check
    def test_repeating_an_insert_inserts_once(self, address: str) -> None:
        """Check a repetition after a connection broke: the call's own row is returned, with what became of it."""

        async def work(state: StateStore) -> None:
            for join in (True, False):
                call = await new_call(state, identity=new_id().encode())
                await state.calls.insert_or_join(call, join=join)
                assert await state.calls.insert_or_join(call, join=join) == call, "a repeated insert returns another"
                await state.calls.update(call.id, jobs="[1]")
                again = await state.calls.insert_or_join(call, join=join)
                assert again == attrs.evolve(call, jobs="[1]"), "a repeated insert overwrote the call"
                await state.calls.insert([call, await new_call(state, identity=b"more")])
                assert await state.calls.find(call.id, OWNER) == again, "a repeated insert overwrote the call"
            assert len(await state.calls.delete_expired()) == 0, "a call was stored as expired"

        self.use(address, work)

    @check
    def test_an_expired_call_is_not_found(self, address: str) -> None:
        """Check all ways to a call after its time, and that its fingerprint is free again."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            done = await insert_call(state, state="done", expires=now - 1)
            failed = await insert_call(state, state="failed", expires=now - 1)
            calls = state.calls
            assert await calls.find(done.id, OWNER) is None, "find returned an expired call"
            assert await calls.find_failed(IDENTITY) is None, "find_failed returned an expired call"
            assert await calls.claim(IDENTITY, 1, as_job=False) is None, "claim returned an expired call"
            later = await insert_call(state, identity=OTHER_IDENTITY, expires=now - 1)
            current = await new_call(state)
            assert await calls.insert_or_join(current, join=True) == current, "an expired call was joined"
            expired = set(await calls.delete_expired())
            assert later.id in expired <= {done.id, failed.id, later.id}, "delete_expired returned other ids"
            assert set(await calls.missing([done.id, later.id, current.id])) == {done.id, later.id}, (
                "delete_expired left expired calls, or deleted others"
            )
            assert len(await calls.delete_expired()) == 0, "delete_expired left expired calls"

        self.use(address, work)

    @check
    def test_a_change_concerns_one_call_and_what_it_names(self, address: str) -> None:
        """Check ``update`` and ``delete``."""

        async def work(state: StateStore) -> None:
            first, second = await insert_call(state), await insert_call(state)
            changes: tuple[dict[str, Any], ...] = (
                {"jobs": "[]"},
                {"state": "done", "outcome": "{}"},
                {"identity": b""},
            )
            for change in changes:
                await state.calls.update(first.id, **change)
                first = attrs.evolve(first, **change)
                assert await state.calls.find(first.id, OWNER) == first, f"update did not change {sorted(change)} alone"
            await state.calls.update(first.id, state="failed", outcome='"lost"')
            assert await state.calls.find(first.id, OWNER) == first, "a call that was done became a failed one"
            await state.calls.update(second.id, state="failed", outcome='"lost"')
            await state.calls.update(second.id, state="done", outcome="{}")
            second = attrs.evolve(second, state="done", outcome="{}")
            assert await state.calls.find(second.id, OWNER) == second, "a late result was not added to a failed call"
            await state.calls.update(new_id(), state="done")
            await state.calls.delete(first.id)
            await state.calls.delete(first.id)
            assert await state.calls.find(first.id, OWNER) is None, "a deleted call was found"
            assert await state.calls.find(second.id, OWNER) == second, "another call was changed or deleted"

        self.use(address, work)

    @check
    def test_failed_calls_are_found_by_their_fingerprint(self, address: str) -> None:
        """Check that calls in other states, or with another fingerprint, are not returned."""

        async def work(state: StateStore) -> None:
            await insert_call(state, state="done")
            await insert_call(state, state="running")
            await insert_call(state, state="failed", identity=OTHER_IDENTITY)
            assert await state.calls.find_failed(IDENTITY) is None, "find_failed returned a call that did not fail"
            failed = await insert_call(state, state="failed")
            assert await state.calls.find_failed(IDENTITY) == failed, "find_failed does not return a failed call"

        self.use(address, work)

    @check
    def test_calls_of_dead_workers_are_taken_over(self, address: str) -> None:
        """Check ``take_over``: jobs go to a worker, other running calls failed, and calls without a record get one."""

        async def work(state: StateStore) -> None:
            job = await insert_call(state, worker="dead", jobs="[1]")
            running = await insert_call(state, worker="dead")
            done = await insert_call(state, worker="dead", state="done", jobs="[1]", outcome="{}")
            alive = await insert_call(state, worker="alive", jobs="[1]")
            taken = await state.calls.take_over(
                {"dead": [OTHER_IDENTITY], "gone": []}, "me", outcome='"lost"', seconds=HOUR
            )
            assert taken == [attrs.evolve(job, worker="me")], "take_over must return the jobs, with their new worker"
            expected = (taken[0], attrs.evolve(running, state="failed", outcome='"lost"'), done, alive)
            for each in expected:
                assert await state.calls.find(each.id, OWNER) == each, "take_over changed calls wrongly"
            now = await state.now()
            failed = await state.calls.find_failed(OTHER_IDENTITY)
            assert failed is not None, "a call without a record got no failed one"
            assert (failed.state, failed.outcome, failed.owner) == ("failed", '"lost"', b""), "its record is wrong"
            assert now + HOUR / 2 < failed.expires <= now + HOUR, "its record expires at another time"
            assert await state.calls.take_over({"dead": []}, "other", outcome="", seconds=HOUR) == [], (
                "a job was taken over twice"
            )

        self.use(address, work)

    @check
    def test_a_job_of_a_dead_worker_is_for_a_retry(self, address: str) -> None:
        """Check ``take_over`` of calls whose caller waited: a retry gets the job, and its call no failed record."""

        async def work(state: StateStore) -> None:
            job = await insert_call(state, worker="dead", jobs="[1]", attempt=CALLER_WAITS)
            assert await state.calls.claim(IDENTITY, 9, as_job=True) is None, "a retry got a call whose caller waits"
            dead = {"dead": [IDENTITY, OTHER_IDENTITY]}
            (taken,) = await state.calls.take_over(dead, "me", outcome="", seconds=HOUR)
            assert taken == attrs.evolve(job, worker="me", attempt=0), "a job that was taken over has another attempt"
            assert await state.calls.find_failed(IDENTITY) is None, "a call with a job got a failed record"
            assert await state.calls.find_failed(OTHER_IDENTITY) is not None, "a call without a job got no record"
            assert await state.calls.claim(IDENTITY, 1, as_job=True) == taken, "a retry did not get the job"

        self.use(address, work)

    @check
    def test_a_job_stands_for_one_call(self, address: str) -> None:
        """Check ``take_over`` of two calls with one fingerprint, one of which has a job: the other is a failed one."""

        async def work(state: StateStore) -> None:
            await insert_call(state, worker="dead", jobs="[1]", attempt=CALLER_WAITS)
            await insert_call(state, worker="dead", jobs="[1]", identity=OTHER_IDENTITY)
            dead = {"dead": [IDENTITY, IDENTITY, OTHER_IDENTITY]}
            await state.calls.take_over(dead, "me", outcome="", seconds=HOUR)
            for identity in (IDENTITY, OTHER_IDENTITY):
                assert await state.calls.find_failed(identity) is not None, "a call without a job got no failed record"

        self.use(address, work)

    @check
    def test_ids_without_a_call_are_missing(self, address: str) -> None:
        """Check ``missing``, also of thousands."""

        async def work(state: StateStore) -> None:
            calls = [await new_call(state) for _ in range(50)]
            await state.calls.insert(calls)
            unknown = {new_id() for _ in range(5_000)}
            missing = await state.calls.missing({*unknown, *(call.id for call in calls)})
            assert set(missing) == unknown, "missing returned other ids"
            assert not await state.calls.missing([]), "missing returned ids that nobody asked for"

        self.use(address, work)

    @check
    def test_one_of_many_calls_with_a_key_is_inserted(self, address: str) -> None:
        """Check many tasks at once, on two connections: all get the same call."""

        async def work(state: StateStore) -> None:
            async with self.open_store(address) as second:
                stores = [state, second] * (_TASKS // 2)
                calls = [await new_call(state) for _ in stores]
                pairs = zip(stores, calls, strict=True)
                winners = await at_once([each.calls.insert_or_join(call, join=True) for each, call in pairs])
            assert len({winner.id for winner in winners}) == 1, "calls with one key were not joined"
            others = {call.id for call in calls} - {winners[0].id}
            assert set(await state.calls.missing(others)) == others, "a call that joined another was inserted too"

        self.use(address, work)
