"""The window by itself, with times of its own. Over sockets: tests/reliability/test_rates.py."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from impasto import RateLimit
from impasto_plugins.concurrency.seats import SEATS, Seat
from impasto_plugins.middleware.shared_window import RATES, SharedWindow
from impasto_plugins.middleware.window import MIN_HISTORY, Permit, Window, slack

LIMIT = RateLimit(3, 10.0)


def shared(folder: Path) -> SharedWindow:
    return SharedWindow.open(folder / RATES, "a-key", Seat.take(folder / SEATS), 0.0)


def acquire(window: Window | SharedWindow, now: float, limit: RateLimit = LIMIT) -> Permit:
    permit = window.try_acquire(limit, now)
    assert isinstance(permit, Permit)
    return permit


@pytest.mark.parametrize("kind", ["process", "machine"])
@given(steps=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1), st.booleans()), min_size=8, max_size=40))
@settings(max_examples=200)
def test_no_window_of_the_provider_is_overfull(kind: str, steps: list[tuple[float, float, bool]]) -> None:
    """Requests go as early as they may. Each takes its time to connect and to upload, then travels for up to its
    slack, and is answered on arrival or never."""
    with tempfile.TemporaryDirectory() as folder:
        window = Window() if kind == "process" else shared(Path(folder))
        _fill(window, steps)


def _fill(window: Window | SharedWindow, steps: list[tuple[float, float, bool]]) -> None:
    now = 0.0
    arrivals: list[float] = []
    events: list[tuple[float, Callable[[Permit, float], None], Permit]] = []

    def run_until(moment: float) -> None:
        for due, event, permit in sorted((each for each in events if each[0] <= moment), key=lambda each: each[0]):
            event(permit, due)
        events[:] = [each for each in events if each[0] > moment]

    for upload, share, is_answered in steps:
        while not isinstance(permit := window.try_acquire(LIMIT, now), Permit):
            assert permit > 0
            now += permit + 1e-9
            run_until(now)
        written = now + upload
        arrivals.append(written + share * slack(LIMIT))
        events.append((written, window.mark_written, permit))
        if is_answered:
            events.append((arrivals[-1], window.mark_arrived, permit))
    for start in arrivals:
        assert sum(1 for each in arrivals if start <= each < start + LIMIT.seconds) <= LIMIT.requests


def acquire_and_write(window: Window, now: float) -> Permit | float:
    permit = window.try_acquire(LIMIT, now)
    if isinstance(permit, Permit):
        window.mark_written(permit, now)
    return permit


def test_waiting_for_the_stated_time_is_enough_in_the_end() -> None:
    window, now, permits = Window(), 0.0, 0
    for _ in range(100):
        permit = acquire_and_write(window, now)
        if isinstance(permit, Permit):
            permits += 1
        else:
            now += permit
    assert permits > 40
    assert now < permits / LIMIT.requests * (LIMIT.seconds + slack(LIMIT)) + 1


def test_an_answer_frees_its_place_a_window_later() -> None:
    window = Window()
    permits = [acquire_and_write(window, 0.0) for _ in range(3)]
    assert window.try_acquire(LIMIT, 0.1) == pytest.approx(slack(LIMIT) - 0.1)
    for permit in permits:
        assert isinstance(permit, Permit)
        window.mark_arrived(permit, 0.2)
        window.mark_arrived(permit, 9.0)  # counting again changes nothing
    assert window.try_acquire(LIMIT, 0.3) == pytest.approx(9.9)
    acquire(window, 10.3)


def test_a_request_without_an_answer_is_counted_at_the_time_by_which_it_arrived() -> None:
    window = Window()
    for _ in range(3):
        acquire_and_write(window, 0.0)
    assert window.try_acquire(LIMIT, 9.0) == pytest.approx(1.5), "half a second after it was written"


@pytest.mark.parametrize("kind", ["process", "machine"])
def test_a_request_without_an_answer_frees_no_place_at_the_moment_when_it_must_have_arrived(
    kind: str, tmp_path: Path
) -> None:
    window, one = Window() if kind == "process" else shared(tmp_path), RateLimit(1, 10.0)
    window.mark_written(acquire(window, 0.0, one), 0.0)
    assert window.try_acquire(one, slack(one)) == one.seconds


@pytest.mark.parametrize("kind", ["process", "machine"])
def test_a_narrow_limit_counts_the_request_that_arrived_last(kind: str, tmp_path: Path) -> None:
    """It may be counted before one that arrived earlier and was not answered."""
    window = Window() if kind == "process" else shared(tmp_path)
    silent, answered = acquire(window, 0.0), acquire(window, 0.0)
    window.mark_written(silent, 0.0)
    window.mark_arrived(answered, 9.0)
    assert window.try_acquire(RateLimit(1, 10.0), 11.0) == 8.0


def test_a_late_answer_does_not_delay_the_count_of_an_earlier_request() -> None:
    window = Window()
    first, second = acquire_and_write(window, 0.0), acquire_and_write(window, 0.0)
    assert isinstance(first, Permit)
    assert isinstance(second, Permit)
    window.mark_arrived(second, 9.0)
    assert window._arrivals[0] == 0.5, "the first must have arrived by then"


def test_a_request_that_is_still_uploaded_has_its_place_and_one_that_never_left_has_none() -> None:
    window = Window()
    uploads = [acquire(window, 0.0) for _ in range(3)]
    assert window.try_acquire(LIMIT, 60.0) == slack(LIMIT)
    window.release(uploads[0], 1.0)
    window.release(uploads[0], 1.0)  # once more: no second place is free
    acquire(window, 60.0)
    assert not isinstance(window.try_acquire(LIMIT, 60.0), Permit)


def test_the_first_call_at_an_empty_window_does_not_wait() -> None:
    window = Window()
    assert window.estimate_wait(LIMIT, 0, 100.0) == 0.0
    for _ in range(LIMIT.requests):
        window.mark_arrived(acquire(window, 100.0), 100.0)
    assert window.estimate_wait(LIMIT, 0, 104.0) == 6.0


def test_a_call_waits_for_those_ahead_round_by_round() -> None:
    window = Window()
    for moment in (100.0, 101.0, 102.0):
        window.mark_arrived(acquire(window, moment), moment)
    waits = [window.estimate_wait(LIMIT, ahead, 104.0) for ahead in range(8)]
    assert waits == [6, 7, 8, 16, 17, 18, 26, 27]
    assert window.estimate_wait(LIMIT, 0, 110.0) == 0, "the first is a window old now"
    assert window.estimate_wait(LIMIT, 1, 110.0) == 1


def test_a_call_behind_a_window_of_others_waits_for_a_window_though_it_is_empty() -> None:
    """As after a pause of the key: all that wait go at its end, and no more than a window holds."""
    window = Window()
    assert [window.estimate_wait(LIMIT, ahead, 100.0) for ahead in range(7)] == [0, 0, 0, 10, 10, 10, 20]


def test_a_request_that_has_not_arrived_has_its_place_for_a_window_from_its_arrival() -> None:
    window = Window()
    for _ in range(2):
        acquire(window, 100.0)
    assert window.estimate_wait(LIMIT, 0, 104.0) == 0
    waits = [window.estimate_wait(LIMIT, ahead, 104.0) for ahead in (1, 2, 3)]
    assert waits == [10, 10 + slack(LIMIT), 10 + slack(LIMIT)]


def test_the_window_remembers_no_more_requests_than_the_widest_limit_needs() -> None:
    window = Window()
    wide = RateLimit(1_500, 10.0)
    for now, history, limit in ((1e6, MIN_HISTORY, LIMIT), (2e6, 1_500, wide), (3e6, 1_500, LIMIT)):
        for moment in (now, now + 100, now + 200):
            window.mark_arrived(acquire(window, moment, limit), moment)
        window.restore_history((float(number) for number in range(2_000)), 2_000.0)
        window.mark_arrived(acquire(window, now + 300, limit), now + 300)
        assert len(window._arrivals) == history


def test_requests_of_an_earlier_process_have_their_places() -> None:
    window = Window()
    window.restore_history([90.0, 95.0, 99.0], 100.0)
    assert window.try_acquire(LIMIT, 99.5) == pytest.approx(0.5)
    acquire(window, 100.0)


def test_a_limit_wider_than_the_history_is_kept_exactly() -> None:
    window, wide = Window(), RateLimit(MIN_HISTORY + 1, 10.0)
    for _ in range(wide.requests):
        window.mark_arrived(acquire(window, 0.0, wide), 0.0)
    assert window.try_acquire(wide, 4.0) == 6.0


def test_the_slack_for_a_request_without_an_answer_is_a_twentieth_of_the_usual_window() -> None:
    assert slack(RateLimit(150, 10.0)) == pytest.approx(0.5)
    assert slack(RateLimit(1, 1.0)) == pytest.approx(0.14)
