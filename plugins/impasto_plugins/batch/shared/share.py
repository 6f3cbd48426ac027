"""A host's share of a batch, such as ``1/3``: of its rows, its rate limit and its budget."""

from __future__ import annotations

import re

import attrs

from impasto import ConfigError, RateLimit
from impasto.fields import format_value
from impasto_plugins.batch.output.s3 import BucketTarget

MOST_SHARES = 1_000
_SHARE = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")
_PER_USD = 1_000_000


STATE = "state"
"""The name of the share of hosts whose limits are in a store of state."""


def kind_of(share: str | None) -> str | None:
    """Return a word that is the same for hosts that may run together: they divide the limits in one way."""
    return share.rpartition("/")[2] if share is not None else None


@attrs.frozen
class Share:
    """Part ``number`` of ``count``. The parts of a whole add up to the whole.

    ``number`` 0: any part that no running host has, which the host finds when it joins.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: object) -> Share:
        """Parse ``1/3``. Raises ConfigError."""
        found = _SHARE.fullmatch(text) if isinstance(text, str) else None
        share = cls(int(found[1]), int(found[2])) if found is not None else None
        if share is None or not 1 <= share.number <= share.count <= MOST_SHARES:
            raise ConfigError(
                f"share must be K/N, such as 1/3 for the first of three hosts, with K from 1 to N and N at most"
                f" {MOST_SHARES:,}, not {format_value(text)}"
            )
        return share

    def part_of(self, units: int) -> int:
        """Return this share's part of so many units."""
        return units * self.number // self.count - units * (self.number - 1) // self.count

    def of_rate(self, limit: RateLimit) -> RateLimit:
        """Return this share's part of a rate limit. Raises ConfigError if it has none."""
        part = self if self.number else Share(1, self.count)  # the smallest
        if not (requests := part.part_of(limit.requests)):
            raise ConfigError(
                f"share {part} of {limit.requests:,} requests in {limit.seconds:g} s is less than one request; use at"
                f" most {limit.requests:,} hosts"
            )
        return RateLimit(requests, limit.seconds)

    def of_usd(self, usd: float) -> float:
        """Return this share's part of a sum of money, in millionths of a dollar."""
        return self.part_of(round(usd * _PER_USD)) / _PER_USD

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@attrs.frozen(kw_only=True)
class JoinOptions:
    """The options of a batch on several hosts."""

    target: BucketTarget
    share: Share | None = None
    has_state: bool = False
    """True if the limits of all hosts are in a store of state."""

    @classmethod
    def of(
        cls, target: BucketTarget | None, *, join: bool, share: str | None, start_over: bool, has_state: bool
    ) -> JoinOptions | None:
        """Return the options, or None without ``join``. Raises ConfigError."""
        if not join:
            if share is not None:
                raise ConfigError("--share needs --join")
            return None
        if target is None:
            raise ConfigError("--join needs --out s3://bucket/prefix: the hosts share the batch there")
        if start_over:
            raise ConfigError("--start-over can't be used with --join; give another prefix with --out")
        if has_state and share is not None:
            raise ConfigError("--share can't be used with --state, which holds the limits of all hosts; leave it out")
        return cls(target=target, share=Share.parse(share) if share is not None else None, has_state=has_state)

    @property
    def share_name(self) -> str | None:
        """Return the share's name in the bucket."""
        return STATE if self.has_state else str(self.share) if self.share is not None else None
