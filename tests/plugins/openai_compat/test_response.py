"""What the functions answer: OpenAI's shape, with what the provider told besides."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

import impasto
from impasto_plugins.openai_compat.response import ImagesResponse
from tests.images import drawn
from tests.recorder import Answer, ReceivedRequest, Recorder, in_json, picture


async def test_the_answer_has_openais_shape_and_more(wire: Recorder) -> None:
    before = int(time.time())
    response = await impasto.aimage_generation("a", "stability/sd3", size="1000x1001")
    assert before <= response.created <= time.time()
    [image] = response.data
    sent = picture().body
    assert (image.b64_json, image.url, image.revised_prompt) == (base64.b64encode(sent).decode(), None, None)
    assert (image.seed, image.finish_reason) == (7, "SUCCESS")
    assert response["data"][0]["b64_json"] == image.b64_json
    assert response["data"][0]["seed"] == 7
    assert response["created"] == response.created
    assert response.usage.total_tokens == 0
    assert response.cost is not None
    assert response.cost.credits == 6.5
    assert len(response.warnings) == 1
    assert "data" in response
    assert "nonsense" not in response
    with pytest.raises(KeyError):
        response["nonsense"]
    response["created"] = 7
    assert response.created == response["created"] == 7
    with pytest.raises(KeyError):
        response["nonsense"] = 7


async def test_model_dump_is_json_and_leaves_null_keys_out_if_asked_to(wire: Recorder) -> None:
    response = await impasto.aimage_generation("a", "stability/sd3")
    assert response.data[0].model_dump()["url"] is None
    dumped = json.loads(json.dumps(response.model_dump(exclude_none=True)))
    assert dumped.pop("data") == [{"b64_json": response.data[0].b64_json, "seed": 7, "finish_reason": "SUCCESS"}]
    assert dumped == {
        "created": response.created,
        "usage": {
            "input_tokens": 0,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
            "output_tokens": 0,
            "total_tokens": 0,
        },
        "cost": {"usd": 0.065, "credits": 6.5, "as_of": response.cost and response.cost.as_of},
        "warnings": [],
        "errors": [],
    }


async def test_url_is_a_data_uri(wire: Recorder) -> None:
    response = await impasto.aimage_generation("a", "stability/sd3", response_format="url")
    [image] = response.data
    assert image.b64_json is None
    assert image.url == "data:image/png;base64," + base64.b64encode(picture().body).decode()
    assert response.model_dump(exclude_none=True)["data"] == [{"url": image.url, "seed": 7, "finish_reason": "SUCCESS"}]


async def test_repr_is_short_and_holds_no_picture(wire: Recorder) -> None:
    large = drawn("PNG", size=(640, 640))
    wire.answer = lambda _: picture(large)
    response = await impasto.aimage_generation("a", "stability/sd3", n=10)
    assert len(repr(response)) < 900
    assert base64.b64encode(large).decode()[:40] not in repr(response)
    assert "image/png" in str(response)


# n


def failing(*calls: int) -> Callable[[ReceivedRequest], Answer | None]:
    """Refuses the calls of these seeds."""

    def answer(request: ReceivedRequest) -> Answer | None:
        if int(request.fields["seed"]) in calls:
            return in_json({"id": "1", "name": "content_moderation", "errors": ["flagged"]}, status=403)
        return picture(seed=int(request.fields["seed"]))

    return answer


async def test_pictures_that_came_are_kept_beside_the_errors_of_others(wire: Recorder) -> None:
    wire.answer = failing(2)
    response = await impasto.aimage_generation("a", "stability/sd3", n=3, seed=1)
    assert [image.seed for image in response.data] == [1, 3]
    [failure] = response.errors
    assert failure.index == 1
    assert isinstance(failure.error, impasto.ContentFiltered)
    dumped = json.loads(json.dumps(response.model_dump()))
    assert (dumped["errors"][0]["index"], dumped["errors"][0]["type"]) == (1, "ContentFiltered")
    assert "ContentFiltered" in repr(response)


async def test_all_failing_raises_the_first_with_the_others(wire: Recorder) -> None:
    wire.answer = failing(1, 2, 3)
    with pytest.raises(impasto.ContentFiltered) as caught:
        await impasto.aimage_generation("a", "stability/sd3", n=3, seed=1)
    assert len(caught.value.errors) == 2


def test_types(wire: Recorder) -> None:
    response: ImagesResponse = impasto.image_generation("a", "stability/sd3")
    text: str | None = response["data"][0]["b64_json"]
    assert text


def response_with(*warnings: str, **values: Any) -> ImagesResponse:
    image = impasto.Artifact(data=b"made", media_type="image/png", seed=5)
    return ImagesResponse(impasto.Result(artifacts=(image,), **values), "b64_json", warnings)


def test_json_text_is_compact_or_indented_and_keeps_its_letters() -> None:
    response = response_with("caf\u00e9")
    assert '"warnings":["caf\u00e9"]' in response.model_dump_json()
    assert '\n  "warnings": [\n    "caf\u00e9"\n  ]' in response.to_json()
    assert response.to_json() == response.model_dump_json(indent=2)
    assert response.to_json(indent=None) == response.model_dump_json()


def test_each_of_pydantics_words_leaves_none_out() -> None:
    response = response_with()
    whole, short = response.model_dump(), response.model_dump(exclude_none=True)
    assert whole["cost"] is None
    assert "cost" not in short
    assert response.model_dump(exclude_unset=True) == response.model_dump(exclude_defaults=True) == short
    assert response.model_dump(exclude_none=False) == whole
    assert response.model_dump(include={"cost"}) == {"cost": None}
    assert response.model_dump(include={"cost"}, exclude_none=True) == {}
    assert response.model_dump(include={"cost", "data"}, exclude={"data"}) == {"cost": None}


def test_parts_are_equal_by_what_they_hold() -> None:
    cost = impasto.Cost(usd=0.1, as_of="2026-01-01")
    one, other = response_with(cost=cost), response_with(cost=cost)
    other.created = one.created
    assert one == other
    assert one != response_with("a warning", cost=cost)
    assert one.cost == cost
    assert one.cost != impasto.Cost(usd=0.2, as_of="2026-01-01")
    assert one.cost != object()
    assert one.data[0] != one.usage
    for part in (one, one.data[0], one.usage, one.cost):
        with pytest.raises(TypeError, match="unhashable"):
            hash(part)


def test_the_cost_of_a_call_stands_beside_it() -> None:
    assert response_with().hidden_params == {"response_cost": None}
    assert response_with(cost=impasto.Cost(usd=0.1, as_of="")).hidden_params == {"response_cost": 0.1}


def test_an_image_that_did_not_come_names_the_job_that_runs_on() -> None:
    failures: list[impasto.FailedArtifact] = []
    for id in ("job-1", None):
        error = impasto.ChargeUnknown("no")
        error.id = id
        failures.append(impasto.FailedArtifact(index=len(failures), error=error))
    response = response_with(errors=tuple(failures))
    dumped = response.model_dump()["errors"]
    assert dumped == [
        {"index": 0, "type": "ChargeUnknown", "message": "no", "billed": "unknown", "id": "job-1"},
        {"index": 1, "type": "ChargeUnknown", "message": "no", "billed": "unknown", "id": None},
    ]
    assert response.errors[0].index == 0


def test_a_copy_is_deep_only_if_that_is_asked_for() -> None:
    response = response_with("w")
    assert response.model_copy().warnings is response.warnings
    assert response.model_copy(deep=True).warnings is not response.warnings
    assert response.model_copy(deep=True).warnings == ["w"]
