"""The mark of a call that waits for its turn: it is never in the store once a request was sent."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import attrs
import pytest

from impasto import NotSent
from impasto.ext import StateError, StoredCall
from impasto_plugins.gateway.idempotency import queue_mark as module
from impasto_plugins.gateway.idempotency.queue_mark import UNSENT, QueueMark

ROW = StoredCall(id="a" * 64, owner=b"", identity=b"", expires=60)


@attrs.define
class Calls:
    """Rows whose updates wait for ``gate``, and fail while ``is_away``."""

    jobs: str = ""
    is_away: bool = False
    gate: asyncio.Event = attrs.field(factory=asyncio.Event)
    is_called: asyncio.Event = attrs.field(factory=asyncio.Event)
    updates: list[str] = attrs.field(factory=list[str])

    async def update(self, id: str, *, jobs: str) -> None:
        self.is_called.set()
        await self.gate.wait()
        if self.is_away:
            raise StateError("away")
        self.jobs = jobs
        self.updates.append(jobs)

    async def until_marked(self) -> None:
        async with asyncio.timeout(30):
            while self.jobs != UNSENT:
                await asyncio.sleep(0.001)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setattr(module, "MARK_SECONDS", 0.0)
    return Calls()


def mark_of(calls: Calls, row: StoredCall | None = ROW) -> Any:
    return QueueMark(cast("Any", calls), row)


async def test_a_call_that_waits_is_marked_until_it_is_sent(calls: Calls) -> None:
    calls.gate.set()
    async with mark_of(calls) as mark:
        await calls.until_marked()
        for _ in range(2):  # each of several requests
            await mark.remove()
        assert calls.updates == [UNSENT, ""]


async def test_a_call_that_is_sent_at_once_is_never_marked(calls: Calls) -> None:
    calls.gate.set()
    async with mark_of(calls) as mark:
        await mark.remove()
        await asyncio.sleep(0.01)
    assert calls.updates == []


async def test_a_request_waits_for_the_mark_that_is_being_written(calls: Calls) -> None:
    async with mark_of(calls) as mark:
        await calls.is_called.wait()
        removing = asyncio.create_task(mark.remove())
        await asyncio.sleep(0.01)
        assert not removing.done()
        calls.gate.set()
        await removing
        assert calls.updates == [UNSENT, ""]


async def test_nothing_is_sent_if_the_mark_can_not_be_removed(calls: Calls) -> None:
    calls.gate.set()
    async with mark_of(calls) as mark:
        await calls.until_marked()
        calls.is_away = True
        with pytest.raises(NotSent, match="nothing was sent, try again") as caught:
            await mark.remove()
        assert caught.value.retryable
        calls.is_away = False
        await mark.remove()
    assert calls.jobs == ""


async def test_a_mark_that_may_have_been_written_is_removed(calls: Calls) -> None:
    calls.is_away = True
    calls.gate.set()
    async with mark_of(calls) as mark:
        await calls.is_called.wait()
        calls.is_away = False
        await mark.remove()
    assert calls.updates == [""]


async def test_the_end_of_a_call_waits_for_its_mark(calls: Calls) -> None:
    async with mark_of(calls):
        await calls.is_called.wait()
        asyncio.get_running_loop().call_later(0.01, calls.gate.set)
    assert calls.updates == [UNSENT], "what is written after it comes later"


async def test_a_call_without_a_row_has_no_mark(calls: Calls) -> None:
    async with mark_of(calls, None) as mark:
        await asyncio.sleep(0.01)
        await mark.remove()
    assert not calls.is_called.is_set()
