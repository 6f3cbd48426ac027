"""Changes that a state did not take: each is made when it can be, in the order of its record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from impasto.ext import StateError
from impasto_plugins.gateway.storage import late_writes
from impasto_plugins.gateway.storage.late_writes import LateWrites


class State:
    """A state that is away, for all records or for some."""

    def __init__(self, *away: str) -> None:
        self.away, self.changes = {*away}, list[str]()

    def change(self, name: str) -> Callable[[], Awaitable[None]]:
        async def change() -> None:
            await asyncio.sleep(0)
            if name[0] in self.away:
                raise StateError("away")
            self.changes.append(name)

        return change

    async def until(self, *changes: str) -> None:
        async with asyncio.timeout(30):
            while len(self.changes) < len(changes):
                await asyncio.sleep(0.001)
        assert self.changes == list(changes)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_writes, "RETRY_SECONDS", 0.001)


async def test_the_changes_of_a_record_are_made_in_their_order() -> None:
    state, late = State("a"), LateWrites()
    on_made: list[str] = []
    await late.make(state.change("a1"), lambda: on_made.append("a1"), record="a")
    state.away.clear()
    await late.make(state.change("a2"), lambda: on_made.append("a2"), record="a")
    await state.until("a1", "a2")
    assert on_made == ["a1", "a2"]
    await late.make(state.change("a3"), record="a")
    assert state.changes == ["a1", "a2", "a3"], "at once, since none waits"
    await late.aclose()


async def test_a_record_that_can_not_be_changed_holds_no_other_back() -> None:
    state, late = State("a", "b"), LateWrites()
    for name in ("a1", "b1", "b2"):
        await late.make(state.change(name), record=name[0])
    await late.make(state.change("c1"), record="c")
    assert state.changes == ["c1"]
    state.away.remove("b")
    await state.until("c1", "b1", "b2")
    state.away.clear()
    await state.until("c1", "b1", "b2", "a1")
    await late.aclose()


async def test_changes_without_a_record_wait_for_nothing() -> None:
    state, late = State("a"), LateWrites()
    await late.make(state.change("a1"))
    await late.make(state.change("b1"))
    assert state.changes == ["b1"]
    state.away.clear()
    await late.aclose()
    assert state.changes == ["b1", "a1"]


async def test_changes_that_were_never_made_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    state, late = State("a"), LateWrites()
    for name in ("a1", "a2"):
        await late.make(state.change(name), record="a")
    await late.aclose()
    assert "what became of calls could not be stored, in 2 records: away" in caplog.text
