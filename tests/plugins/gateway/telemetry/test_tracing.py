"""Tracing with OpenTelemetry's own SDK: one for each request, under the caller's, down to each asking of a provider."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from impasto_plugins.emulator import Emulator
from impasto_plugins.gateway.telemetry import semantic_conventions
from tests.conftest import KEY
from tests.images import drawn
from tests.plugins.gateway.config.test_config import PAGE
from tests.plugins.gateway.conftest import MASTER, Running, Serve, Start, config

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROUTE = "/v1/images/generations"


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    """Of the process's one tracer provider, which can be set once."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    yield exporter
    exporter.clear()


def summary(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def by_kind(spans: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.kind is kind]


async def test_a_request_and_what_it_asked_for(
    spans: InMemorySpanExporter, gateway: Running, impasto_emulator: Emulator
) -> None:
    answer = await gateway.ask(
        "POST", ROUTE, json={"model": "sd3", "prompt": "my secret", "n": 2}, headers={"traceparent": PARENT}
    )
    assert answer.status == 200
    [request] = by_kind(spans, SpanKind.SERVER)
    requests = by_kind(spans, SpanKind.CLIENT)
    assert request.name == f"POST {ROUTE}"
    assert request.parent is not None
    assert f"{request.parent.trace_id:032x}-{request.parent.span_id:016x}" in PARENT
    assert len(requests) == 2
    for each in requests:
        assert each.parent is not None
        assert request.context is not None
        assert (each.parent.span_id, each.parent.trace_id) == (request.context.span_id, request.context.trace_id)
        assert each.name == "generate_content sd3.5-large"
        about = summary(each)
        assert about["gen_ai.operation.name"] == "generate_content"
        assert about["gen_ai.provider.name"] == "stability"
        assert about["gen_ai.request.model"] == "sd3.5-large"
        assert about["gen_ai.output.type"] == "image"
        assert about["http.response.status_code"] == 200
    assert {summary(each)["gen_ai.response.id"] for each in requests} == {r.id for r in impasto_emulator.requests}
    about = summary(request)
    assert about["http.response.status_code"] == 200
    assert about["gen_ai.request.model"] == "sd3"
    assert about["impasto.deployment"] == "stability/sd3.5-large"
    assert about["impasto.request_id"] == answer.headers["x-request-id"]
    assert (about["impasto.pictures"], about["impasto.attempts"], about["impasto.cost_usd"]) == (2, 2, 0.13)
    assert about["impasto.key"] == "master"
    assert about["impasto.charge_unknown"] is False
    assert "my secret" not in str([summary(span) for span in spans.get_finished_spans()])
    assert set(about) <= {value for name, value in vars(semantic_conventions).items() if name.isupper()}


async def test_without_a_caller_a_trace_begins_here(spans: InMemorySpanExporter, gateway: Running) -> None:
    for traceparent in ("", "00-zz-zz-zz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        spans.clear()
        await gateway.ask("GET", "/v1/models", headers={"traceparent": traceparent})
        [span] = by_kind(spans, SpanKind.SERVER)
        assert (span.name, span.parent) == ("GET /v1/models", None)


async def test_each_attempt_has_a_span(
    spans: InMemorySpanExporter, gateway: Running, impasto_emulator: Emulator
) -> None:
    impasto_emulator.fault("status", status=503, times=1)
    assert (await gateway.generate()).status == 200
    first, second = by_kind(spans, SpanKind.CLIENT)
    assert summary(first)["error.type"] == "ProviderFault"
    assert summary(first)["http.response.status_code"] == 503
    assert summary(first)["impasto.billed"] == "no"
    assert first.status.status_code is StatusCode.ERROR
    assert summary(second)["http.request.resend_count"] == 1
    assert second.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("kind", ["truncate", "status"])
async def test_a_call_that_fails(
    spans: InMemorySpanExporter, gateway: Running, impasto_emulator: Emulator, kind: str
) -> None:
    options = {"status": 401} if kind == "status" else {}
    code, billed = ("provider_account", "no") if kind == "status" else ("charge_unknown", "unknown")
    impasto_emulator.fault(kind, **options)
    assert (await gateway.generate()).error["code"] == code
    [request], [requests] = by_kind(spans, SpanKind.SERVER), by_kind(spans, SpanKind.CLIENT)
    assert summary(request)["error.type"] == code
    assert summary(request)["impasto.charge_unknown"] is (billed == "unknown")
    assert request.status.status_code is StatusCode.ERROR
    assert summary(requests)["impasto.billed"] == billed
    text = str([span.to_json() for span in spans.get_finished_spans()])
    assert KEY not in text
    assert MASTER not in text


async def test_a_refusal_is_the_callers_error_and_not_the_gateways(
    spans: InMemorySpanExporter, gateway: Running
) -> None:
    await gateway.generate(prompt="")
    [request] = by_kind(spans, SpanKind.SERVER)
    assert (summary(request)["error.type"], request.status.status_code) == ("invalid_value", StatusCode.UNSET)


async def test_a_jobs_polls_are_told(spans: InMemorySpanExporter, gateway: Running) -> None:
    await gateway.sdk.images.edit(model="creative", image=drawn("PNG", size=(128, 128)), prompt="sharper")
    names = [span.name for span in by_kind(spans, SpanKind.CLIENT)]
    assert names[0] == "generate_content upscale-creative"
    assert set(names[1:]) == {"poll upscale-creative"}
    assert "impasto.job" in summary(by_kind(spans, SpanKind.CLIENT)[1])


async def test_prompts_stand_there_where_it_is_asked_for(
    spans: InMemorySpanExporter, start: Start, impasto_emulator: Emulator
) -> None:
    gateway = await start(config(impasto_emulator.url, general="  log_prompts: true\n"))
    await gateway.generate(prompt="a lighthouse")
    [request] = by_kind(spans, SpanKind.SERVER)
    assert summary(request)["impasto.prompt"] == "a lighthouse"


def test_a_process_exports_as_its_environment_says(serve: Serve) -> None:
    process, url = serve(PAGE, OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="my-images")
    subprocess.run(["curl", "-sS", f"{url}/v1/models"], check=True, capture_output=True, timeout=60)
    process.terminate()
    _, output = process.communicate(timeout=60)  # standard output is the access log's
    assert process.returncode == 0
    assert '"name": "GET /v1/models"' in output
    assert '"service.name": "my-images"' in output


def test_no_span_is_made_where_nobody_has_set_the_sdk_up() -> None:
    code = (
        "from impasto_plugins.gateway.telemetry.tracing import Tracing; assert Tracing.create_if_configured() is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_sdk_there_are_no_traces_and_nothing_fails() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
from impasto_plugins.gateway.telemetry.tracing import Tracing, provider_from_environment
assert Tracing.create_if_configured() is None
assert provider_from_environment() is None
"""
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "console"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == "no traces: opentelemetry-sdk is not installed\n"


async def test_an_exporter_that_is_not_there_is_told_and_nothing_fails(serve: Serve) -> None:
    process, _ = await asyncio.to_thread(serve, PAGE, OTEL_TRACES_EXPORTER="no-such")
    process.terminate()
    _, output = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    assert "no traces by no-such: no installed package has that exporter" in output
