"""The emulator as Amazon Bedrock: what it takes and refuses in a body, what comes of it, and its errors on demand."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from impasto import Operation
from impasto_plugins.emulator import Emulator
from impasto_plugins.stability.guardrail import HEADERS
from tests.images import padded, png
from tests.plugins.emulator.conftest import Wire, open_image, started
from tests.plugins.stability.bedrock_cases import MODELS, OUTPAINT, SD35, request
from tests.plugins.stability.cases import outside

from .bedrock_wire import CORE, REMOVE, SKETCH, body_of, boto, code, detail, emulator, invoke, refused, shared

__all__ = ["boto", "emulator", "shared"]

# bodies


async def test_the_refusals_of_unknown_fields_are_those_of_the_contract(wire: Wire) -> None:
    answer = await invoke(wire, SKETCH, {"text_prompts": []})
    assert detail(answer) == (
        "Invalid field 'text_prompts' in request. Available fields for control-sketch are: "
        "image, prompt, control_strength, negative_prompt, seed, output_format, style_preset"
    )
    assert answer[1]["content-length"] == "196"
    message = detail(await invoke(wire, REMOVE, {"prompt": "p"}))
    assert message == "Invalid field 'prompt' in request. Available fields for remove-bg are: image, output_format"
    message = detail(await invoke(wire, "stability.stable-image-ultra-v1:0", {"prompt": "p", "max_tokens": 1}))
    assert message == (
        "Invalid field in request. Available fields: "
        "['prompt', 'negative_prompt', 'mode', 'strength', 'seed', 'output_format', 'image', 'aspect_ratio']"
    )


@pytest.mark.parametrize("operation", MODELS.values(), ids=MODELS)
async def test_the_refusal_of_an_unknown_field_lists_the_known_ones(wire: Wire, operation: Operation) -> None:
    listed = detail(await invoke(wire, operation.target, {"cfg_scale": 7})).rpartition(": ")[2]
    names = [name.strip("[' ]") for name in listed.split(",")]
    assert sorted(names) == sorted(set(operation.fields) - set(HEADERS))


@pytest.mark.parametrize("operation", MODELS.values(), ids=MODELS)
async def test_a_guardrail_is_not_a_field(wire: Wire, operation: Operation) -> None:
    assert "Invalid field" in detail(await invoke(wire, operation.target, {"guardrailIdentifier": "abc"}))


async def test_a_generators_missing_prompt_is_refused(wire: Wire) -> None:
    message = refused(await invoke(wire, CORE, {}), "ValidationException", 400)
    expected = "Malformed input request: #: required key [prompt] not found, please reformat your input and try again."
    assert message == expected


@pytest.mark.parametrize("operation", MODELS.values(), ids=MODELS)
async def test_values_outside_the_limits_are_refused(wire: Wire, operation: Operation) -> None:
    for name, field in operation.fields.items():
        if name in ("guardrailIdentifier", "guardrailVersion", "trace"):
            continue
        for value, _ in outside(field):
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                continue  # JSON has no such value
            body = body_of(request(operation, name, value))
            answer = await invoke(wire, operation.target, body)
            assert name in refused(answer, "ValidationException", 400), (name, value)
    assert wire.emulator.charges == []


@pytest.mark.parametrize("image", [5, None, ["QUJD"], "", "not base64!", "data:image/png;base64,QUJD", "QUJD\n", "QUJ"])
async def test_an_image_that_is_not_base64_is_refused(wire: Wire, image: object) -> None:
    assert detail(await invoke(wire, REMOVE, {"image": image})).startswith("image: ")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b'{"prompt": NaN}', b"\xff", b'{"prompt":"p"}x', b"[" * 100_000],
)
async def test_a_body_that_is_not_an_object_is_refused(wire: Wire, body: bytes) -> None:
    assert "Malformed input request" in refused(await invoke(wire, CORE, body), "ValidationException", 400)


async def test_rules_between_fields(wire: Wire) -> None:
    image = base64.b64encode(png(128, 96)).decode()
    message = detail(await invoke(wire, OUTPAINT, {"image": image, "left": 0}))
    assert "at least one of left, right, up, down must be above 0" in message
    assert "strength: required" in detail(
        await invoke(wire, SD35, {"prompt": "p", "mode": "image-to-image", "image": image})
    )


async def test_a_body_of_25_000_000_bytes_is_accepted_and_one_more_is_refused(wire: Wire) -> None:
    image = base64.b64encode(padded(18_749_900)).decode()
    frame = len(json.dumps({"image": image, "prompt": "", "search_prompt": "x"}).encode())
    body = {"image": image, "prompt": "x" * (25_000_000 - frame), "search_prompt": "x"}
    target = "us.stability.stable-image-search-replace-v1:0"
    assert (await invoke(wire, target, body))[0] == 200
    message = refused(await invoke(wire, target, {**body, "search_prompt": "xx"}), "ValidationException", 400)
    assert message == "The body must have at most 25000000 bytes."


async def test_fields_and_files_are_listed(wire: Wire) -> None:
    image = png(128, 96)
    await invoke(wire, SKETCH, {"image": base64.b64encode(image).decode(), "prompt": "a house", "seed": 7})
    [record] = wire.emulator.requests
    assert record.target == f"/model/{SKETCH}/invoke"
    assert record.fields == {"prompt": "a house", "seed": "7"}
    assert record.files["image"].sha256 == hashlib.sha256(image).hexdigest()
    assert (record.files["image"].width, record.files["image"].media_type) == (128, "image/png")
    assert record.key is not None


# outcomes


@pytest.mark.parametrize(
    ("word", "reason", "charges"),
    [
        ("[content_moderation]", "Filter reason: prompt", 0),
        ("[input_filtered]", "Filter reason: input image", 0),
        ("[content_filtered]", "Filter reason: output image", 1),
        ("[inference_error]", "Inference error", 0),
    ],
)
async def test_a_call_that_ends_with_a_reason_has_no_image(wire: Wire, word: str, reason: str, charges: int) -> None:
    answer = await invoke(wire, CORE, {"prompt": f"a cat {word}"})
    assert (answer[0], answer[2]) == (200, {"finish_reasons": [reason]})
    assert len(wire.emulator.charges) == charges


async def test_the_same_body_has_the_same_answer_unless_its_seed_is_random(wire: Wire) -> None:
    arguments = {"prompt": "a lighthouse", "seed": 7}
    first, second = [(await invoke(wire, CORE, arguments))[2] for _ in range(2)]
    assert first == second
    third, fourth = [(await invoke(wire, CORE, {"prompt": "a lighthouse"}))[2] for _ in range(2)]
    assert third["seeds"] != fourth["seeds"]
    assert third["images"] != fourth["images"]


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_output_format_decides_the_encoding(wire: Wire, format: str) -> None:
    answer = await invoke(wire, SD35, {"prompt": "p", "output_format": format})
    assert open_image(base64.b64decode(answer[2]["images"][0])).format == format.upper()


async def test_sizes_follow_the_operation(wire: Wire) -> None:
    image = png(128, 96)

    async def size(target: str, **arguments: object) -> tuple[int, int]:
        answer = await invoke(wire, target, body_of({"image": image, **arguments}))
        return open_image(base64.b64decode(answer[2]["images"][0])).size

    assert await size("us.stability.stable-fast-upscale-v1:0") == (512, 384)
    assert await size(OUTPAINT, left=10, right=20, up=30, down=40) == (158, 166)
    assert await size(SKETCH, prompt="a house") == (128, 96)
    assert await size("us.stability.stable-image-inpaint-v1:0", prompt="a house") == (128, 96)


async def test_removed_backgrounds_are_transparent(wire: Wire) -> None:
    answer = await invoke(wire, REMOVE, body_of({"image": png(128, 96)}))
    assert open_image(base64.b64decode(answer[2]["images"][0])).mode == "RGBA"
    answer = await invoke(wire, REMOVE, body_of({"image": png(128, 96), "output_format": "jpeg"}))
    assert open_image(base64.b64decode(answer[2]["images"][0])).mode == "RGB"


async def test_requests_are_not_counted_towards_the_other_vendors_rate() -> None:
    async with started(rate_requests=2, rate_seconds=60.0, lock_seconds=60.0) as wire:
        for _ in range(5):
            assert (await invoke(wire, CORE, {"prompt": "p"}))[0] == 200


# faults on request

DECLARED = [
    ("ValidationException", 400),
    ("ServiceQuotaExceededException", 400),
    ("AccessDeniedException", 403),
    ("ResourceNotFoundException", 404),
    ("ModelTimeoutException", 408),
    ("ModelErrorException", 424),
    ("ThrottlingException", 429),
    ("ModelNotReadyException", 429),
    ("InternalServerException", 500),
    ("ServiceUnavailableException", 503),
]
OTHERS = [
    ("IncompleteSignature", 400),
    ("RequestExpired", 400),
    ("ExpiredTokenException", 403),
    ("InvalidClientTokenId", 403),
    ("overloaded_error", 529),
]


@pytest.mark.parametrize(("name", "status"), DECLARED + OTHERS)
def test_boto3_reads_every_error(emulator: Emulator, boto: Any, name: str, status: int) -> None:
    emulator.fault("status", status=status, name=name, errors=["told to"], times=1)
    expected = getattr(boto.exceptions, name) if (name, status) in DECLARED else ClientError
    with pytest.raises(expected, match="told to") as caught:
        boto.invoke_model(modelId=CORE, body='{"prompt":"p"}')
    assert code(caught) == (name, status)
    assert emulator.charges == []
    boto.invoke_model(modelId=CORE, body='{"prompt":"p"}')


@pytest.mark.parametrize("status", [400, 403, 404, 408, 424, 429, 500, 503, 529])
async def test_a_status_without_a_name_has_its_usual_code(wire: Wire, status: int) -> None:
    usual = {status: name for name, status in reversed(DECLARED + OTHERS)}
    usual |= {400: "ValidationException", 403: "AccessDeniedException"}
    wire.emulator.fault("status", status=status)
    _, headers, _ = await invoke(wire, CORE, {"prompt": "p"})
    assert headers["x-amzn-ErrorType"].startswith(usual[status])


async def test_a_gateways_failure_has_no_code(wire: Wire) -> None:
    for status in (502, 504):
        wire.emulator.clear_faults()
        wire.emulator.fault("status", status=status)
        answer = await invoke(wire, CORE, {"prompt": "p"})
        assert answer[0] == status
        assert "x-amzn-ErrorType" not in answer[1]


async def test_a_throttle_is_that_of_the_contract(wire: Wire) -> None:
    wire.emulator.fault("status", status=429, errors=["Too many tokens, please wait before trying again."])
    answer = await invoke(wire, CORE, {"prompt": "p"})
    assert refused(answer, "ThrottlingException", 429) == "Too many tokens, please wait before trying again."
    assert answer[1]["content-length"] == "63"


async def test_a_fault_can_send_any_answer(wire: Wire) -> None:
    body = {"finish_reasons": ["Inference error"]}
    wire.emulator.fault("status", status=200, text=json.dumps(body), media_type="application/json")
    assert (await invoke(wire, REMOVE, {"image": base64.b64encode(png(128, 96)).decode()}))[2] == body
