"""The records' own copies lose no field."""

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from impasto import Artifact, Body, Call, Cost, Result, Usage, WireRequest, WireResponse
from impasto.policy import Retry
from impasto.provider import Account, Provider
from impasto.records import Request
from tests.images import png

PROVIDER = Provider(name="p", base_url="https://p.example")
WIRE = WireRequest(
    target="/t",
    method="GET",
    fields={"a": 1},
    files=(),
    headers={"h": "1"},
    max_bytes=7,
    regions=("eu-west-1",),
    url="https://p.example/x",
    anonymous=True,
    encoding="json",
)
USAGE = Usage(input_tokens=1, output_tokens=2)
RESULT = Result(
    artifacts=(Artifact(data=b"x", media_type="image/png"),), warnings=("w",), errors=(), request_id="r", usage=USAGE
)
ASKED = Request(operation="m", params=RESULT, target="/t")


def test_a_bound_request_differs_in_its_call_only():
    request = Request(operation="m", params=RESULT, target="/t")
    account = Account(provider=PROVIDER, base_url="https://p.example", headers={})
    call = Call(request, account, timeout=1.0, retry=Retry())
    bound = WIRE.with_call(call)
    assert bound == attrs.evolve(WIRE, call=call)
    assert WIRE.call is None


def test_a_result_with_its_cost_differs_in_it_only():
    cost = Cost(usd=0.03, as_of="2026-01-01")
    assert RESULT.completed(cost, ASKED) == attrs.evolve(RESULT, cost=cost, possible_cost=cost)
    assert RESULT.cost is None


@pytest.mark.parametrize("record", [WIRE, RESULT])
def test_the_example_records_set_every_field(record):
    left = {a.name for a in attrs.fields(type(record)) if getattr(record, a.name) in (a.default, None, (), {})}
    assert left <= {"call", "sign", "cost", "possible_cost", "errors", "files"}


@pytest.mark.parametrize(
    ("base_url", "own"),
    [("https://p.example", True), ("https://P.example:443/v1", True), ("http://127.0.0.1:8008", False)],
)
def test_only_the_vendors_own_host_has_the_vendors_limits(base_url: str, own: bool):
    assert PROVIDER.is_own_host(base_url) is own


def test_a_file_that_can_not_be_written_whole_is_not_left_behind(tmp_path, monkeypatch):
    """A full disk; the data are still there to be saved elsewhere. What stood there before is not taken away."""
    open_file = Path.open

    def full(path, mode):
        open_file(path, mode).close()
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


def test_costs_of_several_are_rounded_as_money_is_written():
    cost = Cost(usd=0.1, credits=0.7, as_of="2026-01-01")
    assert cost.times(3) == Cost(usd=0.3, credits=2.1, as_of="2026-01-01")
    assert cost.times(0) == Cost(usd=0, credits=0, as_of="2026-01-01")
    assert Cost(usd=0.1, as_of="2026-01-01").times(3) == Cost(usd=0.3, credits=None, as_of="2026-01-01")


def test_one_answer_with_several_artifacts_costs_each_of_them():
    two = attrs.evolve(RESULT, artifacts=RESULT.artifacts * 2)
    result = two.completed(Cost(usd=0.1, as_of="2026-01-01"), attrs.evolve(ASKED, warnings=("of the request",)))
    assert result.cost == Cost(usd=0.2, as_of="2026-01-01")
    assert result.warnings == (
        "of the request",
        "w",
        "the provider answered one request with 2 artifacts: all are counted",
    )
    assert two.completed(None, ASKED).cost is None


async def body_of(*chunks: bytes) -> Body:
    async def come() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return Body(come())


@pytest.mark.parametrize("chunks", [(), (b"whole",), (b"a", b"b", b"c")])
async def test_a_body_is_collected_and_held_once(chunks: tuple[bytes, ...]):
    body = await body_of(*chunks)
    whole = await body.collect()
    assert whole == b"".join(chunks) == body.received
    if len(chunks) == 1:
        assert whole is chunks[0], "a large answer is not copied"
    assert not body.is_spooled


def test_an_answers_type_and_id_whatever_their_spelling():
    answer = WireResponse(
        status=200, headers={"content-type": " Image/PNG ; charset=utf-8", "x-amzn-requestid": "a\nb"}
    )
    assert (answer.media_type, answer.request_id) == ("image/png", "a\\nb")
    both = WireResponse(status=200, headers={"x-request-id": "own", "x-amzn-requestid": "of AWS"})
    assert (both.media_type, both.request_id) == ("", "own")
    assert WireResponse(status=200, headers={"x-request-id": ""}).request_id is None
    assert WireResponse(status=200, headers={"date": "now", "x-acme-request-id": "r7"}).request_id == "r7"


@pytest.mark.parametrize("tokens", [-1, 10**30, True, 1.5, "7"])
def test_an_invalid_usage_of_a_plugin_loses_no_image_and_is_not_counted(tokens: object):
    usage = Usage(input_tokens=1, output_tokens=tokens)  # type: ignore[arg-type]  # a plugin's mistake
    image = Artifact(data=b"x", media_type="image/png")
    request = Request(operation="p/m", params=Cost(usd=0, as_of="2026-01-01"), target="/")
    result = Result(artifacts=(image,), usage=usage).completed(None, request)
    assert (result.artifacts, result.usage) == ((image,), None)
    assert result.warnings == ("the plugin reports an invalid usage, which is not counted",)


@pytest.mark.parametrize("name", ["x.jpg", "x.WEBP", "x.mp3"])
def test_a_name_that_shows_another_format_than_the_data_is_a_warning(tmp_path: Path, name: str) -> None:
    artifact = Artifact(data=png(8, 8), media_type="image/webp")  # the data decides, as everywhere
    with pytest.warns(UserWarning, match=f"'{name}' contains image/png data, which its name does not show") as caught:
        artifact.save(tmp_path / name)
    assert caught[0].filename == __file__
    assert (tmp_path / name).read_bytes() == png(8, 8)


@pytest.mark.parametrize("name", ["x.png", "x.PNG", "x", "x.bin", "x.png.part"])
def test_a_name_that_shows_no_other_format_is_no_warning(tmp_path: Path, name: str) -> None:
    Artifact(data=png(8, 8), media_type="image/png").save(tmp_path / name)
    Artifact(data=b"\xff\xd8\xff", media_type="image/jpeg").save(tmp_path / "x.jpeg")
