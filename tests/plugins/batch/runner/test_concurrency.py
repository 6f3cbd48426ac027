"""How many images are in flight: more while answers stay quick, half after a 429, one at a time in an outage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from impasto_plugins.batch.runner import concurrency
from impasto_plugins.batch.runner.concurrency import FIRST, OUTAGE_SECONDS, AdaptiveConcurrency
from impasto_plugins.batch.runner.limits import StopConditions

Pass = Callable[[float], None]


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Let seconds pass on a clock of the test's own."""
    now = [1000.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(concurrency, "time", Clock)
    return wait


def full(pace: AdaptiveConcurrency) -> None:
    pace.in_flight = int(pace.limit)


def test_it_begins_with_a_few_and_never_more_than_it_may() -> None:
    assert AdaptiveConcurrency(64).limit == FIRST == 8
    assert AdaptiveConcurrency(3).limit == 3


def test_quick_answers_add_one_each_up_to_the_most() -> None:
    pace = AdaptiveConcurrency(10)
    for expected in (9, 10, 10):
        full(pace)
        pace.on_success("model", 2.0)
        assert pace.limit == expected


def test_answers_that_are_not_held_back_by_the_limit_say_nothing() -> None:
    pace = AdaptiveConcurrency(64)
    pace.in_flight = 7
    pace.on_success("model", 2.0)
    assert pace.limit == 8


def test_after_a_slow_answer_it_climbs_slowly() -> None:
    pace = AdaptiveConcurrency(64)
    for seconds in (2.0, 3.0):  # half as much again is quick
        full(pace)
        pace.on_success("model", seconds)
    assert pace.limit == 10
    full(pace)
    pace.on_success("model", 3.2)
    assert pace.limit == 10, "slow: not one more"
    pace.on_success("model", 2.0)
    assert pace.limit == 10.1


def test_each_model_has_its_own_quickest_answer() -> None:
    pace = AdaptiveConcurrency(64)
    for model, seconds in (("quick", 1.0), ("slow", 30.0), ("slow", 31.0), ("quick", 1.0)):
        full(pace)
        before = pace.limit
        pace.on_success(model, seconds)
        assert pace.limit == before + 1


def test_a_quick_answer_of_long_ago_is_forgotten() -> None:
    pace = AdaptiveConcurrency(64)
    pace.on_success("model", 1.0)
    for _ in range(80):
        pace.on_success("model", 2.0)
    full(pace)
    before = pace.limit
    pace.on_success("model", 2.0)
    assert pace.limit > before


def test_a_429_halves_it_once_for_all_that_was_in_flight(wait: Pass) -> None:
    pace = AdaptiveConcurrency(64)
    pace.on_success("model", 5.0)
    for _ in range(8):
        pace.on_rate_limited()
    assert pace.limit == 4
    wait(4.9)
    pace.on_rate_limited()
    assert pace.limit == 4, "it was sent before the first one was answered"
    for expected in (2, 1, 1):
        wait(5.1)
        pace.on_rate_limited()
        assert pace.limit == expected
    full(pace)
    pace.on_success("model", 5.0)
    assert pace.limit == 2, "one for each round of answers"
    pace.in_flight = 2
    pace.on_success("model", 5.0)
    assert pace.limit == 2.5, "the first climb is over"


def test_429s_before_any_answer_halve_it_as_time_passes(wait: Pass) -> None:
    pace = AdaptiveConcurrency(8)
    pace.on_rate_limited()
    pace.on_rate_limited()
    assert pace.limit == 4
    wait(0.5)
    pace.on_rate_limited()
    assert pace.limit == 2


def test_an_outage_is_tried_at_longer_and_longer_intervals(wait: Pass) -> None:
    pace = AdaptiveConcurrency(8)
    assert not pace.is_outage
    waits = []
    for _ in range(8):
        assert pace.on_unreachable()
        assert pace.on_unreachable(), "those that were in flight together are one try"
        waits.append(pace._wait())
        wait(waits[-1])
        assert pace._wait() == 0
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pace.is_outage
    pace.in_flight = 1
    assert pace._wait() == float("inf"), "one at a time"


def test_an_outage_ends_with_an_answer_or_after_its_time(wait: Pass) -> None:
    pace = AdaptiveConcurrency(8)
    assert pace.on_unreachable()
    wait(OUTAGE_SECONDS - 0.25)
    assert pace.on_unreachable()
    wait(0.25)
    assert not pace.on_unreachable()
    pace.on_success("model", 1.0)
    assert not pace.is_outage
    assert pace._wait() == 0
    assert pace.on_unreachable(), "another one"


async def test_a_place_is_waited_for_and_given_back() -> None:
    pace, stops = AdaptiveConcurrency(2), StopConditions()
    await pace.acquire(stops)
    await pace.acquire(stops)
    third = asyncio.create_task(pace.acquire(stops))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not third.done()
    assert pace.in_flight == 2
    pace.release()
    await asyncio.wait_for(third, 30)
    assert pace.in_flight == 2


@pytest.mark.parametrize("how", ["stopped", "its time is over"])
async def test_a_stop_ends_the_wait_for_a_place(how: str) -> None:
    pace, stops = AdaptiveConcurrency(1), StopConditions()
    await pace.acquire(stops)
    if how == "stopped":
        waiting = asyncio.create_task(pace.acquire(stops))
        await asyncio.sleep(0)
        stops.stop("enough")
        pace.wake()
    else:
        stops.ends_at = time.monotonic() + 0.05
        waiting = asyncio.create_task(pace.acquire(stops))
    await asyncio.wait_for(waiting, 30)
    assert stops.reason is not None
