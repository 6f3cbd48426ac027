"""Metrics for Prometheus, of all workers together. Labels have few values: none is what a caller wrote."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from .shared_counters import Key, Tally, read

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
"""Of the histograms' buckets, in seconds."""

_PREFIX = "impasto_gateway_"
_DEPLOYMENT = ("model", "deployment")


@attrs.frozen
class Metric:
    """One metric. ``together``: what makes one number of several workers' gauges."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    together: Callable[[float, float], float] = float.__add__


def _largest(a: float, b: float) -> float:
    return max(a, b)


REQUESTS = Metric("requests", "counter", "Requests answered.", ("route", "model", "status"))
SECONDS = Metric("request_seconds", "histogram", "From a request's head to its answer's end.", ("route", "model"))
IN_FLIGHT = Metric("requests_in_flight", "gauge", "Requests that are being read or answered, and jobs.")
BYTES = Metric("bytes_in_flight", "gauge", "Bytes that requests and answers hold of memory.")
UPSTREAM = Metric(
    "upstream_requests", "counter", "Requests to providers, by what came of them.", (*_DEPLOYMENT, "kind", "outcome")
)
UPSTREAM_SECONDS = Metric("upstream_seconds", "histogram", "A provider's time for one request.", (*_DEPLOYMENT, "kind"))
RETRIES = Metric("retries", "counter", "Requests to providers that were sent again.", _DEPLOYMENT)
PICTURES = Metric("pictures", "counter", "Pictures that came.", _DEPLOYMENT)
USD = Metric("cost_usd", "counter", "What pictures that came cost, by the price known here.", _DEPLOYMENT)
CREDITS = Metric("cost_credits", "counter", "The same in the provider's credits.", _DEPLOYMENT)
CHARGE_UNKNOWN = Metric("charges_unknown", "counter", "Pictures that did not come and may be charged.", _DEPLOYMENT)
RESTING = Metric("deployment_resting", "gauge", "1 where a deployment cools down.", _DEPLOYMENT, _largest)
CONNECTIONS = Metric("connections", "gauge", "Open connections.")
ENDED = Metric(
    "connections_ended", "counter", "Connections ended for what they did: cap, header, body, write, http.", ("why",)
)
LAG = Metric("loop_lag_seconds", "gauge", "The longest that the event loop was late in the last minute.", (), _largest)
LOST_LINES = Metric("access_log_lines_lost", "counter", "Lines that were not written, as nobody took them.")

METRICS = (
    *(REQUESTS, SECONDS, IN_FLIGHT, BYTES, UPSTREAM, UPSTREAM_SECONDS, RETRIES, PICTURES, USD, CREDITS),
    *(CHARGE_UNKNOWN, RESTING, CONNECTIONS, ENDED, LAG, LOST_LINES),
)
_BY_NAME = {metric.name: metric for metric in METRICS}


class Metrics:
    """This worker's numbers. ``folder``: where those of all workers are; None where there is one."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._path = folder / f"{os.getpid()}.{time.time_ns()}" if folder is not None else None
        self._tally = Tally(BOUNDS, self._path)

    def add(self, metric: Metric, *labels: str, amount: float = 1.0) -> None:
        """Counts."""
        self._tally.add((metric.name, *labels), amount)

    def set(self, metric: Metric, *labels: str, value: float) -> None:
        """What is so now."""
        self._tally.set((metric.name, *labels), value)

    def observe(self, metric: Metric, *labels: str, value: float) -> None:
        """Counts into a histogram."""
        self._tally.observe((metric.name, *labels), value)

    def close(self) -> None:
        """Lets go of the memory."""
        self._tally.close()

    def told(self, accept: str) -> tuple[bytes, str]:
        """All of them in the form that a scraper accepts, and that form's media type. Reads files."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self._sums()))
        encode, media_type = choose_encoder(accept)
        return encode(registry), media_type

    def _sums(self) -> Mapping[Key, list[float]]:
        sums: dict[Key, list[float]] = {}
        for alive, numbers in self._all():
            for key, values in numbers:
                metric = _BY_NAME[key[0]]
                if metric.kind == "gauge" and not alive:
                    continue
                join = metric.together
                known = sums.get(key)
                sums[key] = values if known is None else [join(a, b) for a, b in zip(known, values, strict=True)]
        return sums

    def _all(self) -> Iterator[tuple[bool, Iterable[tuple[Key, list[float]]]]]:
        yield True, self._tally.numbers()
        for path in self._folder.iterdir() if self._folder is not None else ():
            if path != self._path and path.stat().st_size:  # else it is being made
                yield _is_alive(int(path.name.partition(".")[0])), read(path)


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
        """Those of each metric together, as the format wants it."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric in METRICS:
            name = _PREFIX + metric.name
            mine = sorted((key[1:], values) for key, values in self._sums.items() if key[0] == metric.name)
            match metric.kind:
                case "histogram":
                    histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
                    for labels, values in mine:
                        histogram.add_metric(labels, _buckets(values), values[-1])
                    yield histogram
                case kind:
                    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(
                        name, metric.help, labels=metric.labels
                    )
                    for labels, (value,) in mine:
                        family.add_metric(labels, value)
                    yield family


def _buckets(values: list[float]) -> list[tuple[str, float]]:
    """Each bound and how many were at most so long, as the format counts."""
    count, found = 0.0, []
    for bound, more in zip((*map(str, BOUNDS), "+Inf"), values, strict=False):
        count += more
        found.append((bound, count))
    return found
