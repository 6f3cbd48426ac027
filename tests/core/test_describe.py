"""Describe and the records: everything is there, in JSON too, and no repr shows what it should not."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import attrs
import pytest

import impasto
from impasto import Artifact, Cost, InvalidRequest, Registry, Result
from impasto.describe import describe
from impasto.params import structure
from impasto.registry import OPERATIONS
from tests.images import png

NAMES = Registry().names(OPERATIONS)
SD3 = Registry().operation("stability/sd3")


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_every_model_is_described_and_goes_through_json(name: str) -> None:
    operation = Registry().operation(name)
    about = describe(name, operation)
    assert isinstance(about, impasto.Description)
    assert (about.model, about.title, about.provider) == (name, operation.title, name.partition("/")[0])
    assert [f.name for f in about.fields] == [a.name for a in attrs.fields(operation.params)]
    assert all(f.takes and f.type for f in about.fields)
    whole = attrs.asdict(about)
    assert json.loads(json.dumps(whole, allow_nan=False)) == json.loads(json.dumps(whole))
    assert len(about.rules) == len(operation.rules)


@pytest.mark.parametrize("name", NAMES)
def test_the_fields_described_as_required_are_those_an_empty_request_lacks(name: str) -> None:
    operation = Registry().operation(name)
    with pytest.raises(InvalidRequest) as caught:
        structure(operation.params, {})
    required = {f.name for f in describe(name, operation).fields if f.required}
    assert {p.field for p in caught.value.problems if p.message == "required"} == required != set()


def test_a_price_is_known_or_said_to_be_unknown() -> None:
    client = impasto.Client()
    about = client.describe("stability/sd3.5-flash")
    assert (about.credits, about.usd, about.price_as_of) == (2.5, 0.025, "2026-09-22")
    unpriced = attrs.evolve(SD3, price=None)
    assert (describe("x", unpriced).price, describe("x", unpriced).usd) == (None, None)


async def test_an_unknown_price_is_no_cost_and_never_zero(client: impasto.Client) -> None:
    client._shared.registry.add(OPERATIONS, "stability/unpriced", attrs.evolve(SD3, price=None))
    assert (await client.run("stability/unpriced", prompt="x")).cost is None
    assert (await client.run("stability/unpriced", n=2, prompt="x")).cost is None


def test_an_artifact_saves_and_shows_itself(tmp_path: Path) -> None:
    artifact = Artifact(data=png(64, 64), media_type="image/png", seed=7)
    assert artifact.save(tmp_path / "a.png").read_bytes() == png(64, 64)
    assert artifact.save(str(tmp_path / "b.png")) == tmp_path / "b.png"
    with pytest.raises(FileNotFoundError):
        artifact.save(tmp_path / "missing" / "a.png")
    assert base64.b64decode(artifact.b64_json) == png(64, 64)


def test_no_repr_shows_picture_data() -> None:
    artifact = Artifact(data=b"\xab" * 10**6, media_type="image/png")
    assert repr(artifact) == ("Artifact(data=<1000000 bytes>, media_type='image/png', seed=None, finish_reason=None)")
    assert len(repr(Result(artifacts=(artifact,) * 3))) < 500


def test_a_request_and_its_file_show_no_content() -> None:
    request = Registry().operation("stability/upscale-fast").request("m", {"image": png(64, 64)})
    assert "bytes" in repr(request)
    assert len(repr(request)) < 500
    assert "PNG" not in repr(request)


class QuoteAlone:
    def quote(self, params: attrs.AttrsInstance) -> Cost:
        return Cost(usd=0.02, as_of="2026-01-01")


def test_a_price_needs_its_quote_alone() -> None:
    operation = attrs.evolve(SD3, price=QuoteAlone())
    about = describe("x", operation)
    assert (about.price, about.usd) == ("a price that depends on the parameters", None)
    assert (operation.price_text, operation.flat_cost) == (about.price, None)


def test_costs_add_up() -> None:
    cost = Cost(usd=0.065, credits=6.5, as_of="2026-09-22").times(3)
    assert (cost.usd, cost.credits) == (0.195, 19.5)
    assert Cost(usd=0.07, as_of="2026-01-01").times(3) == Cost(usd=0.21, as_of="2026-01-01")


def test_a_flat_price_says_itself_and_is_the_same_for_every_call() -> None:
    price = impasto.FlatPrice(cost=Cost(usd=0.02, as_of="2026-01-01"), note="a guess")
    assert str(price) == "0.02 USD a call, as of 2026-01-01 (a guess)"
    assert price.quote(structure(SD3.params, {"prompt": "x"})) == price.cost
