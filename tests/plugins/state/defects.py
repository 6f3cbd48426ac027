"""Stores with one defect each, made of the default one."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs

from impasto.ext import (
    CALLER_WAITS,
    LimitReached,
    ObjectsFull,
    Period,
    Reservation,
    StateError,
    StateReport,
    StateStore,
    StoredCall,
    StoredObject,
    Use,
)
from impasto_plugins.state import periods
from impasto_plugins.state.sqlite import SQLiteState
from impasto_plugins.state.sqlite.budgets import SQLiteBudgets
from impasto_plugins.state.sqlite.calls import SQLiteCalls
from impasto_plugins.state.sqlite.objects import SQLiteObjects


class Sound(SQLiteState):
    """A store whose parts a defect replaces."""

    calls_type: ClassVar[type[SQLiteCalls]] = SQLiteCalls
    budgets_type: ClassVar[type[SQLiteBudgets]] = SQLiteBudgets
    objects_type: ClassVar[type[SQLiteObjects]] = SQLiteObjects

    def __init__(self, address: str, *, setting: str = "state", result_folders: Sequence[Path] = ()) -> None:
        super().__init__(address, setting=setting, result_folders=result_folders)
        self.calls = self.calls_type(self.database)
        self.budgets = self.budgets_type(self.database)
        self.objects = self.objects_type(self.database)


class JoinsNobody(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - in place of the attribute
        async def insert_or_join(self, call: StoredCall, *, join: bool) -> StoredCall:
            return await super().insert_or_join(call, join=False)


class LosesResults(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def update(self, id: str, **columns: str | bytes) -> None:
            if columns.get("state") == "failed":
                await super().update(id, state="running")
            await super().update(id, **columns)


class JoinsInTwoSteps(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def insert_or_join(self, call: StoredCall, *, join: bool) -> StoredCall:
            query = "SELECT id, owner FROM calls WHERE identity = ? AND expires > ?"
            values = (call.identity, self._database.clock())
            found = await self._database.write(lambda db: db.execute(query, values).fetchone())
            if join and found is not None:
                existing = await self.find(*found)
                assert existing is not None
                return existing
            return await super().insert_or_join(call, join=False)


class OverwritesRepeats(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def insert(self, calls: Sequence[StoredCall]) -> None:
            for call in calls:
                await self.delete(call.id)
            await super().insert(calls)


class FindsForAnybody(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def find(self, id: str, owner: bytes) -> StoredCall | None:
            row = await self._database.write(
                lambda db: db.execute("SELECT owner FROM calls WHERE id = ?", (id,)).fetchone()
            )
            return await super().find(id, row[0] if row is not None else owner)


class FindsExpired(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def find(self, id: str, owner: bytes) -> StoredCall | None:
            clock, self._database.clock = self._database.clock, lambda: 0.0
            try:
                return await super().find(id, owner)
            finally:
                self._database.clock = clock


class MarksNoClaim(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def claim(self, identity: bytes, count: int, *, as_job: bool) -> StoredCall | None:
            if (call := await super().claim(identity, count, as_job=as_job)) is not None:
                await self.release(call, count)
            return call


class ClaimsInTwoSteps(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def claim(self, identity: bytes, count: int, *, as_job: bool) -> StoredCall | None:
            query = "SELECT id, owner FROM calls WHERE identity = ? AND attempt < ? ORDER BY attempt, created"
            found = await self._database.write(lambda db: db.execute(query, (identity, count)).fetchone())
            call = await self.find(*found) if found is not None else None
            mark = "UPDATE calls SET attempt = ? WHERE id = ?"
            await self._database.write(lambda db: db.execute(mark, (count, call.id if call is not None else "")))
            return call


class ReleasesAlways(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def release(self, call: StoredCall, count: int) -> None:
            statement, values = "UPDATE calls SET attempt = ? WHERE id = ?", (call.attempt, call.id)
            await self._database.write(lambda db: db.execute(statement, values))


class ForgetsOtherCalls(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def take_over(
            self, dead: Mapping[str, Sequence[bytes]], worker: str, *, outcome: str, seconds: float
        ) -> list[StoredCall]:
            without = {name: list[bytes]() for name in dead}
            return await super().take_over(without, worker, outcome=outcome, seconds=seconds)


class HidesJobs(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def take_over(
            self, dead: Mapping[str, Sequence[bytes]], worker: str, *, outcome: str, seconds: float
        ) -> list[StoredCall]:
            jobs = await super().take_over(dead, worker, outcome=outcome, seconds=seconds)
            for job in jobs:
                await self.release(attrs.evolve(job, attempt=CALLER_WAITS), 0)
            return jobs


class ForgetsCallsBesideJobs(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def take_over(
            self, dead: Mapping[str, Sequence[bytes]], worker: str, *, outcome: str, seconds: float
        ) -> list[StoredCall]:
            once = {name: [*dict.fromkeys(identities)] for name, identities in dead.items()}
            return await super().take_over(once, worker, outcome=outcome, seconds=seconds)


class RoundsTimes(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def insert_or_join(self, call: StoredCall, *, join: bool) -> StoredCall:
            rounded = attrs.evolve(call, created=round(call.created), expires=round(call.expires))
            stored = await super().insert_or_join(rounded, join=join)
            return call if stored.id == call.id else stored


class CountsOneByOne(Sound):
    class budgets_type(SQLiteBudgets):  # noqa: N801 - as above
        async def reserve(self, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
            amounts: dict[tuple[str, Period, int], int] = {}
            for use in uses:
                one = await super().reserve(key, [use])
                if isinstance(one, LimitReached):
                    return one
                amounts.update(one.amounts)
            return Reservation(key=key, amounts=amounts)


class ReservesInTwoSteps(Sound):
    class budgets_type(SQLiteBudgets):  # noqa: N801 - as above
        async def reserve(self, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
            if (refusal := await self.check(key, uses)) is not None:
                return refusal
            return await super().reserve(key, [attrs.evolve(use, limit=None) for use in uses])


class CountsInMemory(Sound):
    class budgets_type(SQLiteBudgets):  # noqa: N801 - as above
        counts: ClassVar[dict[bytes, int]] = {}

        async def reserve(self, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
            counts, use = self.counts, uses[0]
            if use.limit is not None and counts.get(key, 0) + use.amount > use.limit:
                return LimitReached(use=use, left=0, ends=0, seconds=0)
            counts[key] = counts.get(key, 0) + use.amount
            return Reservation(key=key, amounts={})


class SettlesAbsolutely(Sound):
    class budgets_type(SQLiteBudgets):  # noqa: N801 - as above
        async def settle(self, reservation: Reservation, spent: Mapping[str, int]) -> None:
            statement = "UPDATE budgets SET amount = ? WHERE key = ? AND what = ?"
            values = [(amount, reservation.key, what) for what, amount in spent.items()]
            await self._database.write(lambda db: db.executemany(statement, values))


class HasFixedMinutes(Sound):
    class budgets_type(SQLiteBudgets):  # noqa: N801 - as above
        async def reserve(self, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
            clock, now = self._database.clock, self._database.clock()
            minute = now - now % 60
            self._database.clock = lambda: minute
            try:
                return await super().reserve(key, uses)
            finally:
                self._database.clock = clock


class ForgetsTheFuture(Sound):
    class budgets_type(SQLiteBudgets):  # noqa: N801 - as above
        async def reserve(self, key: bytes, uses: Sequence[Use]) -> Reservation | LimitReached:
            now = self._database.clock()
            parts = [(use.period, periods.current_part(use.period, now)) for use in uses]
            statement = "DELETE FROM budgets WHERE period = ? AND part > ?"
            await self._database.write(lambda db: db.executemany(statement, parts))
            return await super().reserve(key, uses)


class ReplacesBlindly(Sound):
    class objects_type(SQLiteObjects):  # noqa: N801 - as above
        async def replace(
            self,
            old: StoredObject,
            new: StoredObject,
            *,
            further: Sequence[StoredObject] = (),
            max_bytes: int | None = None,
        ) -> bool | ObjectsFull:
            current = await self.find(old.kind, old.id, old.owner)
            return await super().replace(current or old, new, further=further, max_bytes=max_bytes)


class TakesAChangeForItsOwn(Sound):
    class objects_type(SQLiteObjects):  # noqa: N801 - as above
        async def replace(
            self,
            old: StoredObject,
            new: StoredObject,
            *,
            further: Sequence[StoredObject] = (),
            max_bytes: int | None = None,
        ) -> bool | ObjectsFull:
            replaced = await super().replace(old, new, further=further, max_bytes=max_bytes)
            return replaced or (old != new and await self.find(new.kind, new.id, new.owner) == new)


class InsertsFurtherOnesLater(Sound):
    class objects_type(SQLiteObjects):  # noqa: N801 - as above
        async def replace(
            self,
            old: StoredObject,
            new: StoredObject,
            *,
            further: Sequence[StoredObject] = (),
            max_bytes: int | None = None,
        ) -> bool | ObjectsFull:
            replaced = await super().replace(old, new, max_bytes=max_bytes)
            for each in further if replaced is True else ():
                await self.insert(each, max_count=100)
            return replaced


class CountsForAllOwners(Sound):
    class objects_type(SQLiteObjects):  # noqa: N801 - as above
        async def insert(
            self, item: StoredObject, *, max_count: int, max_bytes: int | None = None, since: float | None = None
        ) -> StoredObject | ObjectsFull:
            others = [each for each in await self.of_kind(item.kind) if each.owner != item.owner]
            return await super().insert(item, max_count=max_count - len(others), max_bytes=max_bytes, since=since)


class DeletesActiveOnes(Sound):
    class objects_type(SQLiteObjects):  # noqa: N801 - as above
        async def delete_expired(self, kind: str, *, keep: Collection[str] = ()) -> list[StoredObject]:
            return await super().delete_expired(kind)


class RepeatsTheCursor(Sound):
    class objects_type(SQLiteObjects):  # noqa: N801 - as above
        async def page(self, kind: str, owner: bytes, **options: Any) -> list[StoredObject]:
            items = await super().page(kind, owner, **options)
            last = await self.find(kind, options.get("after") or "", owner)
            return [last, *items] if last is not None else items


class RaisesItsOwnErrors(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def find(self, id: str, owner: bytes) -> StoredCall | None:
            try:
                return await super().find(id, owner)
            except StateError as error:
                raise error.__cause__ or error from None


class NamesNoSetting(Sound):
    def __init__(self, address: str, *, setting: str = "state", result_folders: Sequence[Path] = ()) -> None:
        super().__init__(address, result_folders=result_folders)


class StaysAway(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        broken = False

        async def find(self, id: str, owner: bytes) -> StoredCall | None:
            try:
                if self.broken:
                    raise StateError("the connection is closed")
                return await super().find(id, owner)
            except StateError:
                self.broken = True
                raise


class CreatesAtACheck(Sound):
    async def check(self) -> StateReport:
        await self.open()
        return await super().check()


class IgnoresResults(Sound):
    def __init__(self, address: str, *, setting: str = "state", result_folders: Sequence[Path] = ()) -> None:
        super().__init__(address, setting=setting)


class BlocksTheLoop(Sound):
    class calls_type(SQLiteCalls):  # noqa: N801 - as above
        async def find(self, id: str, owner: bytes) -> StoredCall | None:
            time.sleep(0.01)
            return await super().find(id, owner)


class HasAnotherClock(Sound):
    async def now(self) -> float:
        return time.monotonic()


DEFECTS: Sequence[tuple[type[StateStore], str, str]] = (
    (JoinsNobody, "a_repeated_call_joins_the_first", "did not join the first"),
    (LosesResults, "a_change_concerns_one_call_and_what_it_names", "that was done became a failed one"),
    (JoinsInTwoSteps, "one_of_many_calls_with_a_key_is_inserted", "were not joined"),
    (OverwritesRepeats, "repeating_an_insert_inserts_once", "overwrote the call"),
    (FindsForAnybody, "a_call_is_stored_as_it_was", "found for another owner"),
    (FindsExpired, "an_expired_call_is_not_found", "find returned an expired call"),
    (MarksNoClaim, "each_result_is_claimed_once_for_a_count", "to two retries with one count"),
    (ClaimsInTwoSteps, "results_are_handed_out_once_at_once", "two retries that came at once"),
    (ReleasesAlways, "a_result_that_is_released_is_claimed_again", "the claim of a later retry"),
    (ForgetsOtherCalls, "calls_of_dead_workers_are_taken_over", "without a record got no failed one"),
    (HidesJobs, "a_job_of_a_dead_worker_is_for_a_retry", "a retry did not get the job"),
    (ForgetsCallsBesideJobs, "a_job_stands_for_one_call", "a call without a job got no failed record"),
    (RoundsTimes, "a_call_is_stored_as_it_was", "is not stored as it was"),
    (CountsOneByOne, "uses_are_counted_together_or_not_at_all", "and a refusal count as"),
    (ReservesInTwoSteps, "a_budget_for_ten_is_ten_under_fifty_at_once", "within a limit of 10"),
    (CountsInMemory, "processes_share_a_budget_keys_and_results", "two processes reserved 20 of 10"),
    (SettlesAbsolutely, "what_was_spent_replaces_what_was_reserved", "count, not"),
    (HasFixedMinutes, "a_minute_slides", "there is room|must be left|beyond its limit"),
    (ForgetsTheFuture, "a_clock_that_is_set_back_frees_nothing", "was not refused"),
    (ReplacesBlindly, "an_object_is_replaced_only_if_nobody_changed_it", "an object with another status was replaced"),
    (TakesAChangeForItsOwn, "no_change_is_lost_among_many_at_once", "were lost"),
    (InsertsFurtherOnesLater, "an_operation_that_is_cancelled_is_made_as_a_whole_or_not", "was made in part"),
    (CountsForAllOwners, "objects_stay_within_their_limits", "has room|objects and"),
    (DeletesActiveOnes, "expired_objects_are_deleted_and_returned", "must return what it deletes"),
    (RepeatsTheCursor, "pages_hold_an_owners_objects_in_order", "begins after the object that it names"),
    (RaisesItsOwnErrors, "while_it_is_away_each_operation_says_so", "calls.find, while the store was away, raised"),
    (NamesNoSetting, "while_it_is_away_each_operation_says_so", "does not name the setting"),
    (StaysAway, "while_it_is_away_each_operation_says_so", "the connection is closed"),
    (CreatesAtACheck, "it_reports_its_schema_and_its_records", "does not exist has the schema"),
    (IgnoresResults, "a_new_store_beside_results_is_refused", "raised no StateError"),
    (BlocksTheLoop, "nothing_blocks_the_loop", "sleep"),
    (HasAnotherClock, "its_clock_is_that_of_the_world", "not seconds since 1970"),
)
"""Each defect with its check, and what that says."""
