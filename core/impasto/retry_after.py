"""The Retry-After header of an answer. One parser for every provider: what it says is bounded, whatever was sent."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from .errors import bounded_wait

_NUMBER = re.compile(r"[0-9]{1,400}(\.[0-9]{1,20})?", re.ASCII)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header asks for, a number or a date; None if there is none, or garbage.

    ``headers``: their names in lower case. At most ``errors.LONGEST_WAIT``. A date is compared with the server's own
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
    try:
        moment = parsedate_to_datetime(date)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
