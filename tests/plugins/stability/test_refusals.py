"""Proof that nothing was charged: only the vendor's own form of a refusal is one, and any proxy's JSON is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

import impasto
from impasto_plugins.bedrock import refusals as bedrock
from impasto_plugins.stability import refusals as direct
from tests.bedrock import KEYS
from tests.recorder import Answer, Recorder

CORE = "stability/stable-image-core"
ON_BEDROCK = "bedrock/stability.stable-image-core-v1:1"
ONCE = impasto.Retry(refused=0, attempts=1)
REFUSALS: list[object] = [
    {"id": "e", "name": "internal_error", "errors": ["busy"]},
    {"id": "e", "name": "internal_error", "errors": []},
    {"id": "e", "name": "internal_error", "message": "busy"},
]
NO_PROOF: dict[str, object] = {
    "no id": {"name": "internal_error", "errors": ["busy"]},
    "no id, of version 1": {"name": "internal_error", "message": "busy"},
    "an id that is no text": {"id": 7, "name": "internal_error", "errors": ["busy"]},
    "an id that is null": {"id": None, "name": "internal_error", "message": "busy"},
    "no name": {"id": "e", "errors": ["busy"]},
    "a name that is no text": {"id": "e", "name": ["internal_error"], "errors": ["busy"]},
    "neither errors nor a message": {"id": "e", "name": "internal_error"},
    "errors that are no list": {"id": "e", "name": "internal_error", "errors": "busy"},
    "a message that is no text": {"id": "e", "name": "internal_error", "message": ["busy"]},
    "a list": [{"id": "e", "name": "internal_error", "errors": ["busy"]}],
    "a proxy's": {"error": {"message": "upstream timed out", "code": 500}},
    "text": "internal_error",
    "nothing": {},
}


async def raised(recorder: Recorder, answer: Answer, model: str = CORE) -> impasto.ImpastoError:
    recorder.answer = lambda _: answer
    settings: dict[str, Any] = (
        KEYS | {"bedrock_endpoint": recorder.url} if model == ON_BEDROCK else {"api_base": recorder.url}
    )
    async with impasto.Client(api_key="k" * 20, retry=ONCE, **settings) as client:
        with pytest.raises(impasto.ImpastoError) as caught:
            await client.run(model, prompt="p")
    assert len(recorder.requests) == 1
    return caught.value


def in_json(body: object, status: int, **headers: str) -> Answer:
    kind = {"content-type": "application/json"}
    return Answer(status=status, headers={**kind, **headers}, body=json.dumps(body).encode())


@pytest.mark.parametrize("body", REFUSALS, ids=["version 2", "without reasons", "version 1"])
@pytest.mark.parametrize("status", [400, 402, 429, 500, 503])
async def test_the_vendors_own_form_proves_that_nothing_was_charged(
    recorder: Recorder, status: int, body: object
) -> None:
    error = await raised(recorder, in_json(body, status))
    assert isinstance(error, impasto.ResponseError)
    assert error.billed == "no"


@pytest.mark.parametrize("status", [400, 429, 500, 503])
@pytest.mark.parametrize("body", NO_PROOF.values(), ids=NO_PROOF)
async def test_any_other_form_proves_nothing(recorder: Recorder, status: int, body: object) -> None:
    error = await raised(recorder, in_json(body, status))
    assert type(error) is impasto.ChargeUnknown
    assert (error.billed, error.retryable, json.loads(error.raw)) == ("unknown", False, body)


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/problem+json", ""])
async def test_the_vendors_form_with_another_media_type_proves_nothing(recorder: Recorder, kind: str) -> None:
    answer = Answer(status=500, headers={"content-type": kind}, body=json.dumps(REFUSALS[0]).encode())
    assert type(await raised(recorder, answer)) is impasto.ChargeUnknown


CODE = {"x-amzn-errortype": "InternalServerException:http://internal.amazon.com/"}


@pytest.mark.parametrize("body", [{"message": "busy"}, {"Message": "busy"}, {}])
async def test_bedrocks_code_with_json_proves_that_nothing_was_charged(recorder: Recorder, body: object) -> None:
    assert (await raised(recorder, in_json(body, 500, **CODE), ON_BEDROCK)).billed == "no"


NAMES = ["{}", "com.amazonaws.bedrockruntime#{}", "aws.bedrock#{}:http://internal.amazon.com/", " {} "]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["header", "__type", "code", "Code", "both"])
@pytest.mark.parametrize("status", [400, 429, 503])
async def test_bedrocks_code_is_read_in_every_place_where_aws_puts_it(
    recorder: Recorder, place: str, name: str, status: int
) -> None:
    """As every AWS SDK reads it (Smithy, restJson1): a throttle is one, whatever its status."""
    code = name.format("ThrottlingException")
    header = {"x-amzn-errortype": code} if place in ("header", "both") else {}
    body = {"message": "busy"} | ({} if place == "header" else {"__type" if place == "both" else place: code})
    error = await raised(recorder, in_json(body, status, **header), ON_BEDROCK)
    assert type(error) is impasto.RateLimited
    assert (error.billed, error.name, error.per_model) == ("no", "ThrottlingException", True)


@pytest.mark.parametrize(
    "answer",
    [
        in_json({"message": "busy", "code": "rate_limited"}, 429),
        in_json({"message": "busy", "__type": "GatewayTimeout"}, 504),
        in_json({"message": "busy", "code": 429}, 429),
        in_json({"message": "busy"}, 500),
        in_json({"message": "busy"}, 500, **{"x-amzn-errortype": ""}),
        in_json({"message": "busy"}, 500, **{"x-amzn-errortype": "Proxy"}),
        in_json({"message": "busy"}, 504, **{"x-amzn-errortype": "GatewayTimeout"}),
        in_json(["busy"], 500, **CODE),
        in_json({"message": 7}, 500, **CODE),
        Answer(status=500, headers=CODE, body=b"<html>"),
        Answer(status=500, headers=CODE, body=b""),
    ],
    ids=[
        "a proxy's code",
        "a gateway's type",
        "a number",
        "no code",
        "empty code",
        "another's code",
        "a gateway's",
        "a list",
        "no text",
        "a page",
        "nothing",
    ],
)
async def test_bedrocks_code_or_json_alone_proves_nothing(recorder: Recorder, answer: Answer) -> None:
    error = await raised(recorder, answer, ON_BEDROCK)
    assert type(error) is impasto.ChargeUnknown
    assert error.billed == "unknown"


def response(body: object, status: int, **headers: str) -> impasto.WireResponse:
    kind = {"content-type": "application/json"}
    return impasto.WireResponse(status=status, headers={**kind, **headers}, body=json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, impasto.BadRequest, "no reason given"),
        (401, impasto.Unauthorized, "STABILITY_API_KEY"),
        (402, impasto.PaymentRequired, "too few credits"),
        (403, impasto.PermissionDenied, "no reason given"),
        (404, impasto.NotFound, "no reason given"),
        (413, impasto.TooLarge, "no reason given"),
        (422, impasto.Unprocessable, "no reason given"),
        (429, impasto.RateLimited, "150 in 10 seconds"),
        (500, impasto.ProviderFault, "no reason given"),
        (503, impasto.ProviderFault, "no reason given"),
    ],
)
def test_each_status_of_the_vendor_has_its_error(status: int, kind: type[impasto.ImpastoError], words: str) -> None:
    error = direct.refusal(response({"id": "e", "name": "n", "errors": []}, status))
    assert error is not None
    assert type(error) is kind
    assert error.billed == "no"
    assert words in error.message


def test_no_other_status_is_a_refusal_of_the_vendor() -> None:
    for status in (200, 408, 423, 430, 501, 504):
        assert direct.refusal(response({"id": "e", "name": "n", "errors": []}, status)) is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, impasto.BadRequest),
        (401, impasto.Unauthorized),
        (403, impasto.PermissionDenied),
        (404, impasto.NotFound),
        (413, impasto.TooLarge),
        (200, impasto.ChargeUnknown),
        (408, impasto.ChargeUnknown),
        (424, impasto.ChargeUnknown),
        (429, impasto.ChargeUnknown),
        (500, impasto.ChargeUnknown),
    ],
)
def test_a_code_of_aws_that_is_not_known_proves_as_much_as_its_status(
    status: int, kind: type[impasto.ImpastoError]
) -> None:
    error = bedrock.refusal(response({"message": "m"}, status, **{"x-amzn-errortype": "NewException"}))
    assert type(error) is kind
    assert f"NewException (HTTP {status})" in error.message or f"HTTP {status} (NewException)" in error.message


def test_a_code_of_aws_with_an_image_is_not_a_refusal() -> None:
    answer = response({"message": "m"}, 200, **{"x-amzn-errortype": "ThrottlingException"})
    assert type(bedrock.refusal(answer)) is impasto.ChargeUnknown


@pytest.mark.parametrize(("kind", "words"), [("text/html", "text/html"), ("", "no media type")])
async def test_an_answer_of_somebody_else_is_named_by_its_media_type(recorder: Recorder, kind: str, words: str) -> None:
    error = await raised(recorder, Answer(status=502, headers={"content-type": kind}, body=b"<html>"))
    assert f"HTTP 502 ({words})" in error.message
