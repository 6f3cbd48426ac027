"""Checks of a store as a whole, with those of its records."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import attrs

from impasto.state_records import Reservation, StoredCall, Use
from impasto.states import StateStore
from impasto.testing.watch import blocking_calls, check, process_check, run

from .budgets import BudgetChecks
from .calls import CallChecks
from .claims import ClaimChecks
from .objects import ObjectChecks
from .processes import KEY, run_at_once
from .subject import IDENTITY, OWNER, insert_call, insert_object, new_call, new_object, refusal_of

_PASSWORD = "p4ssw0rd-of-nobody"  # noqa: S105 - of nobody


class StateSuite(CallChecks, ClaimChecks, BudgetChecks, ObjectChecks):
    """Checks one store of state.

    Subclass it with ``state_type``, the store's class, and a fixture ``address`` that returns a new address for each
    test. Override ``set_clock`` and ``outage`` too: without them the checks that need them are skipped.
    """

    @check
    def test_it_opens_and_closes(self, address: str) -> None:
        """Check ``open`` and ``aclose``: closed unopened, closed twice, and that records outlast both."""

        async def cycle() -> None:
            unopened = self.create(address)
            await unopened.aclose()
            async with self.open_store(address) as state:
                call = await insert_call(state)
            await state.aclose()
            error = await refusal_of(state.calls.find(call.id, OWNER), "an operation of a closed store")
            assert str(error), "the error of a closed store has no message"
            async with self.open_store(address) as state, self.open_store(address) as second:
                assert await second.calls.find(call.id, OWNER) == call, "a call is lost after the store was closed"
                other = await insert_call(state)
                assert await second.calls.find(other.id, OWNER) == other, "a second connection does not see a call"

        run(cycle())

    @check
    def test_its_clock_is_that_of_the_world(self, address: str) -> None:
        """Check ``now``: seconds since 1970, within five minutes of this machine's clock."""

        async def work(state: StateStore) -> None:
            now = await state.now()
            assert abs(now - time.time()) < 300, f"now() is {now:g}, not seconds since 1970"
            assert await state.now() >= now, "the clock runs backwards"

        self.use(address, work)

    @check
    def test_it_reports_its_schema_and_its_records(self, address: str) -> None:
        """Check ``check`` and ``migrate``: of nothing, of a new store, and of one with records."""

        async def cycle() -> None:
            state = self.create(address)
            nothing = await state.check()
            assert nothing.version == 0, f"a store that does not exist has the schema {nothing.version}"
            assert (await state.check()).version == 0, "check created a store"
            assert await state.migrate(), "migrate created a store, and does not say so"
            assert not await state.migrate(), "migrate did something twice"
            report = await state.check()
            assert 0 < report.version == report.newest, f"after migrate the schema is {report.version}"
            assert not report.problems, f"a new store has problems: {report.problems}"
            await state.open()
            now = await state.now()
            await insert_call(state, created=now - 50)
            await insert_object(state, kind="batch", created=now - 90)
            report = await state.check()
            counts = {kind: number for kind, number in report.counts.items() if number}
            assert counts == {"calls": 1, "batch": 1}, f"one call and one batch are counted as {counts}"
            assert report.oldest == now - 90, "the oldest record is another"
            await state.aclose()

        run(cycle())

    @check
    def test_a_new_store_beside_results_is_refused(self, address: str) -> None:
        """Check ``result_folders``: it would not know what was paid for."""
        state_type = self.state_type
        assert state_type is not None, "declare state_type, the class of the store"

        async def cycle(folder: Path) -> None:
            result = folder / "image.png"
            await asyncio.to_thread(result.touch)
            state = state_type(address, setting="acme_setting", result_folders=[folder])
            await refusal_of(state.open(), "opening a new store beside results")
            await refusal_of(state.calls.find("x", OWNER), "an operation of a store that is not open")
            await asyncio.to_thread(result.unlink)
            await state.calls.find("x", OWNER)
            await state.aclose()
            await asyncio.to_thread(result.touch)
            state = state_type(address, setting="acme_setting", result_folders=[folder])
            await state.open()
            await state.aclose()

        with tempfile.TemporaryDirectory() as folder:
            run(cycle(Path(folder)))

    @check
    def test_while_it_is_away_each_operation_says_so(self, address: str) -> None:
        """Check an outage: StateError, which names the setting, and that the same store works after it."""

        async def work(state: StateStore) -> None:
            call, item = await insert_call(state), await insert_object(state)
            other_call, other_item = await new_call(state), await new_object(state)
            assert await state.is_usable() is True, "a store that is there is not usable"
            reservation = await state.budgets.reserve(b"k", [Use(what="images", period="day", amount=1)])
            assert isinstance(reservation, Reservation), "a use without a limit was refused"
            operations: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
                "calls.find": lambda: state.calls.find(call.id, OWNER),
                "calls.insert_or_join": lambda: state.calls.insert_or_join(other_call, join=True),
                "calls.insert": lambda: state.calls.insert([other_call]),
                "calls.update": lambda: state.calls.update(call.id, state="done"),
                "calls.delete": lambda: state.calls.delete(call.id),
                "calls.find_failed": lambda: state.calls.find_failed(IDENTITY),
                "calls.claim": lambda: state.calls.claim(IDENTITY, 1, as_job=False),
                "calls.release": lambda: state.calls.release(call, 1),
                "calls.take_over": lambda: state.calls.take_over({"w": []}, "me", outcome="", seconds=1),
                "calls.delete_expired": state.calls.delete_expired,
                "calls.missing": lambda: state.calls.missing([call.id]),
                "budgets.reserve": lambda: state.budgets.reserve(b"k", [Use(what="a", period="day", amount=1)]),
                "budgets.settle": lambda: state.budgets.settle(reservation, {"images": 2}),
                "budgets.check": lambda: state.budgets.check(b"k", [Use(what="a", period="day", amount=1)]),
                "budgets.used": lambda: state.budgets.used(b"k", "images", "day"),
                "budgets.delete_old": state.budgets.delete_old,
                "objects.insert": lambda: state.objects.insert(other_item, max_count=9),
                "objects.replace": lambda: state.objects.replace(item, attrs.evolve(item, size=1)),
                "objects.delete": lambda: state.objects.delete([item.id]),
                "objects.find": lambda: state.objects.find("file", item.id, OWNER),
                "objects.page": lambda: state.objects.page("file", OWNER, limit=1),
                "objects.of_kind": lambda: state.objects.of_kind("file"),
                "objects.delete_expired": lambda: state.objects.delete_expired("file"),
            }
            async with self.away(address):
                for name, operation in operations.items():
                    error = await refusal_of(operation(), f"{name}, while the store was away,")
                    assert "acme_setting" in str(error), f"the error of {name} does not name the setting: {error}"
                    assert not error.is_permanent, f"the error of {name} is permanent, and the store comes back"
                assert await state.is_usable() is False, "a store that is away is usable"
                assert (await state.check()).problems, "check finds no problem while the store is away"
            assert await state.is_usable() is True, "the store is back, and not usable"
            for name, operation in operations.items():
                try:
                    found = await operation()
                except Exception as error:  # of the store, whatever it is
                    raise AssertionError(f"{name} failed after the outage: {error}") from error
                assert name != "calls.find" or found == call, "after the outage a call is lost or changed"

        self.use(address, work)

    @check
    def test_no_message_holds_the_password(self, address: str) -> None:
        """Check the repr of a store, and its error while nothing answers at its address."""

        async def fail() -> None:
            scheme, has_scheme, rest = address.partition("://")
            if not has_scheme:
                return
            _, _, place = rest.rpartition("@")
            path = place.partition("/")[2]
            assert self.state_type is not None, "declare state_type, the class of the store"
            state = self.state_type(f"{scheme}://me:{_PASSWORD}@127.0.0.1:9/{path}", setting="acme_setting")
            texts = [repr(state), str(await refusal_of(state.open(), "opening a store that nobody serves"))]
            texts += (await state.check()).problems
            await state.aclose()
            assert not any(_PASSWORD in text for text in texts), "the password is in a message"

        run(fail())

    @check
    def test_nothing_blocks_the_loop(self, address: str) -> None:
        """Check operations of an open store for calls of the operating system that block."""

        async def work(state: StateStore) -> None:
            call, item = await new_call(state), await new_object(state)
            with blocking_calls() as found:
                await state.calls.insert_or_join(call, join=True)
                await state.calls.find(call.id, OWNER)
                await state.budgets.reserve(b"k", [Use(what="images", period="day", amount=1)])
                await state.objects.insert(item, max_count=9)
                await state.is_usable()
            assert not found, found[0]

        self.use(address, work)

    @check
    def test_an_operation_that_is_cancelled_is_made_as_a_whole_or_not(self, address: str) -> None:
        """Check cancellations at each step of a reservation, an insert and a change, and that the store works on."""

        async def work(state: StateStore) -> None:
            uses = [Use(what="images", period="day", amount=1), Use(what="usd", period="month", amount=1)]
            for step in count():
                call, item = await new_call(state, identity=b"%d" % step), await insert_object(state, size=0)
                further = await new_object(state)
                replaced = attrs.evolve(item, size=1)
                finished = await _cancelled_at(
                    step,
                    state.budgets.reserve(b"k", uses),
                    state.calls.insert_or_join(call, join=True),
                    state.objects.replace(item, replaced, further=[further]),
                )
                found = (
                    await state.objects.find("file", item.id, OWNER),
                    await state.objects.find("file", further.id, OWNER),
                )
                assert found in ((item, None), (replaced, further)), "a change that was cancelled was made in part"
                stored = await state.calls.find(call.id, OWNER)
                assert stored in (None, call), "a call that was cancelled is stored in part"
                again = await state.calls.insert_or_join(call, join=True)
                assert again == call, "after a cancelled insert its repetition gets another call"
                if finished:
                    break
            spent = [await state.budgets.used(b"k", use.what, use.period) for use in uses]
            assert spent[0] == spent[1] > 0, f"reservations that were cancelled count as {spent}"

        self.use(address, work)

    @process_check
    def test_processes_share_a_budget_keys_and_results(self, address: str) -> None:
        """Check processes that begin at once: one winner for each key, each result once, and an exact budget."""
        assert self.state_type is not None, "declare state_type, the class of the store"

        async def insert_results(state: StateStore) -> None:
            now = await state.now()
            calls = [
                StoredCall(
                    id=f"r{number}", owner=b"o", identity=KEY, state="done", created=now - number, expires=now + 3600
                )
                for number in range(30)
            ]
            await state.calls.insert(calls)

        self.use(address, insert_results)
        reserved = run_at_once(self.state_type, address, [("reserve", 10)] * 2)
        total = sum(map(sum, reserved))
        assert total == 10, f"two processes reserved {total} of 10"
        first, second = run_at_once(self.state_type, address, [("claim", 20)] * 2)
        assert len({*first, *second}) == len(first) + len(second) == 30, "a result was handed out twice, or to nobody"
        winners = run_at_once(self.state_type, address, [("join", 30)] * 2)
        assert winners[0] == winners[1], "two processes got different calls for one key"


async def _cancelled_at(step: int, *operations: Coroutine[Any, Any, object]) -> bool:
    """Cancel operations after so many steps of the loop; return True if all had ended."""
    tasks = [asyncio.create_task(operation) for operation in operations]
    for _ in range(step):
        await asyncio.sleep(0)
    finished = all(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
    return finished
