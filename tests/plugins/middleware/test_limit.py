"""The window and the gate by themselves, with times of their own. Over sockets: tests/reliability/test_rates.py."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from impasto import Account, Call, RateLimit, RateLimited, Request, Retry, WireRequest
from impasto.policy import RetryBudget
from impasto_plugins.middleware import limit as module
from impasto_plugins.middleware.limit import Gate, Send, Window, gate_of, slack
from impasto_plugins.stability.provider import stability

LIMIT = RateLimit(3, 10.0)


def account(key: str = "sk-window", rate_limit: RateLimit | None = LIMIT) -> Account:
    made = stability.account({"api_key": key, "api_base": "http://127.0.0.1:9"})
    return attrs.evolve(made, rate_limit=rate_limit)


@given(steps=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1), st.booleans()), min_size=8, max_size=40))
@settings(max_examples=200)
def test_no_window_of_the_providers_is_overfull(steps: list[tuple[float, float, bool]]) -> None:
    """Sends go as early as they may. Each takes its time to connect and to upload, then travels for up to its slack,
    and is answered on arrival or never."""
    window, now = Window(), 0.0
    arrivals: list[float] = []
    to_come: list[tuple[float, Callable[[Send, float], None], Send]] = []

    def until(moment: float) -> None:
        for due, happens, send in sorted((each for each in to_come if each[0] <= moment), key=lambda each: each[0]):
            happens(send, due)
        to_come[:] = [each for each in to_come if each[0] > moment]

    for upload, share, is_answered in steps:
        while not isinstance(taken := window.try_acquire(LIMIT, now), Send):
            assert taken > 0
            now += taken + 1e-9
            until(now)
        written = now + upload
        arrivals.append(written + share * slack(LIMIT))
        to_come.append((written, window.written, taken))
        if is_answered:
            to_come.append((arrivals[-1], window.count, taken))
    for start in arrivals:
        assert sum(1 for each in arrivals if start <= each < start + LIMIT.seconds) <= LIMIT.requests


def written_at_once(window: Window, now: float) -> Send | float:
    taken = window.try_acquire(LIMIT, now)
    if isinstance(taken, Send):
        window.written(taken, now)
    return taken


def test_waiting_for_as_long_as_it_says_is_enough_in_the_end() -> None:
    window, now, granted = Window(), 0.0, 0
    for _ in range(100):
        taken = written_at_once(window, now)
        if isinstance(taken, Send):
            granted += 1
        else:
            now += taken
    assert granted > 40
    assert now < granted / LIMIT.requests * (LIMIT.seconds + slack(LIMIT)) + 1


def test_answers_free_their_place_a_window_later() -> None:
    window = Window()
    sends = [written_at_once(window, 0.0) for _ in range(3)]
    assert window.try_acquire(LIMIT, 0.1) == pytest.approx(slack(LIMIT) - 0.1)
    for send in sends:
        assert isinstance(send, Send)
        window.count(send, 0.2)
        window.count(send, 9.0)  # again: nothing
    assert window.try_acquire(LIMIT, 0.3) == pytest.approx(9.9)
    assert isinstance(window.try_acquire(LIMIT, 10.3), Send)


def test_a_send_that_nobody_asked_about_for_long_is_counted_at_its_time() -> None:
    window = Window()
    for _ in range(3):
        written_at_once(window, 0.0)
    assert window.try_acquire(LIMIT, 9.0) == pytest.approx(1.0 + slack(LIMIT))


def test_a_place_is_held_until_the_request_is_written_and_given_back_where_nothing_left() -> None:
    window = Window()
    stuck = [window.try_acquire(LIMIT, 0.0) for _ in range(3)]
    assert window.try_acquire(LIMIT, 60.0) == slack(LIMIT)
    assert isinstance(stuck[0], Send)
    window.give_back(stuck[0])
    window.give_back(stuck[0])
    assert isinstance(window.try_acquire(LIMIT, 60.0), Send)
    assert not isinstance(window.try_acquire(LIMIT, 60.0), Send)


def test_a_pause_is_never_made_shorter() -> None:
    gate = Gate()
    gate.pause(5)
    gate.pause(1)
    assert 4.9 < gate.paused_for() <= 5


def test_keys_and_bases_have_gates_of_their_own() -> None:
    one = account("sk-one")
    assert gate_of(one) is gate_of(account("sk-one"))
    assert gate_of(one) is not gate_of(account("sk-two"))
    elsewhere = attrs.evolve(one, base_url="http://127.0.0.1:10")
    assert gate_of(elsewhere) is not gate_of(one)


def test_a_gate_that_nobody_uses_is_forgotten_but_never_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_gates", {})
    monkeypatch.setattr(module, "_FORGET_AFTER", 0.0)
    idle, paused = account("sk-idle"), account("sk-paused")
    gate_of(idle)
    gate_of(paused).pause(30)
    time.sleep(0.001)
    gate_of(account("sk-new"))
    assert idle.fingerprint not in module._gates
    assert paused.fingerprint in module._gates


def test_threads_take_no_more_than_there_is() -> None:
    gate = Gate()
    taken: list[object] = []
    one = account("sk-threads", RateLimit(50, 100.0))

    def take() -> None:
        taken.extend(gate._take(one) for _ in range(40))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not isinstance(each, float) for each in taken) == 50


async def test_a_loop_that_ended_with_calls_in_line_holds_nobody_up() -> None:
    """Each loop has its own line: one that was torn down does not block the others."""
    gate = Gate()
    one = account("sk-loops", RateLimit(1, 0.05))

    def call() -> Call:
        request = Request(operation="x/y", params=Retry(), target="/")
        return Call(request, one, timeout=9, retry=Retry(), budget=RetryBudget())

    async def sends() -> None:
        send = await gate.acquire(call())
        assert send is not None
        try:
            await asyncio.sleep(9)
        finally:
            gate.arrived(send)

    def elsewhere() -> None:
        async def waits() -> None:
            for _ in range(3):
                asyncio.get_running_loop().create_task(sends())
            await asyncio.sleep(0.01)

        asyncio.run(waits())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    await asyncio.wait_for(gate.acquire(call()), 1)
    assert gate._waiting == 0


def test_who_is_first_in_an_empty_window_waits_for_nothing() -> None:
    window = Window()
    assert window.wait(LIMIT, 0, 100.0) == 0.0
    for _ in range(LIMIT.requests):
        window.count(window.try_acquire(LIMIT, 100.0), 100.0)  # type: ignore[arg-type]
    assert window.wait(LIMIT, 0, 104.0) == 6.0


def test_who_comes_waits_for_those_ahead_round_by_round() -> None:
    window = Window()
    for moment in (100.0, 101.0, 102.0):
        send = window.try_acquire(LIMIT, moment)
        assert isinstance(send, Send)
        window.count(send, moment)
    waits = [window.wait(LIMIT, ahead, 104.0) for ahead in range(8)]
    assert waits == [6, 7, 8, 16, 17, 18, 26, 27]
    assert window.wait(LIMIT, 0, 110.0) == 0, "the first is a window old now"
    assert window.wait(LIMIT, 1, 110.0) == 1


def test_who_has_a_window_of_waiting_calls_ahead_waits_a_window_though_it_is_empty() -> None:
    """As after a pause of the key: all that wait go at its end, and no more than a window holds."""
    window = Window()
    assert [window.wait(LIMIT, ahead, 100.0) for ahead in range(7)] == [0, 0, 0, 10, 10, 10, 20]


def test_a_send_that_nobody_counted_yet_holds_its_place_for_a_window_from_its_arrival() -> None:
    window = Window()
    for _ in range(2):
        window.try_acquire(LIMIT, 100.0)
    assert window.wait(LIMIT, 0, 104.0) == 0
    assert [window.wait(LIMIT, ahead, 104.0) for ahead in (1, 2, 3)] == [10, 10 + slack(LIMIT), 10 + slack(LIMIT)]


def of_model(target: str) -> WireRequest:
    request = Request(operation="x/y", params=Retry(), target=target)
    call = Call(request, account("sk-models"), timeout=9, retry=Retry(), budget=RetryBudget())
    return WireRequest(target=target).with_call(call)


def test_a_models_pause_is_never_made_shorter_and_forgotten_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(module, "_model_pauses", {})
    monkeypatch.setattr(time, "monotonic", lambda: now)
    module._pause_model(of_model("/a"), 5)
    module._pause_model(of_model("/a"), 1)
    module._pause_model(of_model("/b"), 2)
    assert module.model_paused_for(of_model("/a")) == pytest.approx(5)
    assert module.model_paused_for(of_model("/c")) == 0.0
    now += 3
    assert module.model_paused_for(of_model("/a")) == pytest.approx(2)
    assert module.model_paused_for(of_model("/b")) == 0.0
    assert len(module._model_pauses) == 1, "models whose pause is over cost nothing"
    now += 3
    module._pause_model(of_model("/d"), 1)
    assert [target for _, target in module._model_pauses] == ["/d"]


def test_no_more_sends_are_remembered_than_the_widest_limit_asks_for() -> None:
    window = Window()
    wide = RateLimit(1_500, 10.0)
    for now, kept, limit in ((1e6, module._LEAST_KEPT, LIMIT), (2e6, 1_500, wide), (3e6, 1_500, LIMIT)):
        for moment in (now, now + 100, now + 200):
            send = window.try_acquire(limit, moment)
            assert isinstance(send, Send)
            window.count(send, moment)
        window.recall(float(number) for number in range(2_000))
        send = window.try_acquire(limit, now + 300)
        assert isinstance(send, Send)
        window.count(send, now + 300)
        assert len(window._counted) == kept


def test_sends_of_an_earlier_process_hold_their_places_and_never_later_than_now() -> None:
    window = Window()
    window.recall([90.0, 95.0, 99.0])
    assert window.try_acquire(LIMIT, 99.5) == pytest.approx(0.5)
    assert isinstance(window.try_acquire(LIMIT, 100.0), Send)
    gate = Gate()
    one = account("sk-recalled")
    gate.restore_history([-50.0, 0.0, 0.2, 5.0 + slack(LIMIT)], LIMIT)
    wait = gate._take(one)
    assert isinstance(wait, float)
    assert 9 < wait <= 10, "three of them may have arrived just now"


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


def test_a_call_that_comes_while_the_key_is_paused_waits_for_the_longer_of_pause_and_window() -> None:
    gate, one = Gate(), account("sk-waits")
    assert gate.wait(one) == 0
    gate.pause(30)
    assert gate.wait(one) == pytest.approx(30, abs=1)
    unlimited, free = Gate(), attrs.evolve(one, rate_limit=None)
    assert unlimited.wait(free) == 0
    unlimited._waiting = 10_000
    assert unlimited.wait(free) == 0, "no limit is known of"
    unlimited.pause(0)
    assert unlimited.wait(free) > 600, "and after a 429 the documented one holds"


def begun(one: Account, seconds: float) -> Call:
    """A call whose time runs."""
    call = Call(
        Request(operation="x/y", params=Retry(), target="/"), one, timeout=9, retry=Retry(), budget=RetryBudget()
    )
    call.remaining = lambda: seconds  # type: ignore[method-assign]  # as of one that began
    return call


async def test_a_begun_call_that_the_window_would_hold_longer_than_it_has_is_told_at_once() -> None:
    gate, one = Gate(), account("sk-begun", RateLimit(1, 60.0))
    assert await gate.acquire(begun(one, 5.0)) is not None
    send = gate._window._not_counted
    assert send == 1
    gate._window.recall([time.monotonic()])
    gate._window._not_counted = 0
    with pytest.raises(
        RateLimited, match=r"the key may send again in \d+\.\d s, which is more than the call has"
    ) as caught:
        await gate.acquire(begun(one, 5.0))
    assert caught.value.status == 429
    assert caught.value.retry_after == pytest.approx(60, abs=5)
    assert gate._waiting == 0


def test_a_send_of_an_earlier_process_leaves_the_window_as_if_it_had_been_made_here() -> None:
    gate, one = Gate(), account("sk-recalled-one", RateLimit(1, 10.0))
    gate.restore_history([6.0 + slack(RateLimit(1, 10.0))], RateLimit(1, 10.0))
    wait = gate._take(one)
    assert isinstance(wait, float)
    assert 3 < wait <= 4
