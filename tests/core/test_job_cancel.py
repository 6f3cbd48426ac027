"""The request that cancels a job: sent once, by one owner, whoever gives up and however often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

import impasto
from impasto import ChargeUnknown, RateLimited, jobs
from tests.reliability.hostile import MODEL, attacked, by_path, job
from tests.reliability.servers import Answer, ServedRequest, Server, Wire, in_json


def busy(seconds: int) -> Answer:
    return in_json({"error": {"message": "slow down"}}, 429, retry_after=str(seconds))


@attrs.define
class Provider:
    """A provider whose job never ends. Its answer to the cancel waits for ``may_answer``."""

    client: impasto.Client
    server: Server
    arrival: asyncio.Event
    may_answer: asyncio.Event
    ends: list[str]
    """How each request to cancel ended: ``answered``, or ``broke off`` if the other side left first."""

    @property
    def cancels(self) -> int:
        return sum(each.path == "/cancel" for each in self.server.requests)

    def run(self) -> asyncio.Task[impasto.Result]:
        return asyncio.create_task(self.client.run(MODEL, prompt="a kite"))

    async def polled(self) -> None:
        while not self.server.polled:
            await asyncio.sleep(0.001)


@asynccontextmanager
async def provider(status: Answer | None = None, **settings: Any) -> AsyncIterator[Provider]:
    arrival, may_answer, ends = asyncio.Event(), asyncio.Event(), list[str]()

    async def cancel(request: ServedRequest, wire: Wire) -> None:
        arrival.set()
        left = asyncio.create_task(wire.reader.read(1))
        answers = asyncio.create_task(may_answer.wait())
        await asyncio.wait((left, answers), return_when=asyncio.FIRST_COMPLETED)
        ends.append("answered" if answers.done() else "broke off")
        for each in (left, answers):
            each.cancel()
        await asyncio.wait((left, answers))
        await in_json({})(request, wire)

    job_answer = job(cancel="/cancel")
    async with attacked(job_answer, by_path(status=status or job_answer, cancel=cancel), **settings) as (
        client,
        server,
    ):
        tasks = asyncio.all_tasks()
        yield Provider(client, server, arrival, may_answer, ends)
        may_answer.set()
        await asyncio.sleep(0)
        left = [each for each in asyncio.all_tasks() - tasks if "impasto" in repr(each.get_coro())]
        assert left == [], "no task of the client is left"


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_further_cancellations_leave_the_cancel_to_its_owner(times: int) -> None:
    async with provider() as it:
        task = it.run()
        await it.polled()
        task.cancel()
        await it.arrival.wait()
        for _ in range(times - 1):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        it.may_answer.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert (it.cancels, it.ends) == (1, ["answered"])
    assert caught.value.__notes__ == [f"{MODEL}: job j1 was cancelled; it may have been charged"]


async def test_a_caller_who_leaves_while_a_job_that_timed_out_is_cancelled_gets_his_cancellation() -> None:
    async with provider(timeout=0.2) as it:
        task = it.run()
        await it.arrival.wait()
        task.cancel()
        await asyncio.sleep(0.01)
        it.may_answer.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert (it.cancels, it.ends, task.cancelled()) == (1, ["answered"], True)
    assert "job j1 was cancelled" in caught.value.__notes__[0]


async def test_a_cancel_that_is_never_answered_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_CANCEL_SECONDS", 0.3)
    async with provider() as it:
        task = it.run()
        await it.polled()
        task.cancel()
        await it.arrival.wait()
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        assert task.done()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert it.cancels == 1
    assert "job j1 could not be cancelled (TimeoutError)" in caught.value.__notes__[0]


async def test_closing_the_client_ends_a_cancel_at_once() -> None:
    async with provider() as it:
        task = it.run()
        await it.polled()
        task.cancel()
        await it.arrival.wait()
        await asyncio.wait_for(it.client.aclose(), 3)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert it.cancels == 1
    assert "could not be cancelled" in caught.value.__notes__[0]


async def test_a_stream_that_is_left_twice_ends_with_its_cancel() -> None:
    async with provider() as it:

        async def read() -> None:
            async for _ in it.client.stream(MODEL, prompt="a kite"):
                pass

        task = asyncio.create_task(read())
        await it.polled()
        task.cancel()
        await it.arrival.wait()
        task.cancel()
        await asyncio.sleep(0.01)
        it.may_answer.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert (it.cancels, it.ends) == (1, ["answered"])
    assert "job j1 was cancelled" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("seconds", "cancels", "end"),
    [(1, 1, "was cancelled; it may"), (60, 0, r"could not be cancelled \(RateLimited\) and continues at the provider")],
)
async def test_a_job_that_the_rate_limit_leaves_no_time_for_is_cancelled(seconds: int, cancels: int, end: str) -> None:
    """If the provider wants the key to rest for longer than a cancel may take, it is not sent either."""
    async with provider(busy(seconds), timeout=0.6) as it:
        it.may_answer.set()
        with pytest.raises(RateLimited, match=f"slow down; job j1 {end}") as caught:
            await it.client.run(MODEL, prompt="a kite")
        assert (it.cancels, len(it.server.paid)) == (cancels, 1)
    assert (caught.value.billed, caught.value.retryable, caught.value.id) == ("unknown", False, "j1")


@pytest.mark.parametrize("status", [401, 403, 400])
async def test_a_job_whose_poll_is_refused_runs_on_and_can_be_resumed(status: int) -> None:
    """The refusal is about the poll. With another key, or a mended plugin, the paid result can be fetched."""
    async with provider(in_json({"error": {"message": "no"}}, status)) as it:
        with pytest.raises(impasto.ResponseError) as caught:
            await it.client.run(MODEL, prompt="a kite")
        assert it.cancels == 0
    assert (caught.value.billed, caught.value.id) == ("unknown", "j1")


async def test_a_job_that_is_resumed_is_not_cancelled_by_who_stops_waiting_for_it() -> None:
    async with provider(job(cancel="/cancel", poll="/status")) as it:
        impatient = it.client.with_options(timeout=0.2)
        with pytest.raises(ChargeUnknown, match="job j1 continues at the provider"):
            await impatient.resume(MODEL, "j1")
        assert (it.cancels, it.server.paid) == (0, [])
        assert it.server.polled
