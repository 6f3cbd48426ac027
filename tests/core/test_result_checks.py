"""A plugin's result with values of wrong types: it costs no paid image, and shows no key."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

import impasto
from impasto import (
    Artifact,
    ContentFiltered,
    FailedArtifact,
    Handler,
    Operation,
    Request,
    Result,
    UnusableResult,
    WireRequest,
    WireResponse,
)
from tests.reliability.hostile import IMAGE, KEY, MODEL, PICTURE, Dialect, attacked, event, operation
from tests.reliability.servers import http

DONE = http(200, event({}), content_type="text/event-stream")
ARTIFACT = Artifact(data=IMAGE, media_type="image/png")
EMPTY = Artifact(data=b"", media_type="image/png")


@attrs.frozen
class Returning(Dialect):
    """Returns a result, whatever the answer is."""

    result: Any

    def normalize_response(self, operation: Operation, request: Request, response: WireResponse) -> Any:
        return self.result

    def normalize_event(self, operation: Operation, request: Request, event: object) -> Any:
        return self.result


async def run(streams: bool, **result: Any) -> Result:
    model = operation(Returning(Result(**{"artifacts": (ARTIFACT,), **result})))
    async with attacked(DONE if streams else PICTURE, model=model) as (client, server):
        try:
            return await client.run(MODEL, prompt="a kite")
        finally:
            assert len(server.paid) == 1


@pytest.mark.parametrize("streams", [False, True], ids=["answer", "event"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_id", 7),
        ("request_id", b"r"),
        ("warnings", ["one"]),
        ("warnings", (1, None)),
        ("warnings", "one"),
        ("warnings", None),
        ("errors", [FailedArtifact(index=1, error=ContentFiltered("no"))]),
        ("errors", (ContentFiltered("no"),)),
        ("errors", (FailedArtifact(index="1", error=ContentFiltered("no")),)),  # type: ignore[arg-type]
        ("errors", (FailedArtifact(index=1, error=ValueError("no")),)),  # type: ignore[arg-type]
        ("errors", None),
        ("errors", 7),
        ("seed", "7"),
        ("seed", 7.0),
        ("finish_reason", 7),
        ("revised_prompt", ["a kite"]),
    ],
)
async def test_a_wrong_type_beside_a_paid_image_loses_no_image_and_is_named(
    name: str, value: object, streams: bool
) -> None:
    if name in ("seed", "finish_reason", "revised_prompt"):
        wrong: dict[str, Any] = {name: value}
        result = await run(streams, artifacts=(attrs.evolve(ARTIFACT, **wrong),))
    else:
        result = await run(streams, **{name: value})
    assert [each.data for each in result.artifacts] == [IMAGE]
    assert any(f"invalid {name}" in warning for warning in result.warnings)
    assert {type(each) for each in result.warnings} == {str}
    assert all(isinstance(each.error, impasto.ImpastoError) for each in result.errors)
    assert result.request_id is None
    [artifact] = result.artifacts
    assert (artifact.seed, artifact.finish_reason, artifact.revised_prompt) == (None, None, None)


@pytest.mark.parametrize("streams", [False, True], ids=["answer", "event"])
@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"artifacts": (), "errors": (ContentFiltered("no"),)}, "errors of the plugin's result must be a tuple"),
        ({"artifacts": (), "errors": ["no"]}, "errors of the plugin's result must be a tuple"),
        ({"artifacts": [ARTIFACT]}, "artifacts of the plugin's result must be a tuple"),
        ({"artifacts": (Artifact(data="text", media_type="image/png"),)}, "must have bytes or a File"),  # type: ignore[arg-type]
        ({"artifacts": (Artifact(file="x.png", media_type="image/png"),)}, "must have bytes or a File"),  # type: ignore[arg-type]
        ({"artifacts": (Artifact(data=IMAGE, media_type=None),)}, "must have bytes or a File"),  # type: ignore[arg-type]
        ({"artifacts": ()}, "contains no artifact, or an empty one"),
        ({"artifacts": (EMPTY,)}, "contains no artifact, or an empty one"),
        ({"artifacts": (EMPTY, ARTIFACT)}, "contains no artifact, or an empty one"),
        ({"artifacts": (ARTIFACT, EMPTY)}, "contains no artifact, or an empty one"),
    ],
)
async def test_a_result_without_a_usable_artifact_is_unusable_and_has_the_answer(
    result: dict[str, Any], problem: str, streams: bool
) -> None:
    with pytest.raises(UnusableResult, match=problem) as caught:
        await run(streams, **result)
    assert (caught.value.billed, caught.value.raw) == ("yes", event({}) if streams else IMAGE)


async def test_a_result_without_artifacts_is_unusable_even_if_nothing_was_sent() -> None:
    async def cache(wire: WireRequest, next: Handler) -> WireResponse:
        return WireResponse(status=200, headers={"content-type": "image/png"}, body=b"")

    model = operation(Returning(Result(artifacts=())))
    async with attacked(PICTURE, model=model, middleware=[cache]) as (client, server):
        with pytest.raises(UnusableResult, match="contains no artifact"):
            await client.run(MODEL, prompt="a kite")
        assert not server.paid


@pytest.mark.parametrize(
    "result",
    [
        {"request_id": f"to {KEY}"},
        {"artifacts": (attrs.evolve(ARTIFACT, finish_reason=f"to {KEY}"),)},
        {"artifacts": (attrs.evolve(ARTIFACT, revised_prompt=f"to {KEY}"),)},
    ],
    ids=["request_id", "finish_reason", "revised_prompt"],
)
async def test_a_single_text_of_a_result_does_not_show_the_key(result: dict[str, Any]) -> None:
    assert KEY[:12] not in repr(await run(False, **result))


async def test_no_text_of_a_result_shows_the_key() -> None:
    message = f"you sent {KEY}"
    failed = FailedArtifact(
        index=1, error=ContentFiltered(message, name=message, messages=(message,), request_id=message)
    )
    result = await run(
        False,
        artifacts=(attrs.evolve(ARTIFACT, finish_reason=message),),
        warnings=(message,),
        request_id=message,
        errors=(failed,),
    )
    assert KEY[:12] not in f"{result!r} {result.errors[0].error} {vars(result.errors[0].error)}"
    assert result.errors[0].error.operation == MODEL
