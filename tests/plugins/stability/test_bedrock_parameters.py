"""Parameters on Bedrock: sizes, base64, addresses and guardrails. ``tests/oracle`` holds the bounds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
import pytest_asyncio

import impasto
from impasto import Operation
from impasto_plugins.stability.guardrail import HEADERS
from tests.images import padded
from tests.plugins.stability.bedrock_cases import MODELS, SD35, in_body, minimal
from tests.plugins.stability.wires import BedrockWire

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one client and one server for all requests


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire() -> AsyncIterator[BedrockWire]:
    async with BedrockWire.open() as it:
        yield it


async def test_all_nineteen_models_are_here() -> None:
    assert sum(target.startswith("us.") for target in MODELS) == 13
    assert len(MODELS) == 19


@pytest.mark.parametrize("size", [*range(4_000, 4_004), 3 * 2**18 - 1, 3 * 2**18, 3 * 2**18 + 1, 5 * 2**19])
async def test_base64_is_complete_at_every_length(wire: BedrockWire, size: int) -> None:
    await wire.send(MODELS["us.stability.stable-image-remove-background-v1:0"], {"image": padded(size)})


async def test_a_body_of_25_000_000_bytes_is_sent_and_one_byte_more_is_refused(wire: BedrockWire) -> None:
    operation = MODELS["us.stability.stable-image-search-replace-v1:0"]
    small = {"image": padded(9_000_000), "prompt": "x", "search_prompt": "x"}
    room = 25_000_000 - len((await wire.send(operation, small)).body)
    fourths = room // 4
    arguments = {"image": padded(9_000_000 + 3 * fourths), "prompt": "x" * (1 + room % 4), "search_prompt": "x"}
    assert len((await wire.send(operation, arguments)).body) == 25_000_000
    problems = await wire.refuse(operation, {**arguments, "search_prompt": "xx"})
    assert problems == {"image": "the whole request may have 25,000,000 bytes and has 25,000,001; give a smaller image"}


async def test_two_images_that_are_too_large_together_are_refused(wire: BedrockWire) -> None:
    operation = MODELS["us.stability.stable-style-transfer-v1:0"]
    arguments = {"init_image": padded(10_000_000), "style_image": padded(9_000_000)}
    problems = await wire.refuse(operation, arguments)
    assert list(problems) == ["init_image"]
    assert "the whole request may have 25,000,000 bytes" in problems["init_image"]


ACCOUNT = "arn:aws:bedrock:us-west-2:123456789012"


@pytest.mark.parametrize("operation", list(MODELS.values())[::6], ids=lambda o: o.id)
async def test_an_arn_is_the_address_of_a_request_of_its_base_model(wire: BedrockWire, operation: Operation) -> None:
    bare = operation.target.removeprefix("us.")
    for arn in (
        f"arn:aws:bedrock:us-west-2::foundation-model/{bare}",
        f"{ACCOUNT}:inference-profile/us.{bare}",
        f"{ACCOUNT}:application-inference-profile/abc123def456",
        f"{ACCOUNT}:provisioned-model/abc123def456",
    ):
        for base_model in (f"bedrock/{operation.target}", f"bedrock/{bare}"):
            await wire.client.invoke(f"bedrock/{arn}", minimal(operation), base_model=base_model)
            assert wire.recorder.requests[-1].path == f"/model/{quote(arn, safe='')}/invoke"
            assert json.loads(wire.recorder.requests[-1].body).keys() == in_body(operation, minimal(operation)).keys()


@pytest.mark.parametrize(
    ("arn", "message"),
    [
        ("arn:aws:s3:::bucket/key", "is not an ARN of Bedrock"),
        ("arn:aws:bedrock:us-west-2::foundation-model/stability.sd3-large-v1:0", "names stability.sd3-large-v1:0, but"),
        (f"{ACCOUNT}:inference-profile/us.stability.stable-outpaint-v1:0", "give the same model"),
    ],
)
async def test_an_arn_of_another_service_or_model_is_refused(wire: BedrockWire, arn: str, message: str) -> None:
    wire.recorder.requests.clear()
    with pytest.raises(impasto.ConfigError, match=message):
        await wire.client.run(f"bedrock/{arn}", base_model=f"bedrock/{SD35}", prompt="p")
    assert wire.recorder.requests == []


ARN = "arn:aws:bedrock:us-west-2:123456789012:guardrail/abc123"
WRONG_GUARDRAILS = ["", " ", "a\r\nx: y", "a\nb", "\x1b[1m", "\N{WATER WAVE}", " a", "a ", "A", "a/b", ARN + "\n", 5]
WRONG_VERSIONS = ["", "0", "01", "draft", "1.0", "-1", "1\r\nx: y", "\N{ARABIC-INDIC DIGIT ONE}", "123456789", 1]


async def test_the_headers_of_a_guardrail_are_signed(wire: BedrockWire) -> None:
    operation = MODELS[SD35]
    for identifier, version in (("abc123", "DRAFT"), (ARN, "1"), ("0", "12345678")):
        arguments = {"guardrailIdentifier": identifier, "guardrailVersion": version, "trace": "ENABLED_FULL"}
        post = await wire.send(operation, {**minimal(operation), **arguments})
        assert {name: post.header(header) for name, header in HEADERS.items()} == arguments
        signed = (post.header("authorization") or "").partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert set(HEADERS.values()) <= set(signed)


async def test_an_invalid_guardrail_is_refused(wire: BedrockWire) -> None:
    operation = MODELS[SD35]
    good = {**minimal(operation), "guardrailIdentifier": "abc123", "guardrailVersion": "DRAFT"}
    for name, wrong in (("guardrailIdentifier", WRONG_GUARDRAILS), ("guardrailVersion", WRONG_VERSIONS)):
        for value in wrong:
            assert list(await wire.refuse(operation, {**good, name: value})) == [name]
    assert list(await wire.refuse(operation, {**good, "trace": "enabled"})) == ["trace"]
    problems = await wire.refuse(operation, {**good, "guardrailVersion": None})
    assert problems == {"guardrailVersion": "required when guardrailIdentifier is given"}
