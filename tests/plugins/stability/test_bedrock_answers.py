"""What Bedrock may answer, and what comes of it: pictures, reasons, every code, answers that are not its own."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

import pytest

import impasto
from tests.bedrock import ACCESS_KEY, CODE_URL, KEYS, PICTURE, REQUEST_ID, SECRET_KEY, bedrock_json, failed, pictured
from tests.images import drawn
from tests.recorder import Answer, Recorder

MODEL = "bedrock/stability.stable-image-core-v1:1"
FAST = impasto.Retry(base=0.001, cap=0.002, max_wait=0.05)
B64 = base64.b64encode(PICTURE).decode()


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[impasto.Client]:
    async with impasto.Client(**KEYS, bedrock_endpoint=recorder.url, retry=FAST, timeout=5) as it:
        yield it


async def result(client: impasto.Client, recorder: Recorder, answer: Answer) -> impasto.Result:
    recorder.answer = lambda request: answer
    return await client.run(MODEL, prompt="p")


async def error(client: impasto.Client, recorder: Recorder, answer: Answer) -> impasto.ImpastoError:
    with pytest.raises(impasto.ImpastoError) as caught:
        await result(client, recorder, answer)
    assert caught.value.operation == MODEL
    assert SECRET_KEY not in str(caught.value)
    return caught.value


# pictures


async def test_an_image_has_its_seed_and_cost(client: impasto.Client, recorder: Recorder) -> None:
    outcome = await result(client, recorder, pictured(seed=2130420379))
    [artifact] = outcome.artifacts
    assert (artifact.data, artifact.media_type, artifact.seed) == (PICTURE, "image/png", 2130420379)
    assert artifact.finish_reason is None
    assert outcome.request_id == REQUEST_ID
    assert outcome.cost is not None
    assert (outcome.cost.usd, outcome.cost.credits, outcome.cost.as_of) == (0.04, None, "2026-11")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_every_format_is_delivered(client: impasto.Client, recorder: Recorder, kind: str) -> None:
    data = drawn(kind)
    [artifact] = (await result(client, recorder, pictured(data))).artifacts
    assert (artifact.data, artifact.media_type) == (data, f"image/{kind.lower()}")


@pytest.mark.parametrize(
    "body",
    [
        f'{{"images":["{B64}"],"finish_reasons":[null],"seeds":[7]}}',
        f'{{ "seeds" : [ 7 ] , "images" : [ "{B64}" ] , "finish_reasons" : [ null ] }}\n',
        f'{{"seeds":[7],"finish_reasons":[null],"images":["{B64}"],"more":{{"a":[1,"images"]}}}}',
        f'{{"seeds":["7"],"finish_reasons":[],"images":["{B64}"]}}',
    ],
    ids=["another order", "spaces", "more in it", "seed as text"],
)
async def test_spellings_of_one_answer_have_one_result(client: impasto.Client, recorder: Recorder, body: str) -> None:
    answer = Answer(headers={"content-type": "application/json"}, body=body.encode())
    [artifact] = (await result(client, recorder, answer)).artifacts
    assert (artifact.data, artifact.seed) == (PICTURE, 7)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"images":["{B64[:8]}\\n{B64[8:]}"],"seeds":[7]}}'.encode(),
        f'{{"images":["{B64[:8]}\\r\\n {B64[8:]}\\n"],"seeds":[7]}}'.encode(),
        f'{{"ima\\u0067es":["{B64}"],"seeds":[7]}}'.encode(),
        f'{{"of":{{"images":["QUJD"]}},"images":["{B64}"],"seeds":[7]}}'.encode(),
        f'{{"said":"\\"images\\":[\\"QUJD\\"]","images":["{B64}"],"seeds":[7],"é":"😀"}}'.encode(),
        f'{{"images":["{B64}"],"seeds":[7]}}'.encode("utf-16"),
    ],
    ids=["line break", "line breaks", "escaped name", "other images", "images in text", "utf-16"],
)
async def test_an_image_that_only_a_json_parser_finds_is_delivered(
    client: impasto.Client, recorder: Recorder, body: bytes
) -> None:
    answer = Answer(headers={"content-type": "application/json"}, body=body)
    [artifact] = (await result(client, recorder, answer)).artifacts
    assert (artifact.data, artifact.seed) == (PICTURE, 7)


async def test_all_images_of_an_answer_are_delivered(client: impasto.Client, recorder: Recorder) -> None:
    other = drawn("JPEG")
    images = [B64, base64.b64encode(other).decode()]
    outcome = await result(
        client, recorder, bedrock_json({"seeds": [7, 8], "finish_reasons": [None, None], "images": images})
    )
    assert [(each.data, each.seed) for each in outcome.artifacts] == [(PICTURE, 7), (other, 8)]
    assert outcome.errors == ()


@pytest.mark.parametrize(
    ("image", "reason", "kind"),
    [
        ("QU-JD", None, impasto.UnusableResult),
        ("QUJD", None, impasto.UnusableResult),
        (None, "Filter reason: output image", impasto.ContentFiltered),
        (None, "Inference error", impasto.ProviderFault),
        (None, None, None),
    ],
)
async def test_an_image_is_delivered_though_the_one_before_it_failed(
    client: impasto.Client, recorder: Recorder, image: object, reason: object, kind: object
) -> None:
    body = {"seeds": [7, 8], "finish_reasons": [reason, None], "images": [image, B64]}
    outcome = await result(client, recorder, bedrock_json(body))
    assert [(each.data, each.seed) for each in outcome.artifacts] == [(PICTURE, 8)]
    assert [(failure.index, type(failure.error)) for failure in outcome.errors] == ([(0, kind)] if kind else [])


async def test_escaped_slashes_are_decoded(client: impasto.Client, recorder: Recorder) -> None:
    data = drawn("JPEG")
    escaped = base64.b64encode(data).replace(b"/", b"\\/")
    assert escaped.startswith(b"\\/9j\\/")
    body = b'{"seeds":[7],"finish_reasons":[null],"images":["' + escaped + b'"]}'
    [artifact] = (await result(client, recorder, Answer(headers=pictured().headers, body=body))).artifacts
    assert (artifact.data, artifact.seed) == (data, 7)


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", ""])
async def test_an_answer_is_read_with_or_without_a_type(client: impasto.Client, recorder: Recorder, kind: str) -> None:
    answer = Answer(headers={"content-type": kind}, body=pictured().body)
    assert (await result(client, recorder, answer)).artifacts[0].data == PICTURE


@pytest.mark.parametrize("seed", [None, True, 1.5, {}, "x", 10**30])
async def test_an_image_with_an_invalid_seed_is_delivered_too(
    client: impasto.Client, recorder: Recorder, seed: object
) -> None:
    body = bedrock_json({"seeds": [seed], "finish_reasons": [None], "images": [B64]})
    [artifact] = (await result(client, recorder, body)).artifacts
    assert artifact.data == PICTURE
    assert artifact.seed is None or type(artifact.seed) is int


async def test_an_image_beside_an_unknown_reason_is_delivered(client: impasto.Client, recorder: Recorder) -> None:
    body = bedrock_json({"seeds": [7], "finish_reasons": ["SUCCESS\r\n"], "images": [B64]})
    [artifact] = (await result(client, recorder, body)).artifacts
    assert (artifact.data, artifact.finish_reason) == (PICTURE, "SUCCESS\\r\\n")


# reasons


@pytest.mark.parametrize("what", ["prompt", "input image", "output image"])
async def test_a_filtered_answer_is_an_error(client: impasto.Client, recorder: Recorder, what: str) -> None:
    caught = await error(client, recorder, bedrock_json({"finish_reasons": [f"Filter reason: {what}"]}))
    assert type(caught) is impasto.ContentFiltered
    assert (caught.billed, caught.retryable, caught.status) == ("unknown", False, 200)
    assert caught.name == f"Filter reason: {what}"
    assert (caught.artifacts, caught.request_id) == ((), REQUEST_ID)
    assert len(recorder.requests) == 1


async def test_the_error_of_a_filtered_answer_has_its_image(client: impasto.Client, recorder: Recorder) -> None:
    body = {"seeds": [7], "finish_reasons": ["Filter reason: output image"], "images": [B64]}
    caught = await error(client, recorder, bedrock_json(body))
    assert isinstance(caught, impasto.ContentFiltered)
    assert [artifact.data for artifact in caught.artifacts] == [PICTURE]


@pytest.mark.parametrize("reason", ["Inference error", "something new"])
async def test_an_inference_error_may_have_been_charged(
    client: impasto.Client, recorder: Recorder, reason: str
) -> None:
    for body in ({"finish_reasons": [reason]}, {"seeds": [1], "finish_reasons": [reason], "images": []}):
        recorder.requests.clear()
        caught = await error(client, recorder, bedrock_json(body))
        assert type(caught) is impasto.ProviderFault
        assert (caught.billed, caught.retryable, caught.name) == ("unknown", False, reason)
        assert len(recorder.requests) == 1


# charged, without an image


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "is empty"),
        (b"{not json", "is invalid JSON"),
        (b"[]", "not an object"),
        (b"{}", "has no image"),
        (b'{"images":[]}', "has no image"),
        (b'{"images":[null],"seeds":[1],"finish_reasons":[null]}', "has no image"),
        (b'{"images":[""]}', "has no image"),
        (b'{"images":"QUJD"}', "has no image"),
        (b'{"images":["QUJD="]}', "has no valid image"),
        (b'{"images":["QU=JD"]}', "invalid base64"),
        (b'{"images":["data:image/png;base64,QU!D"]}', "invalid base64"),
        (b'{"images":["QUJDQ"]}', "invalid base64"),
        (b'{"images":["QU-JD"]}', "invalid base64"),
        (b'{"images":["QUJD"]}', "has no valid image"),
        (b'{"images":["' + B64.encode(), "invalid JSON"),
        (b'{"images":["' + base64.b64encode(PICTURE[:-12]) + b'"]}', "incomplete image"),
        (b'{"images":["' + base64.b64encode(b"GIF89a" + bytes(20)) + b'"]}', "has no valid image"),
        (b"[" * 100_000, "is invalid JSON"),
    ],
)
async def test_a_complete_answer_without_a_usable_image_is_an_error_with_its_bytes(
    client: impasto.Client, recorder: Recorder, body: bytes, message: str
) -> None:
    caught = await error(client, recorder, Answer(headers={"content-type": "application/json"}, body=body))
    assert type(caught) is impasto.UnusableResult
    assert message in caught.message
    assert (caught.billed, caught.raw) == ("yes", body)
    assert len(recorder.requests) == 1


async def test_a_200_without_type_and_body_is_unusable(client: impasto.Client, recorder: Recorder) -> None:
    caught = await error(client, recorder, Answer(headers={"content-type": ""}))
    assert type(caught) is impasto.UnusableResult


# refusals

REFUSALS = [
    ("ValidationException", 400, impasto.BadRequest),
    ("ServiceQuotaExceededException", 400, impasto.PermissionDenied),
    ("IncompleteSignature", 400, impasto.Unauthorized),
    ("RequestExpired", 400, impasto.Unauthorized),
    ("ConflictException", 400, impasto.BadRequest),
    ("AccessDeniedException", 403, impasto.PermissionDenied),
    ("ExpiredTokenException", 403, impasto.Unauthorized),
    ("InvalidClientTokenId", 403, impasto.Unauthorized),
    ("InvalidSignatureException", 403, impasto.Unauthorized),
    ("MissingAuthenticationTokenException", 403, impasto.Unauthorized),
    ("UnrecognizedClientException", 403, impasto.Unauthorized),
    ("SubscriptionRequiredException", 403, impasto.PermissionDenied),
    ("ResourceNotFoundException", 404, impasto.NotFound),
    ("UnknownOperationException", 404, impasto.NotFound),
    ("RequestEntityTooLargeException", 413, impasto.TooLarge),
]
RETRIED = [
    ("InternalServerException", 500, impasto.ProviderFault),
    ("ServiceUnavailableException", 503, impasto.ProviderFault),
]
UNKNOWN = [
    ("ModelTimeoutException", 408),
    ("ModelErrorException", 424),
    ("ModelStreamErrorException", 424),
    ("NewThrottle", 429),
    ("NewFault", 500),
    ("overloaded_error", 529),
]


@pytest.mark.parametrize(("code", "status", "kind"), REFUSALS, ids=str)
async def test_a_refusal_is_final_and_free(
    client: impasto.Client, recorder: Recorder, code: str, status: int, kind: type[impasto.ResponseError]
) -> None:
    caught = await error(client, recorder, failed(code, status, "because"))
    assert type(caught) is kind
    assert (caught.billed, caught.retryable) == ("no", False)
    assert (caught.status, caught.name, caught.request_id) == (status, code, REQUEST_ID)
    assert f"{code} (HTTP {status}): " in caught.message
    assert len(recorder.requests) == 1


@pytest.mark.parametrize(("code", "status", "kind"), RETRIED, ids=str)
async def test_a_fault_with_its_code_is_sent_three_times(
    client: impasto.Client, recorder: Recorder, code: str, status: int, kind: type[impasto.ResponseError]
) -> None:
    caught = await error(client, recorder, failed(code, status))
    assert type(caught) is kind
    assert (caught.billed, caught.retryable) == ("no", True)
    assert len(recorder.requests) == 3


async def test_a_throttle_waits_for_its_retry_after(client: impasto.Client, recorder: Recorder) -> None:
    caught = await error(client, recorder, failed("ThrottlingException", 429, "slow down", **{"retry-after": "60"}))
    assert type(caught) is impasto.RateLimited
    assert (caught.billed, caught.retry_after, caught.messages) == ("no", 60.0, ("slow down",))
    assert len(recorder.requests) == 4  # the test's policy waits 0.05 s in place of 60


@pytest.mark.parametrize("code", ["ThrottlingException", "ModelNotReadyException", "TooManyRequestsException"])
async def test_a_throttle_is_free_and_each_attempt_backs_off(
    client: impasto.Client, recorder: Recorder, code: str
) -> None:
    caught = await error(client, recorder, failed(code, 429))
    assert type(caught) is impasto.RateLimited
    assert (caught.billed, caught.retryable, caught.retry_after, caught.per_model) == ("no", True, None, True)
    assert len(recorder.requests) == 4


@pytest.mark.parametrize(("code", "status"), UNKNOWN)
async def test_an_unclear_code_may_have_been_charged(
    client: impasto.Client, recorder: Recorder, code: str, status: int
) -> None:
    caught = await error(client, recorder, failed(code, status))
    assert type(caught) is impasto.ChargeUnknown
    assert f"HTTP {status} ({code})" in caught.message
    assert (caught.billed, caught.status, caught.request_id) == ("unknown", status, REQUEST_ID)
    assert json.loads(caught.raw) == {"message": "no"}
    assert len(recorder.requests) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 408, 424, 429, 500, 502, 503, 504, 520, 529])
@pytest.mark.parametrize("form", ["json without a code", "html", "code but no json", "html and a code"])
async def test_a_status_without_a_code_may_have_been_charged(
    client: impasto.Client, recorder: Recorder, status: int, form: str
) -> None:
    with_code = {"x-amzn-errortype": f"InternalServerException:{CODE_URL}"}
    page = Answer(status=status, headers={"content-type": "text/html"}, body=b"<h1>secret page</h1>")
    answer = {
        "json without a code": bedrock_json({"message": "no"}, status),
        "html": page,
        "code but no json": Answer(status=status, headers={"content-type": "application/json", **with_code}, body=b"{"),
        "html and a code": Answer(status=status, headers={**page.headers, **with_code}, body=page.body),
    }[form]
    caught = await error(client, recorder, answer)
    assert type(caught) is impasto.ChargeUnknown
    assert "secret page" not in str(caught)
    assert (caught.raw, caught.retryable) == (answer.body, False)
    assert len(recorder.requests) == 1


@pytest.mark.parametrize("status", [204, 301, 302, 307])
async def test_other_statuses_may_have_been_charged(client: impasto.Client, recorder: Recorder, status: int) -> None:
    answer = Answer(status=status, headers={"location": recorder.url + "/elsewhere"})
    assert type(await error(client, recorder, answer)) is impasto.ChargeUnknown
    assert len(recorder.requests) == 1


async def test_a_200_with_html_may_have_been_charged(client: impasto.Client, recorder: Recorder) -> None:
    answer = Answer(headers={"content-type": "text/html"}, body=b"<html>")
    assert type(await error(client, recorder, answer)) is impasto.ChargeUnknown


# messages


async def test_a_message_that_is_json_itself_is_unwrapped(client: impasto.Client, recorder: Recorder) -> None:
    message = "Invalid field 'text_prompts' in request. Available fields for control-sketch are: image, prompt"
    caught = await error(client, recorder, failed("ValidationException", 400, json.dumps({"detail": message})))
    assert isinstance(caught, impasto.BadRequest)
    assert caught.messages == (message,)
    assert caught.message.endswith(message)


@pytest.mark.parametrize(
    "message",
    ['{"detail":["a"]}', "[1]", "7", '"x"', "{", "", "line\r\nbreak \x1b[31m \u202e", "x" * 5_000, "[" * 100_000],
)
async def test_odd_messages_are_made_safe(client: impasto.Client, recorder: Recorder, message: str) -> None:
    caught = await error(client, recorder, failed("ValidationException", 400, message))
    assert type(caught) is impasto.BadRequest
    assert caught.message.isprintable()
    assert len(caught.message) < 700


@pytest.mark.parametrize("body", [{"Message": "told"}, {"message": "told", "more": 1}])
async def test_both_spellings_of_message_are_read(client: impasto.Client, recorder: Recorder, body: object) -> None:
    answer = bedrock_json(body, 400, **{"x-amzn-errortype": "ValidationException"})
    assert "told" in (await error(client, recorder, answer)).message


async def test_credentials_that_aws_repeats_are_not_shown(client: impasto.Client, recorder: Recorder) -> None:
    message = f"The canonical string should have been x-amz-security-token:T0KEN {SECRET_KEY} {ACCESS_KEY}"
    for code in ("InvalidSignatureException", "IncompleteSignature", "UnrecognizedClientException"):
        caught = await error(client, recorder, failed(code, 403, message))
        assert isinstance(caught, impasto.Unauthorized)
        for secret in ("T0KEN", SECRET_KEY, ACCESS_KEY):
            assert secret not in f"{caught!r} {caught} {caught.messages}"
    caught = await error(client, recorder, failed("ValidationException", 400, message))
    assert SECRET_KEY not in str(caught)
    assert ACCESS_KEY not in str(caught)


async def test_a_job_can_not_be_resumed(client: impasto.Client, recorder: Recorder) -> None:
    with pytest.raises(impasto.InvalidRequest, match="Bedrock answers at once"):
        await client.resume(MODEL, "a1" * 32)
    assert recorder.requests == []
