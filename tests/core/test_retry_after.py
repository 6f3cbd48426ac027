"""Retry-After as providers and proxies send it: what comes of it is a sane number of seconds, or nothing."""

from __future__ import annotations

import email.utils
import math

import pytest

import impasto
from impasto.ext import retry_after
from impasto.retry_after import LONGEST_WAIT

NOW = "Sat, 28 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("3600", 3600.0),
        ("1000000000", LONGEST_WAIT),
        ("9" * 300, LONGEST_WAIT),
        ("9" * 400, LONGEST_WAIT),
        ("-1", None),
        ("+1", None),
        ("1e9", None),
        ("inf", None),
        ("nan", None),
        ("٣", None),
        ("1,5", None),
        ("", None),
        ("soon", None),
        ("9" * 5_000, None),
        ("Sat, 28 Nov 2026 12:00:05 GMT", 5.0),
        ("Saturday, 28-Nov-26 12:00:05 GMT", 5.0),
        ("Sat Nov 28 12:00:05 2026", 5.0),
        ("Sat, 28 Nov 2026 11:59:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", LONGEST_WAIT),
        ("Wed, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_the_seconds_of_a_retry_after_header(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text, "date": NOW}) == seconds


def test_without_a_header_there_is_nothing() -> None:
    assert retry_after({"date": NOW}) is None


def test_a_date_of_a_server_whose_own_date_is_damaged_is_compared_with_this_clock() -> None:
    soon = email.utils.formatdate(email.utils.mktime_tz((2026, 11, 28, 12, 0, 0, 0, 0, 0, 0)), usegmt=True)
    for date in ("", "yesterday", "Fri, 31 Dec 99999 23:59:59 GMT"):
        seconds = retry_after({"retry-after": soon, "date": date})
        assert seconds is not None
        assert 0 <= seconds <= LONGEST_WAIT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (7, 7.0),
        (math.inf, LONGEST_WAIT),
        (-math.inf, 0.0),
        (math.nan, None),
        (-3, 0.0),
        ("7", None),
        (None, None),
        (10**400, LONGEST_WAIT),
    ],
)
def test_a_wait_that_a_plugin_sets_is_bounded_too(value: float | None, seconds: float | None) -> None:
    error = impasto.RateLimited("slow down", status=429)
    error.retry_after = value
    assert error.retry_after == seconds
