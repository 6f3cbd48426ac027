"""Code written for LiteLLM: responses encode as its own do, and its arguments have their meaning or are refused."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from pathlib import PurePath
from typing import Any

import pytest
from pydantic import TypeAdapter

import impasto
from impasto import InvalidRequest
from tests.recorder import Answer, ReceivedRequest, Recorder, in_json, picture

MODEL = "stability/sd3"


def encoded(value: object) -> Any:
    """Encode as FastAPI's ``jsonable_encoder`` does: plain values, containers, ``dict(value)``, ``vars(value)``."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        return {encoded(key): encoded(each) for key, each in value.items()}
    if isinstance(value, list | set | frozenset | tuple):
        return [encoded(each) for each in value]
    try:
        data = dict(value)  # type: ignore[call-overload]  # what the encoder tries
    except Exception:  # noqa: BLE001 - so does the encoder
        data = vars(value)
    return encoded(data)


async def test_a_response_can_be_returned_from_an_endpoint(wire: Recorder) -> None:
    response = await impasto.aimage_generation("a", MODEL)
    body = json.loads(json.dumps(encoded(response)))
    assert body == response.model_dump()
    assert body["data"][0]["b64_json"] == response.data[0].b64_json
    assert body["cost"]["usd"] == 0.065
    assert encoded({"images": response.data})["images"] == body["data"]


@pytest.mark.parametrize("declared", [Any, dict, dict[str, Any]], ids=["Any", "dict", "dict of anything"])
async def test_an_endpoint_may_declare_what_it_returns(wire: Recorder, declared: Any) -> None:
    """FastAPI validates an answer against the declared type and encodes it, both with pydantic."""
    response = await impasto.aimage_generation("a lighthouse", "stability/sd3", n=2)
    adapter: TypeAdapter[Any] = TypeAdapter(declared)
    encoded = json.loads(adapter.dump_json(adapter.validate_python(response)))
    assert encoded["data"][1]["b64_json"] == response.data[1].b64_json


async def test_images_that_did_not_come_encode_too(wire: Recorder) -> None:
    def answer(request: ReceivedRequest) -> Answer | None:
        if int(request.fields["seed"]) == 2:
            return in_json({"id": "1", "name": "content_moderation", "errors": ["flagged"]}, status=403)
        return picture(seed=int(request.fields["seed"]))

    wire.answer = answer
    response = await impasto.aimage_generation("a", MODEL, n=2, seed=1)
    (error,) = json.loads(json.dumps(encoded(response)))["errors"]
    assert (error["index"], error["type"], error["billed"]) == (1, "ContentFiltered", "no")
    assert isinstance(response.errors[0].error, impasto.ContentFiltered)


async def test_it_is_a_mapping_and_a_pydantic_model_at_once(wire: Recorder) -> None:
    response = await impasto.aimage_generation("a", MODEL, metadata={"team": "x"}, litellm_call_id="7")
    for part in (response, response.data[0], response.usage, response.usage.input_tokens_details):
        spread: dict[str, object] = {**part}
        assert dict(part) == spread == dict(part.items())
        assert [name for name, _ in part] == list(part.keys()) == list(part.model_dump())
        assert list(part.values()) == [part[name] for name in part.keys()]  # noqa: SIM118 - iteration yields pairs
        assert len(part) == len(part.keys())
        assert part.get("nope") is None
        assert part.get("nope", 5) == 5
        assert "nope" not in part
        assert part.json() == part.dict() == part.to_dict() == part.model_dump() == json.loads(part.model_dump_json())
        assert json.loads(part.to_json()) == part.model_dump()
        assert part.model_dump(mode="json") == part.model_dump()
        assert part == copy.deepcopy(part) == copy.copy(part) == part.model_copy() == part.model_copy(deep=True)
        assert part == pickle.loads(pickle.dumps(part))
        assert part != 5
    assert response.get("created") == response.created
    assert json.loads(json.dumps(response, default=dict)) == response.model_dump()
    assert response.model_dump(include={"created"}) == {"created": response.created}
    assert "data" not in response.model_dump(exclude={"data"})
    assert response.model_dump_json(exclude_none=True).startswith('{"created":')
    assert "url" not in response.data[0].model_dump(exclude_unset=True)
    assert response.size is response["quality"] is None
    with pytest.raises(ValueError, match="mode must be one of python, json"):
        response.model_dump(mode="xml")
    with pytest.raises(KeyError):
        response["nope"]
    assert response._hidden_params["response_cost"] == 0.065
    assert response.hidden_params == {
        "response_cost": 0.065,
        "model": MODEL,
        "custom_llm_provider": "stability",
        "metadata": {"team": "x"},
        "litellm_call_id": "7",
    }
    assert response.cost == impasto.Cost(usd=0.065, credits=6.5, as_of=response.cost.as_of if response.cost else "")


async def test_a_provider_may_be_named_apart(wire: Recorder) -> None:
    for model in ("sd3", "stability/sd3"):
        await impasto.aimage_generation("a", model, custom_llm_provider="stability")
    assert len(wire.requests) == 2
    with pytest.raises(InvalidRequest, match="custom_llm_provider: must be a provider's name, not 5"):
        await impasto.aimage_generation("a", MODEL, custom_llm_provider=5)


@pytest.mark.parametrize(("word", "times"), [("num_retries", 0), ("num_retries", 3), ("max_retries", 1)])
async def test_retries_are_as_many_as_asked_for_and_only_of_what_was_not_charged(
    wire: Recorder, word: str, times: int
) -> None:
    wire.answer = lambda _: in_json({"id": "1", "name": "internal_error", "errors": ["try again"]}, status=500)
    arguments: dict[str, Any] = {word: times}
    with pytest.raises(impasto.ProviderFault):
        await impasto.aimage_generation("a", MODEL, **arguments)
    assert len(wire.requests) == times + 1


async def test_no_number_of_retries_sends_again_what_may_have_been_charged(wire: Recorder) -> None:
    wire.answer = lambda _: Answer(status=502, body=b"no provider's own form")
    with pytest.raises(impasto.ChargeUnknown):
        await impasto.aimage_generation("a", MODEL, num_retries=5)
    assert len(wire.requests) == 1


async def test_parameters_to_drop_are_dropped_by_name_with_a_warning(wire: Recorder) -> None:
    response = await impasto.aimage_generation("a", MODEL, style="natural", additional_drop_params=["style", "cfg"])
    assert response.warnings == ["style was dropped: additional_drop_params names it"]


async def test_other_words_for_an_argument_are_taken(wire: Recorder, recorder: Recorder) -> None:
    await impasto.aimage_generation("a", MODEL, base_url=wire.url, request_timeout=30)
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_generation("a", MODEL, base_url=wire.url, api_base="http://127.0.0.1:9")
    assert "base_url: is another name for api_base" in str(caught.value)


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        ("extra_headers", {"x-a": "b"}, "headers can't be added"),
        ("headers", {"x-a": "b"}, "headers can't be added"),
        ("api_version", "2024-02-01", "is for Azure only"),
        ("organization", "org", "is for OpenAI only"),
        ("mock_response", "x", 'transport="emulator"'),
        ("fallbacks", ["a"], "one model"),
        ("caching", True, "use a caching middleware"),
        ("extra_query", {"a": "b"}, "no query"),
        ("num_retries", -1, "whole number from 0 to 20"),
        ("num_retries", True, "whole number from 0 to 20"),
        ("max_retries", "3", "whole number from 0 to 20"),
        ("additional_drop_params", "style", "must be a list of names"),
        ("aws_role_name", "x", "configure a role in the AWS profile"),
    ],
)
@pytest.mark.parametrize("drop_params", [None, True])
async def test_a_parameter_without_meaning_here_is_refused_by_name(
    wire: Recorder, word: str, value: object, message: str, *, drop_params: bool | None
) -> None:
    arguments: dict[str, Any] = {word: value}
    with pytest.raises(InvalidRequest) as caught:
        await impasto.aimage_generation("a", MODEL, drop_params=drop_params, **arguments)
    (problem,) = caught.value.problems
    assert problem.field == word
    assert message in problem.message
    assert wire.requests == []


@pytest.mark.parametrize(("word", "value"), [("extra_headers", {}), ("caching", False), ("api_version", None)])
async def test_a_parameter_that_asks_for_nothing_passes(wire: Recorder, word: str, value: object) -> None:
    arguments: dict[str, Any] = {word: value}
    await impasto.aimage_generation("a", MODEL, **arguments)
    assert len(wire.requests) == 1


def test_the_migration_page_lists_every_argument_that_is_refused() -> None:
    from pathlib import Path

    from impasto_plugins.openai_compat.call_options import REFUSED

    page = Path(__file__).parents[3] / "docs/migrate-from-litellm.md"
    text = page.read_text("utf-8")
    assert [name for name in REFUSED if f"`{name}`" not in text] == []


async def test_an_edit_without_an_image_paints_none_instead(wire: Recorder) -> None:
    with pytest.raises(InvalidRequest, match="image: required"):
        await impasto.aimage_edit(model=MODEL, prompt="a")
    with pytest.raises(InvalidRequest, match="image: required"):
        await asyncio.to_thread(impasto.image_edit, model=MODEL, prompt="a")
    assert wire.requests == []
