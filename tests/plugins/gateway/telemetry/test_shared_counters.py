"""Numbers that outlive the process that counted them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings, strategies as st

from impasto_plugins.gateway.telemetry.shared_counters import SharedCounters, read_counters

BOUNDS = (0.1, 1.0, 10.0)
NAMES = st.text(max_size=8)
KEYS = st.tuples(st.just("n"), NAMES, NAMES)
AMOUNTS = st.integers(0, 1000)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counted=st.lists(st.tuples(KEYS, AMOUNTS)), took=st.lists(st.tuples(NAMES, st.floats(0, 100))))
def test_what_is_read_is_what_was_counted(
    counted: list[tuple[tuple[str, ...], int]], took: list[tuple[str, float]], tmp_path: Path
) -> None:
    path = tmp_path / "tally"
    path.unlink(missing_ok=True)
    tally = SharedCounters(BOUNDS, path)
    for key, amount in counted:
        tally.add(key, amount)
    for name, seconds in took:
        tally.observe(("took", name), seconds)
    found = dict(read_counters(path))
    assert found == dict(tally.read_all())
    for key in {key for key, _ in counted}:
        assert found[key] == [sum(amount for other, amount in counted if other == key)]
    for name in {name for name, _ in took}:
        mine = [seconds for other, seconds in took if other == name]
        *buckets, total = found["took", name]
        assert buckets == [
            sum(low < each <= high for each in mine) for low, high in zip((-1, *BOUNDS), (*BOUNDS, 1e9), strict=True)
        ]
        assert abs(total - sum(mine)) < 1e-6
    tally.close()
    assert dict(read_counters(path)) == found


def test_a_number_can_be_set(tmp_path: Path) -> None:
    tally = SharedCounters(BOUNDS)
    tally.set(("g",), 5)
    tally.set(("g",), 2.5)
    assert dict(tally.read_all()) == {("g",): [2.5]}


def test_more_names_than_fit_are_not_counted_and_hurt_nobody() -> None:
    tally = SharedCounters(BOUNDS)
    tally.add(("a",))
    for number in range(40_000):
        tally.observe(("h", str(number)), 0.5)
    tally.add(("a",))
    found = dict(tally.read_all())
    assert found["a",] == [2]
    assert found["h", "0"] == [0, 1, 0, 0, 0.5]
    assert 20_000 < len(found) < 40_000
