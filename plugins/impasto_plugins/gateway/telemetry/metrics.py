"""Prometheus metrics of all workers together. Labels have few values: none comes from a caller."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from .shared_counters import Key, SharedCounters, read_counters

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

BUCKET_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
"""Bounds of the histograms' buckets, in seconds."""

_PREFIX = "impasto_gateway_"
_DEPLOYMENT = ("model", "deployment")


@attrs.frozen
class Metric:
    """One metric. ``aggregate`` aggregates several workers' gauges into one number."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    aggregate: Callable[[float, float], float] = float.__add__


def _maximum(a: float, b: float) -> float:
    return max(a, b)


REQUESTS = Metric("requests", "counter", "Requests that were answered.", ("route", "model", "status"))
SECONDS = Metric(
    "request_seconds", "histogram", "Seconds from a request's head to the end of its response.", ("route", "model")
)
IN_FLIGHT = Metric("requests_in_flight", "gauge", "Requests and jobs that run.")
BYTES = Metric("bytes_in_flight", "gauge", "Bytes of memory that requests and responses use.")
UPSTREAM = Metric(
    "upstream_requests", "counter", "Requests to providers, by outcome.", (*_DEPLOYMENT, "kind", "outcome")
)
UPSTREAM_SECONDS = Metric(
    "upstream_seconds", "histogram", "Seconds that a provider took for one request.", (*_DEPLOYMENT, "kind")
)
RETRIES = Metric("retries", "counter", "Requests to providers that were retried.", _DEPLOYMENT)
IMAGES = Metric("pictures", "counter", "Images received.", _DEPLOYMENT)
USD = Metric(
    "cost_usd", "counter", "Cost in USD of images that were received or charged, by the model's price.", _DEPLOYMENT
)
CREDITS = Metric(
    "cost_credits", "counter", "Cost in the provider's credits of images that were received or charged.", _DEPLOYMENT
)
CHARGE_UNKNOWN = Metric(
    "charges_unknown", "counter", "Images that were not received and may have been charged.", _DEPLOYMENT
)
COOLDOWN = Metric(
    "deployment_resting", "gauge", "1 while a deployment is not used after failures, else 0.", _DEPLOYMENT, _maximum
)
CONNECTIONS = Metric("connections", "gauge", "Open connections.")
CONNECTIONS_ENDED = Metric(
    "connections_ended",
    "counter",
    "Connections that the gateway ended, by reason: cap, header, body, write, http.",
    ("why",),
)
LAG = Metric(
    "loop_lag_seconds", "gauge", "Longest delay of the event loop in the last minute, in seconds.", (), _maximum
)
DROPPED_LINES = Metric(
    "access_log_lines_lost", "counter", "Lines of the access log that were dropped because nothing read them."
)

METRICS = (
    *(REQUESTS, SECONDS, IN_FLIGHT, BYTES, UPSTREAM, UPSTREAM_SECONDS, RETRIES, IMAGES, USD, CREDITS),
    *(CHARGE_UNKNOWN, COOLDOWN, CONNECTIONS, CONNECTIONS_ENDED, LAG, DROPPED_LINES),
)
_BY_NAME = {metric.name: metric for metric in METRICS}


class Metrics:
    """This worker's numbers. ``folder``: the folder of all workers' numbers; None with one worker."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._path = folder / f"{os.getpid()}.{time.time_ns()}" if folder is not None else None
        self._counters = SharedCounters(self._path)

    def add(self, metric: Metric, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter."""
        key, counters = (metric.name, *labels), self._counters
        counters.values[counters.slots.get(key) or counters.allocate(key, 1)] += amount

    def set(self, metric: Metric, *labels: str, value: float) -> None:
        """Set a gauge."""
        key, counters = (metric.name, *labels), self._counters
        counters.values[counters.slots.get(key) or counters.allocate(key, 1)] = value

    def observe(self, metric: Metric, *labels: str, value: float) -> None:
        """Add an observation to a histogram: its buckets, the one beyond all bounds, the sum."""
        key, counters = (metric.name, *labels), self._counters
        slot = counters.slots.get(key) or counters.allocate(key, len(BUCKET_BOUNDS) + 2)
        counters.values[slot + bisect_left(BUCKET_BOUNDS, value)] += 1
        counters.values[slot + len(BUCKET_BOUNDS) + 1] += value

    def close(self) -> None:
        """Release the memory."""
        self._counters.close()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the form that a scraper accepts, and its media type. Reads files."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self._aggregate()))
        encode, media_type = choose_encoder(accept)
        return encode(registry), media_type

    def _aggregate(self) -> Mapping[Key, list[float]]:
        sums: dict[Key, list[float]] = {}
        for is_alive, numbers in self._read_workers():
            for key, values in numbers:
                metric = _BY_NAME[key[0]]
                if metric.kind == "gauge" and not is_alive:
                    continue
                aggregate = metric.aggregate
                previous = sums.get(key)
                sums[key] = (
                    values if previous is None else [aggregate(a, b) for a, b in zip(previous, values, strict=True)]
                )
        return sums

    def _read_workers(self) -> Iterator[tuple[bool, Iterable[tuple[Key, list[float]]]]]:
        yield True, self._counters.read_all()
        for path in self._folder.iterdir() if self._folder is not None else ():
            if path != self._path and path.stat().st_size:  # else it is being made
                yield _is_alive(int(path.name.partition(".")[0])), read_counters(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class _Collector:
    """The numbers as prometheus-client's families, for its encoders."""

    def __init__(self, sums: Mapping[Key, list[float]]) -> None:
        self._sums = sums

    def collect(self) -> Iterator[Family]:
        """Yield each metric's aggregated numbers."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric in METRICS:
            name = _PREFIX + metric.name
            samples = sorted((key[1:], values) for key, values in self._sums.items() if key[0] == metric.name)
            match metric.kind:
                case "histogram":
                    histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
                    for labels, values in samples:
                        histogram.add_metric(labels, _cumulative_buckets(values), values[-1])
                    yield histogram
                case kind:
                    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
                        name, metric.help, labels=metric.labels
                    )
                    for labels, (value,) in samples:
                        family.add_metric(labels, value)
                    yield family


def _cumulative_buckets(values: list[float]) -> list[tuple[str, float]]:
    """Return each bound with its cumulative count."""
    count, buckets = 0.0, []
    for bound, amount in zip((*map(str, BUCKET_BOUNDS), "+Inf"), values, strict=False):
        count += amount
        buckets.append((bound, count))
    return buckets
