"""OpenTelemetry traces, if its SDK is installed: a span for each request, and one for each provider request."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from impasto import ImpastoError, WireRequest, __version__
from impasto.ext import printable

from . import semantic_conventions as names
from .request_record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_log = logging.getLogger("impasto.gateway")

_PROVIDERS = {"bedrock": "aws.bedrock"}
"""OpenTelemetry's names of providers that differ from ours."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class DeploymentLabel(NamedTuple):
    """A deployment for metrics and traces: its labels, its model, and the model's output."""

    model_name: str
    name: str
    provider: str
    model: str
    output: str


class Tracing:
    """Creates the spans. Exporting and sampling are the tracer provider's task."""

    def __init__(self) -> None:
        from opentelemetry import context, propagate, trace

        self._context, self._propagate, self._trace = context, propagate, trace
        self._tracer = trace.get_tracer("impasto.gateway", __version__)

    @classmethod
    def create_if_configured(cls) -> Tracing | None:
        """Return the tracing, or None if no tracer provider is set up."""
        if not is_installed():
            return None
        from opentelemetry import trace

        return None if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) else cls()

    def start_request(self, record: RequestRecord, headers: Mapping[str, str]) -> Span:
        """Begin a request's span for the running task, under the caller's if there is a ``traceparent``."""
        parent = self._propagate.extract(headers)
        span = self._tracer.start_span(record.method, parent, self._trace.SpanKind.SERVER)
        self._context.attach(self._trace.set_span_in_context(span, parent))
        if (context := span.get_span_context()).is_valid:
            record.trace_id = self._trace.format_trace_id(context.trace_id)
        return span

    def end_request(self, span: Span, record: RequestRecord) -> None:
        """End a request's span with its attributes."""
        if span.is_recording():
            span.update_name(f"{record.method} {record.route}")
            attributes: dict[str, str | float | None] = {
                names.METHOD: record.method,
                names.ROUTE: record.route,
                names.STATUS: record.status,
                names.REQUEST_BYTES: record.bytes_in,
                names.RESPONSE_BYTES: record.bytes_out,
                names.REQUEST_ID: record.id,
                names.KEY: record.key,
                names.REQUEST_MODEL: record.model,
                names.DEPLOYMENT: record.deployment,
                names.PROMPT: record.prompt,
                names.ERROR: (record.code or str(record.status)) if record.status >= 400 else None,
            }
            if record.deployment is not None:
                attributes |= {
                    names.IMAGES: record.images,
                    names.COST_USD: record.cost_usd,
                    names.ATTEMPTS: record.attempts,
                    names.CHARGE_UNKNOWN: record.charge_unknown,
                }
            span.set_attributes({name: value for name, value in attributes.items() if value is not None})
            if record.status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def start_call(self, wire: WireRequest, deployment: DeploymentLabel) -> Span:
        """Begin the span of one provider request, under the running task's."""
        kind = "generate_content" if wire.method == "POST" else "poll"
        span = self._tracer.start_span(f"{kind} {deployment.model}", kind=self._trace.SpanKind.CLIENT)
        if span.is_recording():
            attributes: dict[str, str | float | None] = {
                names.METHOD: wire.method,
                names.OPERATION: kind,
                names.PROVIDER: _PROVIDERS.get(deployment.provider, deployment.provider),
                names.REQUEST_MODEL: deployment.model,
                names.OUTPUT_TYPE: deployment.output,
                names.DEPLOYMENT: deployment.name,
                names.JOB: wire.call.job,
                names.RESEND_COUNT: wire.call.attempts_started if wire.method == "POST" else 0,
            }
            span.set_attributes({name: value for name, value in attributes.items() if value})
        return span

    def end_call(self, span: Span, status: int | None, id: str | None, error: BaseException | None) -> None:
        """End the span. ``error``: the error in place of an answer."""
        if span.is_recording():
            attributes: dict[str, str | float | None] = {names.STATUS: status, names.RESPONSE_ID: id}
            if error is not None:
                attributes[names.ERROR] = type(error).__name__
                span.set_status(self._trace.StatusCode.ERROR)
            if isinstance(error, ImpastoError):
                attributes[names.BILLED] = error.billed
            span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        span.end()


def is_installed() -> bool:
    """Return True if OpenTelemetry's SDK is installed."""
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def provider_from_environment() -> TracerProvider | None:
    """Set up a provider from OpenTelemetry's own variables, unless there is one (``opentelemetry-instrument``).

    The caller ends it with ``shutdown()``. Returns None if nothing is configured, or it can't be created.
    """
    default = "otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none"
    exporters = [each.strip() for each in os.environ.get("OTEL_TRACES_EXPORTER", default).split(",")]
    if exporters in ([""], ["none"]) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if not is_installed():
        _log.warning("no traces: opentelemetry-sdk is not installed")
        return None
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    from importlib.metadata import entry_points

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": _service_name()}))
    for name in exporters:
        matches = entry_points(group="opentelemetry_traces_exporter", name=name)
        if not matches:
            _log.warning("no traces by %s: no installed package has that exporter", printable(name))
        for entry_point in matches:
            provider.add_span_processor(BatchSpanProcessor(entry_point.load()()))
    trace.set_tracer_provider(provider)
    return provider


def _service_name() -> str:
    return os.environ.get("OTEL_SERVICE_NAME") or "impasto-gateway"
