"""Tells what is seen: of requests and of what they ask of providers, to metrics, traces and the access log."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aiohttp import web

from impasto import Handler, ImpastoError, Middleware, Result, WireRequest, WireResponse, hookimpl

from . import metrics as m
from .access_log import to_logger
from .metrics import Metrics
from .request_record import LEFT, SEEN, Seen, current
from .tracing import DeploymentLabel, Traces

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_SPAN: web.RequestKey[Span] = web.RequestKey("span", object)  # type: ignore[arg-type]  # its class is an extra's
_MOST_IDS = 10


class Attempt:
    """A call on its way to one deployment, its retries and all of its pictures: what its block asks belongs to it."""

    def __init__(self, deployment: DeploymentLabel, seen: Seen, metrics: Metrics) -> None:
        self.deployment, self.seen, self.metrics = deployment, seen, metrics
        self.labels = (deployment.model_name, deployment.name)

    def __enter__(self) -> Self:
        self._token = _running.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _running.reset(self._token)
        if isinstance(error, ImpastoError):
            self.failed(error)

    def came(self, result: Result) -> None:
        """It gave pictures."""
        seen, metrics, labels = self.seen, self.metrics, self.labels
        seen.pictures += len(result.artifacts)
        metrics.add(m.PICTURES, *labels, amount=len(result.artifacts))
        if (cost := result.cost) is not None:
            seen.usd = (seen.usd or 0.0) + cost.usd
            metrics.add(m.USD, *labels, amount=cost.usd)
            metrics.add(m.CREDITS, *labels, amount=cost.credits or 0.0)
        for lost in result.errors:
            self.failed(lost.error)

    def failed(self, error: ImpastoError) -> None:
        """It, or a picture of it, failed."""
        unknown = sum(each.billed == "unknown" for each in (error, *error.errors))
        if unknown:
            self.seen.charge_unknown = True
            self.metrics.add(m.CHARGE_UNKNOWN, *self.labels, amount=unknown)


_running: ContextVar[Attempt | None] = ContextVar("_running", default=None)


class Observer:
    """One gateway's eyes. ``log_requests``: whether there is an access log at all."""

    def __init__(self, metrics: Metrics, traces: Traces | None, log: Callable[[Seen], object] = to_logger) -> None:
        self.metrics = metrics
        self.log_requests = True
        self.sample: Callable[[], object] = lambda: None
        """Brings what the metrics say of now up to date."""
        self._traces, self._write = traces, log

    def knows(self, deployment: DeploymentLabel) -> None:
        """Its counters are there from the beginning: a rise is seen only from a number to another."""
        for metric in (m.RETRIES, m.PICTURES, m.USD, m.CREDITS, m.CHARGE_UNKNOWN):
            self.metrics.add(metric, deployment.model_name, deployment.name, amount=0)

    def begin(self, request: web.BaseRequest, id: str) -> Seen:
        """A request came."""
        seen = Seen(id=id, method=request.method)
        request[SEEN] = seen
        current.set(seen)
        if self._traces is not None:
            request[_SPAN] = self._traces.begin(seen, request.headers)
        return seen

    def end(self, request: web.BaseRequest, status: int) -> None:
        """It was answered, or its caller left."""
        if (seen := request.get(SEEN)) is None:  # no HTTP
            return
        seen.status, seen.seconds = status, time.monotonic() - seen.began
        seen.bytes_in, seen.bytes_out = request.content.total_bytes, request.writer.output_size
        model = seen.model or ""
        self.metrics.add(m.REQUESTS, seen.route, model, str(status))
        if status != LEFT:
            self.metrics.observe(m.SECONDS, seen.route, model, value=seen.seconds)
        if self._traces is not None:
            self._traces.end(request[_SPAN], seen)
        self._log(seen)

    def ended(self, why: str, id: str | None, status: int = 0) -> None:
        """A connection was ended for what it did. ``id`` is that of the answer, where one was written."""
        self.metrics.add(m.ENDED, why)
        if id is not None:
            self._log(Seen(id=id, method="", status=status, code=why))

    def attempt(self, deployment: DeploymentLabel) -> Attempt:
        """Around a call: what it asks of its provider belongs to the running request."""
        seen = current.get() or Seen(id="", method="")
        seen.deployment = deployment.name
        return Attempt(deployment, seen, self.metrics)

    @hookimpl
    def middleware(self) -> Middleware:
        """Stands around each request to a provider."""
        return _Exchange(self.metrics, self._traces)

    def _log(self, seen: Seen) -> None:
        if self.log_requests:
            self._write(seen)


class _Exchange:
    position = "inner"

    def __init__(self, metrics: Metrics, traces: Traces | None) -> None:
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        attempt = _running.get()
        if attempt is None:
            return await next(wire)
        paid, seen = wire.method == "POST", attempt.seen
        if paid and wire.call.posts:
            self._metrics.add(m.RETRIES, *attempt.labels)
        span = self._traces.ask(wire, attempt.deployment) if self._traces is not None else None
        began = time.monotonic()
        seen.attempts += paid
        seen.upstream_began = seen.upstream_began or began
        answer: WireResponse | None = None
        error: BaseException | None = None
        try:
            answer = await next(wire)
            return answer
        except BaseException as raised:
            error = raised
            raise
        finally:
            seen.upstream_ended = time.monotonic()
            kind = "call" if paid else "poll"
            self._metrics.add(m.UPSTREAM, *attempt.labels, kind, _outcome(error))
            self._metrics.observe(m.UPSTREAM_SECONDS, *attempt.labels, kind, value=seen.upstream_ended - began)
            id = answer.request_id if answer is not None else getattr(error, "request_id", None)
            if id and id not in seen.provider_ids and len(seen.provider_ids) < _MOST_IDS:
                seen.provider_ids.append(id)
            if span is not None and self._traces is not None:
                status = answer.status if answer is not None else getattr(error, "status", None)
                self._traces.answered(span, status, id, error)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    return type(error).__name__ if isinstance(error, ImpastoError | CancelledError) else "broken"
