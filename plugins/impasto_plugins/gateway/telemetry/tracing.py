"""OpenTelemetry traces, where its SDK is installed: a span for each request, and one for each asking of a provider."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from impasto import ImpastoError, WireRequest, __version__
from impasto.ext import printable

from . import semantic_conventions as names
from .request_record import Seen

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_log = logging.getLogger("impasto.gateway")

_PROVIDERS = {"bedrock": "aws.bedrock"}
"""OpenTelemetry's names of providers, where they are not ours."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class DeploymentLabel(NamedTuple):
    """A deployment as metrics and traces know it: its labels there, the model behind it, and what that makes."""

    model_name: str
    name: str
    provider: str
    model: str
    output: str


class Traces:
    """Makes the spans. Who exports them, and how many, is the tracer provider's business."""

    def __init__(self) -> None:
        from opentelemetry import context, propagate, trace

        self._context, self._propagate, self._trace = context, propagate, trace
        self._tracer = trace.get_tracer("impasto.gateway", __version__)

    @classmethod
    def wanted(cls) -> Traces | None:
        """None where nobody has set a tracer provider up, so that spans would be made for nothing."""
        if not is_installed():
            return None
        from opentelemetry import trace

        return None if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider) else cls()

    def begin(self, seen: Seen, headers: Mapping[str, str]) -> Span:
        """Begins a request's span, under the caller's where there is a ``traceparent``, for the running task."""
        above = self._propagate.extract(headers)
        span = self._tracer.start_span(seen.method, above, self._trace.SpanKind.SERVER)
        self._context.attach(self._trace.set_span_in_context(span, above))
        if (about := span.get_span_context()).is_valid:
            seen.trace_id = self._trace.format_trace_id(about.trace_id)
        return span

    def end(self, span: Span, seen: Seen) -> None:
        """Ends a request's span with all that is known of it."""
        if span.is_recording():
            span.update_name(f"{seen.method} {seen.route}")
            told: dict[str, str | float | None] = {
                names.METHOD: seen.method,
                names.ROUTE: seen.route,
                names.STATUS: seen.status,
                names.REQUEST_BYTES: seen.bytes_in,
                names.RESPONSE_BYTES: seen.bytes_out,
                names.REQUEST_ID: seen.id,
                names.KEY: seen.key,
                names.REQUEST_MODEL: seen.model,
                names.DEPLOYMENT: seen.deployment,
                names.PROMPT: seen.prompt,
                names.ERROR: (seen.code or str(seen.status)) if seen.status >= 400 else None,
            }
            if seen.deployment is not None:
                told |= {
                    names.PICTURES: seen.pictures,
                    names.COST_USD: seen.usd,
                    names.ATTEMPTS: seen.attempts,
                    names.CHARGE_UNKNOWN: seen.charge_unknown,
                }
            span.set_attributes({name: value for name, value in told.items() if value is not None})
            if seen.status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def ask(self, wire: WireRequest, deployment: DeploymentLabel) -> Span:
        """Begins the span of one request to a provider, under the running task's."""
        kind = "generate_content" if wire.method == "POST" else "poll"
        span = self._tracer.start_span(f"{kind} {deployment.model}", kind=self._trace.SpanKind.CLIENT)
        if span.is_recording():
            told: dict[str, str | float | None] = {
                names.METHOD: wire.method,
                names.OPERATION: kind,
                names.PROVIDER: _PROVIDERS.get(deployment.provider, deployment.provider),
                names.REQUEST_MODEL: deployment.model,
                names.OUTPUT_TYPE: deployment.output,
                names.DEPLOYMENT: deployment.name,
                names.JOB: wire.call.job,
                names.RESEND_COUNT: wire.call.posts if wire.method == "POST" else 0,
            }
            span.set_attributes({name: value for name, value in told.items() if value})
        return span

    def answered(self, span: Span, status: int | None, id: str | None, error: BaseException | None) -> None:
        """Ends it. ``error``: what came in the place of an answer."""
        if span.is_recording():
            told: dict[str, str | float | None] = {names.STATUS: status, names.RESPONSE_ID: id}
            if error is not None:
                told[names.ERROR] = type(error).__name__
                span.set_status(self._trace.StatusCode.ERROR)
            if isinstance(error, ImpastoError):
                told[names.BILLED] = error.billed
            span.set_attributes({name: value for name, value in told.items() if value is not None})
        span.end()


def is_installed() -> bool:
    """Whether OpenTelemetry's SDK is there."""
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def provider_from_environment() -> TracerProvider | None:
    """Sets up what OpenTelemetry's own variables ask for, unless somebody did it before (``opentelemetry-instrument``).

    Whoever asked for it ends it with ``shutdown()``. None where nothing is asked for, or it can't be had.
    """
    default = "otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none"
    asked = [each.strip() for each in os.environ.get("OTEL_TRACES_EXPORTER", default).split(",")]
    if asked in ([""], ["none"]) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
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

    provider = TracerProvider(resource=Resource.create({"service.name": _service()}))
    for name in asked:
        found = entry_points(group="opentelemetry_traces_exporter", name=name)
        if not found:
            _log.warning("no traces by %s: no installed package exports them so", printable(name))
        for point in found:
            provider.add_span_processor(BatchSpanProcessor(point.load()()))
    trace.set_tracer_provider(provider)
    return provider


def _service() -> str:
    return os.environ.get("OTEL_SERVICE_NAME") or "impasto-gateway"
