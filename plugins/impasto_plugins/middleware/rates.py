"""Rates as text, such as ``150/10s``: of a configuration and of a command line."""

from __future__ import annotations

import re

from impasto import ConfigError, RateLimit
from impasto.fields import format_value

_RATE = re.compile(r"([0-9]{1,9})/([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_rate(text: str) -> RateLimit:
    """Return the limit that text such as ``150/10s`` names; units are s, m, h and d. Raises ConfigError."""
    found = _RATE.fullmatch(text)
    if found is None or not int(found[1]) or not float(found[2]):
        raise ConfigError(f"must be requests in a time, such as 150/10s, not {format_value(text)}")
    return RateLimit(int(found[1]), float(found[2]) * _UNITS[found[3]])
