"""The records' own copies lose no field."""

from pathlib import Path

import attrs
import pytest

from impasto import Artifact, Call, Cost, Result, WireRequest
from impasto.policy import Retry, RetryBudget
from impasto.provider import Account, Provider
from impasto.records import Request

PROVIDER = Provider(name="p", base_url="https://p.example")
WIRE = WireRequest(
    target="/t",
    method="GET",
    fields={"a": 1},
    files={},
    headers={"h": "1"},
    max_bytes=7,
    regions=("eu-west-1",),
    encoding="json",
)
RESULT = Result(artifacts=(Artifact(data=b"x", media_type="image/png"),), warnings=("w",), errors=(), request_id="r")


def test_a_bound_request_differs_in_its_call_only():
    request = Request(operation="m", params=RESULT, target="/t")
    account = Account(provider=PROVIDER, base_url="https://p.example", headers={})
    call = Call(request, account, timeout=1.0, retry=Retry(), budget=RetryBudget())
    bound = WIRE.bound(call)
    assert bound == attrs.evolve(WIRE, call=call)
    assert WIRE.call is None


def test_a_result_with_its_cost_differs_in_it_only():
    cost = Cost(usd=0.03, as_of="2026-01-01")
    assert RESULT.at(cost) == attrs.evolve(RESULT, cost=cost)
    assert RESULT.cost is None


@pytest.mark.parametrize("record", [WIRE, RESULT])
def test_the_example_records_set_every_field(record):
    left = {a.name for a in attrs.fields(type(record)) if getattr(record, a.name) in (a.default, None, (), {})}
    assert left <= {"call", "cost", "errors", "files"}


@pytest.mark.parametrize(
    ("base_url", "own"),
    [("https://p.example", True), ("https://P.example:443/v1", True), ("http://127.0.0.1:8008", False)],
)
def test_only_the_vendors_own_host_has_the_vendors_limits(base_url: str, own: bool):
    assert PROVIDER.is_own_host(base_url) is own


def test_a_file_that_can_not_be_written_whole_is_not_left_behind(tmp_path, monkeypatch):
    """A full disk; the data are still there to be saved elsewhere. What stood there before is not taken away."""
    opened = Path.open

    def full(path, mode):
        opened(path, mode).close()
        return open("/dev/full", "wb", 0)

    artifact, path = Artifact(data=b"paid for", media_type="image/png"), tmp_path / "x.png"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space left"):
            artifact.save(path)
        assert not path.exists()
        path.touch()
        with pytest.raises(OSError, match="No space left"):
            artifact.save(path)
        assert path.exists()
    assert artifact.save(path).read_bytes() == b"paid for"
