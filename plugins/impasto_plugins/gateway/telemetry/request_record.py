"""What is seen of a request on its way: filled in by whoever knows it, told at its end."""

from __future__ import annotations

import time
from contextvars import ContextVar

import attrs
from aiohttp import web

UNKNOWN = "unknown"
"""The route of a path that is none."""

OTHER = "other"
"""The model of a name that is none: what callers write is no label and stands in no log."""

LEFT = 499
"""The status of a request whose caller left before it was answered; none is sent."""


@attrs.define(kw_only=True, eq=False)
class Seen:
    """One request. Times are in seconds of the monotonic clock.

    ``route`` is the path as it is documented, never as it was written: names in it may be secrets. ``upstream`` is
    from the first request to a provider until the last answer.
    """

    id: str
    method: str
    began: float = attrs.field(factory=time.monotonic)
    route: str = UNKNOWN
    key: str | None = None
    model: str | None = None
    deployment: str | None = None
    prompt: str | None = None
    status: int = 0
    code: str | None = None
    pictures: int = 0
    usd: float | None = None
    attempts: int = 0
    upstream_began: float | None = None
    upstream_ended: float | None = None
    provider_ids: list[str] = attrs.field(factory=list[str])
    charge_unknown: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    trace_id: str | None = None

    @property
    def upstream(self) -> float | None:
        """How long providers took, in seconds; None where none was asked."""
        if self.upstream_began is None or self.upstream_ended is None:
            return None
        return self.upstream_ended - self.upstream_began


SEEN = web.RequestKey("seen", Seen)
current: ContextVar[Seen | None] = ContextVar("current", default=None)
"""The request that the running task is a part of."""
