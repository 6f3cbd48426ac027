"""The record of a request: filled in during the request, reported at its end."""

from __future__ import annotations

import time
from contextvars import ContextVar

import attrs
from aiohttp import web

UNKNOWN_ROUTE = "unknown"
"""Route label for unknown paths."""

UNKNOWN_MODEL = "other"
"""Model label for unknown models. Client-supplied text is never used as a label or logged."""

CLIENT_CLOSED_REQUEST = 499
"""Status for requests whose caller left before the response; it is never sent."""


@attrs.define(kw_only=True, eq=False)
class RequestRecord:
    """One request. Times are in seconds of the monotonic clock.

    ``route`` is the documented path, never the one that was sent: names in it may be secrets. ``upstream`` is the time
    from the first request to a provider until the last answer.
    """

    id: str
    method: str
    started_at: float = attrs.field(factory=time.monotonic)
    route: str = UNKNOWN_ROUTE
    key: str | None = None
    model: str | None = None
    deployment: str | None = None
    prompt: str | None = None
    status: int = 0
    code: str | None = None
    images: int = 0
    cost_usd: float | None = None
    attempts: int = 0
    upstream_started_at: float | None = None
    upstream_ended_at: float | None = None
    provider_ids: list[str] = attrs.field(factory=list[str])
    charge_unknown: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    trace_id: str | None = None

    @property
    def upstream(self) -> float | None:
        """Seconds that providers took; None without a provider request."""
        if self.upstream_started_at is None or self.upstream_ended_at is None:
            return None
        return self.upstream_ended_at - self.upstream_started_at


RECORD_KEY = web.RequestKey("seen", RequestRecord)
current_record: ContextVar[RequestRecord | None] = ContextVar("current", default=None)
"""The record of the request that the running task belongs to."""
