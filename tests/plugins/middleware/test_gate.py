"""Gates of keys and pauses of models, with their own clocks. Over sockets: tests/reliability/test_rates.py."""

from __future__ import annotations

import asyncio
import threading
import time

import attrs
import pytest

from impasto import Account, Call, RateLimit, RateLimited, Request, Retry, WireRequest
from impasto_plugins.middleware import gate as module
from impasto_plugins.middleware.gate import Gate, ModelPauses, gate_of
from impasto_plugins.middleware.window import Permit, slack
from impasto_plugins.stability.provider import stability

LIMIT = RateLimit(3, 10.0)


def account(key: str = "sk-gate", rate_limit: RateLimit | None = LIMIT) -> Account:
    return attrs.evolve(
        stability.account({"api_key": key, "api_base": "http://127.0.0.1:9"}),
        rate_limit=rate_limit,
    )


def call_of(one: Account, *, remaining: float | None = None, target: str = "/") -> Call:
    """Return a call; one with ``remaining`` seconds has started, so its time runs."""
    request = Request(operation="x/y", params=Retry(), target=target)
    call = Call(request, one, timeout=9, retry=Retry())
    if remaining is not None:
        call.remaining = lambda: remaining  # type: ignore[method-assign]
    return call


def test_a_pause_is_never_made_shorter() -> None:
    gate = Gate()
    gate.pause(5)
    gate.pause(1)
    assert 4.9 < gate.remaining_pause() <= 5


def test_keys_and_bases_have_gates_of_their_own() -> None:
    one = account("sk-one")
    assert gate_of(one) is gate_of(account("sk-one"))
    assert gate_of(one) is not gate_of(account("sk-two"))
    assert gate_of(attrs.evolve(one, base_url="http://127.0.0.1:10")) is not gate_of(one)


def test_an_unused_gate_is_removed_but_never_a_paused_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_gates", {})
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.0)
    idle, paused = account("sk-idle"), account("sk-paused")
    gate_of(idle)
    gate_of(paused).pause(30)
    time.sleep(0.001)
    gate_of(account("sk-new"))
    assert idle.fingerprint not in module._gates
    assert paused.fingerprint in module._gates


def test_a_gate_is_idle_only_if_nobody_waits_at_it_or_used_it_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    gate = Gate()
    assert not gate.is_idle
    now += 599
    assert not gate.is_idle
    now += 2
    assert gate.is_idle
    gate._waiting = 1
    assert not gate.is_idle


def test_threads_get_no_more_permits_than_the_limit() -> None:
    gate = Gate()
    results: list[object] = []
    one = account("sk-threads", RateLimit(50, 100.0))

    def acquire() -> None:
        results.extend(gate._try_acquire(one) for _ in range(40))

    threads = [threading.Thread(target=acquire) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(each, Permit) for each in results) == 50


async def test_a_loop_that_ended_with_calls_in_its_queue_blocks_no_other_loop() -> None:
    gate = Gate()
    one = account("sk-loops", RateLimit(1, 0.05))

    async def send() -> None:
        permit = await gate.acquire(call_of(one))
        assert permit is not None
        try:
            await asyncio.sleep(9)
        finally:
            gate.mark_arrived(permit)

    def run_another_loop() -> None:
        async def wait_shortly() -> None:
            for _ in range(3):
                asyncio.get_running_loop().create_task(send())
            await asyncio.sleep(0.01)

        asyncio.run(wait_shortly())

    thread = threading.Thread(target=run_another_loop)
    thread.start()
    await asyncio.to_thread(thread.join)
    await asyncio.wait_for(gate.acquire(call_of(one)), 1)
    assert gate._waiting == 0


def test_requests_of_an_earlier_process_count_as_late_as_their_slack_allows_and_never_later_than_now() -> None:
    gate, one = Gate(), account("sk-restored")
    gate.restore_history([-50.0, 0.0, 0.2, 5.0 + slack(LIMIT)], LIMIT)
    wait = gate._try_acquire(one)
    assert isinstance(wait, float)
    assert 9 < wait <= 10, "three of them may have arrived just now"


def test_a_request_of_an_earlier_process_leaves_the_window_like_one_of_this_process() -> None:
    limit = RateLimit(1, 10.0)
    gate, one = Gate(), account("sk-restored-one", limit)
    gate.restore_history([6.0 + slack(limit)], limit)
    wait = gate._try_acquire(one)
    assert isinstance(wait, float)
    assert 3 < wait <= 4


def test_a_new_call_waits_for_the_longer_of_pause_and_window() -> None:
    gate, one = Gate(), account("sk-waits")
    assert gate.estimate_wait(one) == 0
    gate.pause(30)
    assert gate.estimate_wait(one) == pytest.approx(30, abs=1)
    unlimited, free = Gate(), attrs.evolve(one, rate_limit=None)
    assert unlimited.estimate_wait(free) == 0
    unlimited._waiting = 10_000
    assert unlimited.estimate_wait(free) == 0, "there is no limit"
    unlimited.pause(0)
    assert unlimited.estimate_wait(free) > 600, "after a 429 the documented limit applies"


async def test_a_started_call_that_would_wait_longer_than_it_has_fails_at_once() -> None:
    gate, one = Gate(), account("sk-started", RateLimit(1, 60.0))
    permit = await gate.acquire(call_of(one, remaining=5.0))
    assert permit is not None
    gate.mark_arrived(permit)
    with pytest.raises(
        RateLimited, match=r"the key may send again in \d+\.\d s, which is more than the call has"
    ) as caught:
        await gate.acquire(call_of(one, remaining=5.0))
    assert caught.value.status == 429
    assert caught.value.retry_after == pytest.approx(60, abs=5)
    assert gate._waiting == 0


async def test_a_started_call_behind_others_fails_at_once_if_the_pause_is_longer_than_it_has() -> None:
    gate, one = Gate(), account("sk-behind", RateLimit(1, 60.0))
    assert await gate.acquire(call_of(one)) is not None
    waiting = asyncio.create_task(gate.acquire(call_of(one, remaining=900.0)))
    await asyncio.sleep(0)
    gate.pause(30)
    with pytest.raises(RateLimited):
        await asyncio.wait_for(gate.acquire(call_of(one, remaining=5.0)), 1)
    waiting.cancel()


def test_a_wait_that_takes_all_the_remaining_time_is_too_long() -> None:
    call = call_of(account(), remaining=5.0)
    module.raise_if_too_long(4.9, call)
    with pytest.raises(RateLimited):
        module.raise_if_too_long(5.0, call)


def request_to(target: str) -> WireRequest:
    return WireRequest(target=target).with_call(call_of(account("sk-models"), target=target))


def test_a_models_pause_is_never_made_shorter_and_is_removed_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pauses = ModelPauses()
    assert pauses.remaining(request_to("/a")) == 0.0
    pauses.pause(request_to("/a"), 5)
    pauses.pause(request_to("/a"), 1)
    pauses.pause(request_to("/b"), 2)
    assert pauses.remaining(request_to("/a")) == pytest.approx(5)
    assert pauses.remaining(request_to("/c")) == 0.0, "another model goes on"
    now += 3
    assert pauses.remaining(request_to("/a")) == pytest.approx(2)
    assert pauses.remaining(request_to("/b")) == 0.0
    assert len(pauses._ends) == 1, "models whose pause is over cost no memory"
    now += 3
    pauses.pause(request_to("/d"), 1)
    assert [target for _, target in pauses._ends] == ["/d"]


async def test_a_newcomer_does_not_pass_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is free and the one who waits for it still sleeps: a new call queues behind it."""
    gate, one = Gate(), account("sk-queue", RateLimit(1, 10.0))
    permit = await gate.acquire(call_of(one))
    assert permit is not None
    gate.mark_arrived(permit)
    first = asyncio.create_task(gate.acquire(call_of(one)))
    await asyncio.sleep(0)
    later = time.monotonic() + 11
    monkeypatch.setattr(time, "monotonic", lambda: later)
    newcomer = asyncio.create_task(gate.acquire(call_of(one)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not newcomer.done()
    for task in (first, newcomer):
        task.cancel()
    await asyncio.gather(first, newcomer, return_exceptions=True)


async def test_a_permit_whose_request_never_left_is_free_for_the_next_call() -> None:
    gate, one = Gate(), account("sk-released", RateLimit(1, 600.0))
    permit = await gate.acquire(call_of(one))
    assert permit is not None
    gate.release(permit)
    assert await asyncio.wait_for(gate.acquire(call_of(one)), 1) is not None


async def test_a_pause_ends_when_it_was_said_to() -> None:
    gate, one = Gate(), account("sk-paused-shortly", None)
    gate.pause(0.02)
    await asyncio.wait_for(gate.acquire(call_of(one)), 5)
    gate.pause(30)
    with pytest.raises(RateLimited) as caught:
        await gate.acquire(call_of(one, remaining=5.0))
    assert caught.value.retry_after == pytest.approx(30, abs=2)
