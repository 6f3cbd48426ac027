"""The arithmetic of budgets on the rows of one key and name: each is the number of a period's part and its amount.

A minute consists of seconds, and slides. A day, a month and ``ever`` have one part. Days and months are those of UTC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from impasto.ext import LimitReached, Period, Use

_MINUTE = 61
"""Seconds: with one more than 60, a window of whole seconds is never shorter than a minute."""

_DAY = 86_400

PERIODS: tuple[Period, ...] = ("minute", "day", "month", "ever")


def current_part(period: Period, now: float) -> int:
    """Return the number of the part in which an amount counts from now on."""
    match period:
        case "minute":
            return int(now)
        case "day":
            return int(now // _DAY)
        case "month":
            today = datetime.fromtimestamp(now, UTC)
            return today.year * 12 + today.month - 1
        case "ever":
            return 0


def first_part(period: Period, now: float) -> int:
    """Return the number of the oldest part that counts in the current period."""
    part = current_part(period, now)
    return part - _MINUTE + 1 if period == "minute" else part


def check_use(use: Use, rows: Sequence[tuple[int, int]], now: float) -> LimitReached | None:
    """Return the refusal of a use that would pass its limit. ``rows``: the parts that count, in order."""
    if use.limit is None:
        return None
    left = use.limit - sum(amount for _, amount in rows)
    if use.amount <= left:
        return None
    ends = _end(use, rows, use.amount - left, now)
    return LimitReached(use=use, left=max(left, 0), ends=ends, seconds=ends - now)


def _end(use: Use, rows: Sequence[tuple[int, int]], excess: int, now: float) -> float:
    part = current_part(use.period, now)
    match use.period:
        case "minute":
            for second, amount in rows:
                excess -= amount
                if excess <= 0:
                    return min(second, part) + _MINUTE  # a second of the future counts as this one
            return math.inf
        case "day":
            return (part + 1) * _DAY
        case "month":
            return datetime((part + 1) // 12, (part + 1) % 12 + 1, 1, tzinfo=UTC).timestamp()
        case "ever":
            return math.inf
