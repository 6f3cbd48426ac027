"""The defaults that are documented, the least values that are taken, and the budget of retries."""

from __future__ import annotations

import math

import attrs
import pytest

from impasto import ConfigError, RateLimit, Retry


def test_retries_by_default_are_the_documented_ones() -> None:
    assert attrs.asdict(Retry()) == {
        "attempts": 4,
        "refused": 2,
        "base": 0.5,
        "cap": 8.0,
        "budget": 0.1,
        "floor": 10,
        "max_wait": 60.0,
        "on_ambiguous": False,
        "max_charges": 1,
    }


def test_the_least_values_are_taken() -> None:
    Retry(attempts=1, refused=0, floor=0, max_charges=1, base=0, cap=0, budget=0, max_wait=0)
    RateLimit(1, 1e-9)


@pytest.mark.parametrize("name", ["base", "cap", "budget", "max_wait"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, True, "1", None])
def test_a_wait_is_a_finite_number(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"Retry.{name} must be a number of at least 0"):
        Retry(**{name: value})  # type: ignore[arg-type]  # what the test is about


@pytest.mark.parametrize(("requests", "seconds"), [(True, 10), (1.0, 10), (1, True), (1, "10"), (1, math.inf), (1, -1)])
def test_a_rate_of_another_type_or_without_end_is_refused(requests: object, seconds: object) -> None:
    with pytest.raises(ConfigError, match="RateLimit"):
        RateLimit(requests, seconds)  # type: ignore[arg-type]  # what the test is about
