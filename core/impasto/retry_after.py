"""The Retry-After header of an answer. One parser for every provider: what it says is bounded, whatever was sent."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC

LONGEST_WAIT = 3600.0
"""Seconds: a provider that asks for more is taken to ask for this, so that no clock and no client overflows."""


def bounded_wait(seconds: object) -> float | None:
    """Return a wait between 0 and ``LONGEST_WAIT`` seconds, or None for what is no number."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    bounded = float(min(max(seconds, 0.0), LONGEST_WAIT))
    return None if math.isnan(bounded) else bounded


class BoundedWait:
    """An attribute that takes seconds from anybody, and holds what ``bounded_wait`` makes of them; None at first."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object, owner: type | None = None) -> float | None:
        seconds: float | None = instance.__dict__.get(self._name) if instance is not None else None
        return seconds

    def __set__(self, instance: object, seconds: float | None) -> None:
        instance.__dict__[self._name] = bounded_wait(seconds)


_NUMBER = re.compile(r"[0-9]{1,400}(\.[0-9]{1,20})?", re.ASCII)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header asks for, a number or a date; None if there is none, or garbage.

    ``headers``: their names in lower case. At most ``LONGEST_WAIT``. A date is compared with the server's own
    Date, if that came: its clock may differ from this machine's.
    """
    text = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(text):
        return bounded_wait(float(text))
    until, now = _timestamp(text), _timestamp(headers.get("date", ""))
    if until is None:
        return None
    return bounded_wait(until - (time.time() if now is None else now))


def _timestamp(date: str) -> float | None:
    """Return the seconds since 1970 of an HTTP date."""
    from email.utils import parsedate_to_datetime  # it takes long to import, and dates are rare

    try:
        moment = parsedate_to_datetime(date)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
