"""How long a retry waits. What is retried at all: tests/reliability/test_retries.py."""

from __future__ import annotations

import random

import pytest

import impasto


def test_jitter_is_full_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from impasto_plugins.middleware import retry

    least: list[float] = []

    def most(low: float, high: float) -> float:
        least.append(low)
        return high

    monkeypatch.setattr(random, "uniform", most)
    call = impasto.Call.__new__(impasto.Call)
    call._retry = impasto.Retry(base=0.5, cap=8.0)
    waits = [retry._wait(impasto.NotSent("x"), tries, call) for tries in (1, 2, 3, 4, 5, 6, 5000)]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    limited = impasto.RateLimited("x", status=429)
    assert [retry._wait(limited, tries, call) for tries in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 8.0, 8.0], "own back-off"
    limited.retry_after = 60.0
    assert retry._wait(limited, 9, call) == 0.5, "the gate holds the key back"
    assert set(least) == {0}


def test_the_last_try_outlasts_a_second_of_outage_whatever_the_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    from impasto_plugins.middleware import retry

    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    call = impasto.Call.__new__(impasto.Call)
    call._retry = impasto.Retry()
    waits = [retry._wait(impasto.NotSent("x"), tries, call) for tries in range(1, call.retry.attempts)]
    assert waits == [0, 0, 2.0]
