"""Rates as text."""

from __future__ import annotations

import pytest

from impasto import ConfigError, RateLimit
from impasto_plugins.middleware.rates import parse_rate


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("150/10s", RateLimit(150, 10)),
        ("150/10", RateLimit(150, 10)),
        ("1/0.5s", RateLimit(1, 0.5)),
        ("600/1m", RateLimit(600, 60)),
        ("7/2h", RateLimit(7, 7200)),
        ("999999999/1d", RateLimit(999_999_999, 86_400)),
    ],
)
def test_a_rate_in_words(text: str, limit: RateLimit) -> None:
    assert parse_rate(text) == limit


@pytest.mark.parametrize(
    "text", ["0/10s", "1/0s", "1/0.0", "1", "1/s", "-1/10s", "1/10w", " 1/10s", "1000000000/1s", "1/1.0001s"]
)
def test_text_that_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigError, match="must be requests in a time, such as 150/10s"):
        parse_rate(text)
