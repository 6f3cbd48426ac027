"""The window and the gate by themselves, with times of their own. Over sockets: tests/reliability/test_rates.py."""

from __future__ import annotations

import asyncio
import threading
import time

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from impasto import Account, RateLimit
from impasto_middleware import limit as module
from impasto_middleware.limit import Gate, Window, gate_of, slack
from impasto_stability.provider import stability

LIMIT = RateLimit(3, 10.0)


def account(key: str = "sk-window", rate_limit: RateLimit | None = LIMIT) -> Account:
    made = stability.account({"api_key": key, "api_base": "http://127.0.0.1:9"})
    return attrs.evolve(made, rate_limit=rate_limit)


@given(steps=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=8, max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_window_of_the_providers_is_overfull(steps: list[tuple[float, bool]]) -> None:
    """Sends go as early as they may; each travels for up to its slack, and is answered on arrival or far later."""
    window, now = Window(), 0.0
    arrivals: list[float] = []
    answers: list[tuple[float, object]] = []
    for share, is_answered in steps:
        while isinstance(taken := window.take(LIMIT, now), float):
            assert taken > 0
            now += taken + 1e-9
            for due, send in [each for each in answers if each[0] <= now]:
                window.count(send, due)  # type: ignore[arg-type]  # a send, whose class is the module's own
                answers.remove((due, send))
        arrivals.append(now + share * slack(LIMIT))
        if is_answered:
            answers.append((arrivals[-1], taken))
    for start in arrivals:
        assert sum(1 for each in arrivals if start <= each < start + LIMIT.seconds) <= LIMIT.requests


def test_waiting_for_as_long_as_it_says_is_enough_in_the_end() -> None:
    window, now, granted = Window(), 0.0, 0
    for _ in range(100):
        taken = window.take(LIMIT, now)
        if isinstance(taken, float):
            now += taken
        else:
            granted += 1
    assert granted > 40
    assert now < granted / LIMIT.requests * (LIMIT.seconds + slack(LIMIT)) + 1


def test_answers_free_their_place_a_window_later() -> None:
    window = Window()
    sends = [window.take(LIMIT, 0.0) for _ in range(3)]
    assert window.take(LIMIT, 0.1) == pytest.approx(slack(LIMIT) - 0.1)
    for send in sends:
        assert isinstance(send, module._Send)
        window.count(send, 0.2)
        window.count(send, 9.0)  # again: nothing
    assert window.take(LIMIT, 0.3) == pytest.approx(9.9)
    assert not isinstance(window.take(LIMIT, 10.3), float)


def test_sends_of_an_earlier_process_count() -> None:
    ages = [30.0, 4.0, -3600.0]  # long past; in the window; the clock was set back meanwhile
    gate = Gate()
    gate.recall(ages, LIMIT)
    holder = account("sk-recall")
    assert not isinstance(gate._take(holder), float), "one of three is free"
    wait = gate._take(holder)
    assert wait == pytest.approx(LIMIT.seconds - (4.0 - slack(LIMIT)), abs=0.1), "the older of the two leaves first"


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
    from impasto import Call, Request, Retry
    from impasto.policy import RetryBudget

    gate = Gate()
    one = account("sk-loops", RateLimit(1, 0.05))

    def call() -> Call:
        request = Request(operation="x/y", params=Retry(), target="/")
        return Call(request, one, timeout=9, retry=Retry(), budget=RetryBudget())

    def elsewhere() -> None:
        async def waits() -> None:
            for _ in range(3):
                asyncio.get_running_loop().create_task(gate.admit(call()))
            await asyncio.sleep(0.01)

        asyncio.run(waits())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    await asyncio.wait_for(gate.admit(call()), 1)
    assert gate._waiting == 0
