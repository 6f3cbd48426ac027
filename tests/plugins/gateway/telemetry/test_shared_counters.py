"""Numbers that outlive the process that counted them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings, strategies as st

from impasto_plugins.gateway.telemetry.metrics import BUCKET_BOUNDS, Metric, Metrics
from impasto_plugins.gateway.telemetry.shared_counters import read_counters

COUNT, SECONDS, GAUGE = (Metric(name, "", "") for name in ("n", "took", "g"))
NAMES = st.text(max_size=8)
KEYS = st.tuples(st.just("n"), NAMES, NAMES)
AMOUNTS = st.integers(0, 1000)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counted=st.lists(st.tuples(KEYS, AMOUNTS)), took=st.lists(st.tuples(NAMES, st.floats(0, 100))))
def test_the_counters_have_the_values_that_were_counted(
    counted: list[tuple[tuple[str, ...], int]], took: list[tuple[str, float]], tmp_path: Path
) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    metrics = Metrics(tmp_path)
    (path,) = tmp_path.iterdir()
    for key, amount in counted:
        metrics.add(COUNT, *key[1:], amount=amount)
    for name, seconds in took:
        metrics.observe(SECONDS, name, value=seconds)
    found = dict(read_counters(path))
    assert found == dict(metrics._counters.read_all())
    for key in {key for key, _ in counted}:
        assert found[key] == [sum(amount for other, amount in counted if other == key)]
    for name in {name for name, _ in took}:
        mine = [seconds for other, seconds in took if other == name]
        *buckets, total = found["took", name]
        assert buckets == [
            sum(low < each <= high for each in mine)
            for low, high in zip((-1, *BUCKET_BOUNDS), (*BUCKET_BOUNDS, 1e9), strict=True)
        ]
        assert abs(total - sum(mine)) < 1e-6
    metrics.close()
    assert dict(read_counters(path)) == found


def test_a_number_can_be_set() -> None:
    metrics = Metrics()
    metrics.set(GAUGE, value=5)
    metrics.set(GAUGE, value=2.5)
    assert dict(metrics._counters.read_all()) == {("g",): [2.5]}


def test_more_names_than_fit_are_not_counted_and_hurt_nobody() -> None:
    metrics = Metrics()
    metrics.add(COUNT)
    for number in range(10_000):
        metrics.observe(SECONDS, str(number), value=0.005)
    metrics.add(COUNT)
    found = dict(metrics._counters.read_all())
    assert found["n",] == [2]
    assert found["took", "0"] == [1, *[0] * len(BUCKET_BOUNDS), 0.005]
    assert 5_000 < len(found) < 10_000
