"""Records with which a caller sets retries and rates."""

from __future__ import annotations

import math

import attrs

from .errors import ConfigError
from .fields import format_value


@attrs.frozen(kw_only=True)
class Retry:
    """Retry policy. By default only exchanges that are proved to have cost nothing are retried.

    ``attempts``: how often a request may be started in all if nothing was sent, or after a 429. ``refused``: extra
    tries after a refused 500 or 503. Waits: full jitter from ``base`` doubling to ``cap`` seconds; a 429 waits as long
    as the provider asks, at most ``max_wait``. Retries are at most ``budget`` of the requests of a minute, and
    ``floor``. ``on_ambiguous`` opts in to sending a request again that may have been charged, up to ``max_charges``
    possible charges an image.
    """

    attempts: int = 4
    refused: int = 2
    base: float = 0.5
    cap: float = 8.0
    budget: float = 0.1
    floor: int = 10
    max_wait: float = 60.0
    on_ambiguous: bool = False
    max_charges: int = 1

    def __attrs_post_init__(self) -> None:
        for name, least in (("attempts", 1), ("refused", 0), ("floor", 0), ("max_charges", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(f"Retry.{name} must be a whole number of at least {least}, not {format_value(value)}")
        for name in ("base", "cap", "budget", "max_wait"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
                raise ConfigError(f"Retry.{name} must be a number of at least 0, not {format_value(value)}")
        if type(self.on_ambiguous) is not bool:
            raise ConfigError(f"Retry.on_ambiguous must be true or false, not {format_value(self.on_ambiguous)}")


@attrs.frozen
class RateLimit:
    """At most ``requests`` sends in any ``seconds``."""

    requests: int
    seconds: float

    def __attrs_post_init__(self) -> None:
        if type(self.requests) is not int or self.requests < 1:
            raise ConfigError(
                f"RateLimit.requests must be a whole number of at least 1, not {format_value(self.requests)}"
            )
        if type(self.seconds) not in (int, float) or not (0 < self.seconds < math.inf):
            raise ConfigError(f"RateLimit.seconds must be a number above 0, not {format_value(self.seconds)}")
