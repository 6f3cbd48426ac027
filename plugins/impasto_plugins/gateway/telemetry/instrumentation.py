"""Report requests and provider calls to metrics, traces and the access log."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

import attrs
from aiohttp import web

from impasto import Cost, Handler, ImpastoError, Middleware, Result, WireRequest, WireResponse, hookimpl
from impasto.ext import billed_of_failures, billed_of_images, redact

from . import metrics as m
from .access_log import log_request
from .metrics import Metrics
from .request_record import CLIENT_CLOSED_REQUEST, RECORD_KEY, RequestRecord, current_record
from .tracing import DeploymentLabel, Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_SPAN_KEY: web.RequestKey[Span] = web.RequestKey("span", object)  # type: ignore[arg-type]  # its class is an extra's
_MAX_PROVIDER_IDS = 10


@attrs.define(eq=False)
class CallRecorder:
    """A call to one deployment, with its retries and all of its images.

    The provider requests of its block belong to it. ``price``: the price of each image, None if unknown.
    """

    deployment: DeploymentLabel
    price: Cost | None
    record: RequestRecord
    metrics: Metrics
    labels: tuple[str, str]
    _token: Token[CallRecorder | None] = attrs.field(init=False)

    def __enter__(self) -> Self:
        self._token = _current_recorder.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current_recorder.reset(self._token)
        if isinstance(error, ImpastoError):
            self.record_failure(error)

    def record_result(self, result: Result) -> None:
        """Note that it returned images."""
        self.record.images += len(result.artifacts)
        self.metrics.add(m.IMAGES, *self.labels, amount=len(result.artifacts))
        if result.cost is not None:
            self._add_cost(result.cost)
        if result.errors:
            billed = billed_of_failures(result.errors)
            of_unknown_cost = billed.count("yes") if result.cost is None else 0
            self._add_charges(0, billed.count("unknown") + of_unknown_cost)

    def record_failure(self, error: ImpastoError) -> None:
        """Note that it failed with all of its images."""
        billed = billed_of_images(error)
        if error.cost is not None and "no" not in billed and "unknown" not in billed:
            self._add_cost(error.cost)
        else:
            self._add_charges(billed.count("yes"), billed.count("unknown"))

    def _add_charges(self, charges: int, unknown_charges: int) -> None:
        """Count images that did not come and were charged, or may have been."""
        if self.price is None:
            unknown_charges += charges  # an amount that nobody knows must not look like nothing
        elif charges:
            self._add_cost(self.price.times(charges))
        if unknown_charges:
            self.record.charge_unknown = True
            self.metrics.add(m.CHARGE_UNKNOWN, *self.labels, amount=unknown_charges)

    def _add_cost(self, cost: Cost) -> None:
        self.record.cost_usd = (self.record.cost_usd or 0.0) + cost.usd
        self.metrics.add(m.USD, *self.labels, amount=cost.usd)
        self.metrics.add(m.CREDITS, *self.labels, amount=cost.credits or 0.0)


_current_recorder: ContextVar[CallRecorder | None] = ContextVar("_running", default=None)


class Observer:
    """The instrumentation of one gateway. ``log_requests``: there is an access log."""

    def __init__(
        self, metrics: Metrics, traces: Tracing | None, log: Callable[[RequestRecord], object] = log_request
    ) -> None:
        self.metrics = metrics
        self.log_requests = True
        self.update_gauges: Callable[[], object] = lambda: None
        """Updates the gauges."""
        self._traces, self._write_line = traces, log

    def register_deployment(self, deployment: DeploymentLabel) -> None:
        """Create a deployment's counters in advance: a rise from nothing is not seen as one."""
        for metric in (m.RETRIES, m.IMAGES, m.USD, m.CREDITS, m.CHARGE_UNKNOWN):
            self.metrics.add(metric, deployment.model_name, deployment.name, amount=0)

    def start_request(self, request: web.BaseRequest, id: str) -> RequestRecord:
        """Note the start of a request."""
        record = RequestRecord(id=id, method=request.method)
        request[RECORD_KEY] = record
        current_record.set(record)
        if self._traces is not None:
            request[_SPAN_KEY] = self._traces.start_request(record, request.headers)
        return record

    def end_request(self, request: web.BaseRequest, status: int) -> None:
        """Note that a request was answered, or its caller left. A later note of the same request changes nothing.

        aiohttp answers 500 to a caller who left during the call, and reports that too.
        """
        if (record := request.get(RECORD_KEY)) is None or record.status:  # None: no HTTP
            return
        record.status, record.seconds = status, time.monotonic() - record.started_at
        record.bytes_in, record.bytes_out = request.content.total_bytes, request.writer.output_size
        model = record.model or ""
        self.metrics.add(m.REQUESTS, record.route, model, str(status))
        if status != CLIENT_CLOSED_REQUEST:
            self.metrics.observe(m.SECONDS, record.route, model, value=record.seconds)
        if self._traces is not None:
            self._traces.end_request(request[_SPAN_KEY], record)
        if self.log_requests:
            self._write_line(record)

    def connection_ended(self, reason: str, id: str | None, status: int = 0) -> None:
        """Note a connection that was closed for its behaviour. ``id`` is that of the response, if one was written."""
        self.metrics.add(m.CONNECTIONS_ENDED, reason)
        if id is not None and self.log_requests:
            self._write_line(RequestRecord(id=id, method="", status=status, code=reason))

    def record_call(self, deployment: DeploymentLabel, price: Cost | None) -> CallRecorder:
        """Return the recorder of a call of the running request, for a block. ``price``: of each image."""
        record = current_record.get() or RequestRecord(id="", method="")
        record.deployment = deployment.name
        return CallRecorder(deployment, price, record, self.metrics, (deployment.model_name, deployment.name))

    @hookimpl
    def middleware(self) -> Middleware:
        """Return the middleware around each provider request."""
        return _UpstreamMiddleware(self.metrics, self._traces)


class _UpstreamMiddleware:
    position = "inner"

    def __init__(self, metrics: Metrics, traces: Tracing | None) -> None:
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, wire: WireRequest, next: Handler, /) -> WireResponse:
        recorder = _current_recorder.get()
        if recorder is None:
            return await next(wire)
        is_call, record = wire.method == "POST", recorder.record
        if is_call and wire.call.attempts_started:
            self._metrics.add(m.RETRIES, *recorder.labels)
        span = self._traces.start_call(wire, recorder.deployment) if self._traces is not None else None
        started_at = time.monotonic()
        record.attempts += is_call
        record.upstream_started_at = record.upstream_started_at or started_at
        response: WireResponse | None = None
        error: BaseException | None = None
        try:
            response = await next(wire)
            return response
        except BaseException as exception:
            error = exception
            raise
        finally:
            record.upstream_ended_at = time.monotonic()
            kind = "call" if is_call else "poll"
            outcome = "ok" if error is None else type(error).__name__
            if error is not None and not isinstance(error, ImpastoError | CancelledError):
                outcome = "broken"
            self._metrics.add(m.UPSTREAM, *recorder.labels, kind, outcome)
            self._metrics.observe(
                m.UPSTREAM_SECONDS, *recorder.labels, kind, value=record.upstream_ended_at - started_at
            )
            id = response.request_id if response is not None else getattr(error, "request_id", None)
            if id:  # the provider chose it, and the log may not show the key
                id = redact(id, wire.call.secrets)
            if id and id not in record.provider_ids and len(record.provider_ids) < _MAX_PROVIDER_IDS:
                record.provider_ids.append(id)
            if span is not None and self._traces is not None:
                status = response.status if response is not None else getattr(error, "status", None)
                self._traces.end_call(span, status, id, error)
