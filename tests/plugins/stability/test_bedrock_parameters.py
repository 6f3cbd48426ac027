"""Odd values on Bedrock, the words of refusals, addresses and guardrails. The bounds are held by ``tests/oracle``."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

import impasto
from impasto import InvalidRequest, Operation
from impasto_plugins.stability.guardrail import HEADERS
from tests.bedrock import KEYS, pictured
from tests.pictures import WRONG, animated, drawn, padded
from tests.plugins.stability.bedrock_cases import MODELS, SD3, SD35, in_body, least, request
from tests.plugins.stability.cases import inside, outside
from tests.recorder import Recorder, Seen, recording

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one client and one server for all requests

EVERY = pytest.mark.parametrize("operation", MODELS.values(), ids=MODELS)
EACH_KIND_OF_FIELD = pytest.mark.parametrize(
    ("operation", "name"),
    {
        (f.kind, bool(f.minimum)): (o, name)
        for o in MODELS.values()
        for name, f in o.fields.items()
        if name not in HEADERS
    }.values(),
    ids=lambda v: getattr(v, "id", v),
)
EACH_LIMIT_OF_IMAGES = pytest.mark.parametrize(
    ("operation", "name"),
    {str(o.fields[name].limits): (o, name) for o in MODELS.values() for name in o.file_fields}.values(),
    ids=lambda v: getattr(v, "id", v),
)


class Wire:
    """A client and what it talks to."""

    def __init__(self, client: impasto.Client, recorder: Recorder) -> None:
        self.client, self.recorder = client, recorder

    async def taken(self, operation: Operation, given: dict[str, Any]) -> Seen:
        """The one request that came of a call; its body holds exactly what was given."""
        self.recorder.seen.clear()
        result = await self.client.run(operation.id, **given)
        assert len(result.artifacts) == 1
        [post] = self.recorder.seen
        assert post.path == f"/model/{quote(operation.target, safe='')}/invoke"
        body = json.loads(post.body)
        expected = in_body(operation, given)
        assert body.keys() == expected.keys()
        for name, value in expected.items():
            if name in operation.file_fields:
                assert base64.b64decode(body[name], validate=True) == value
            else:
                assert (body[name], type(body[name])) == (value, type(value))
        return post

    async def refused(self, operation: Operation, given: dict[str, Any]) -> dict[str, str]:
        """The problems that a call was refused for, by field, after nothing was sent."""
        self.recorder.seen.clear()
        with pytest.raises(InvalidRequest) as caught:
            await self.client.run(operation.id, **given)
        assert self.recorder.seen == []
        assert (caught.value.operation, caught.value.billed) == (operation.id, "no")
        return {problem.field: problem.message for problem in caught.value.problems}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire() -> AsyncIterator[Wire]:
    async with recording() as recorder:
        recorder.answer = lambda seen: pictured()
        async with impasto.Client(**KEYS, bedrock_endpoint=recorder.url, timeout=30) as client:
            yield Wire(client, recorder)


async def test_all_nineteen_models_are_here() -> None:
    assert sum(target.startswith("us.") for target in MODELS) == 13
    assert len(MODELS) == 19


@EACH_KIND_OF_FIELD
async def test_odd_values_are_in_the_body_as_given(wire: Wire, operation: Operation, name: str) -> None:
    for value in inside(operation.fields[name]):
        await wire.taken(operation, request(operation, name, value))


@EACH_KIND_OF_FIELD
async def test_odd_values_are_refused_by_name_and_with_their_limits(
    wire: Wire, operation: Operation, name: str
) -> None:
    for value, said in outside(operation.fields[name]):
        problems = await wire.refused(operation, request(operation, name, value))
        assert list(problems) == [name]
        assert said in problems[name]
        assert len(problems[name]) < 400


@EVERY
async def test_everything_wrong_is_said_at_once(wire: Wire, operation: Operation) -> None:
    wrong: dict[str, Any] = dict.fromkeys(operation.fields, ("neither", "of", "them"))
    assert set(await wire.refused(operation, {**wrong, "sede": 1})) == {*operation.fields, "sede"}


@EACH_LIMIT_OF_IMAGES
async def test_a_file_that_is_no_image_is_refused(wire: Wire, operation: Operation, name: str) -> None:
    for content in WRONG.values():
        problems = await wire.refused(operation, request(operation, name, ("image.png", content)))
        assert list(problems) == [name]
        assert problems[name].endswith((f"give {operation.fields[name].limits}", "give the whole file"))


@EACH_LIMIT_OF_IMAGES
async def test_pictures_of_every_make_arrive_byte_for_byte(wire: Wire, operation: Operation, name: str) -> None:
    size = (640, 640) if operation.target == SD3 else (96, 96)
    for kind in ("PNG", "JPEG", "WEBP"):
        await wire.taken(operation, request(operation, name, drawn(kind, size=size)))
    if operation.target != SD3:
        await wire.taken(operation, request(operation, name, animated("WEBP")))


@pytest.mark.parametrize("size", [*range(4_000, 4_004), 3 * 2**18 - 1, 3 * 2**18, 3 * 2**18 + 1, 5 * 2**19])
async def test_base64_is_whole_at_every_length(wire: Wire, size: int) -> None:
    await wire.taken(MODELS["us.stability.stable-image-remove-background-v1:0"], {"image": padded(size)})


async def test_a_body_of_exactly_25_000_000_bytes_and_one_byte_more(wire: Wire) -> None:
    operation = MODELS["us.stability.stable-image-search-replace-v1:0"]
    small = {"image": padded(9_000_000), "prompt": "x", "search_prompt": "x"}
    room = 25_000_000 - len((await wire.taken(operation, small)).body)
    fourths = room // 4
    given = {"image": padded(9_000_000 + 3 * fourths), "prompt": "x" * (1 + room % 4), "search_prompt": "x"}
    assert len((await wire.taken(operation, given)).body) == 25_000_000
    problems = await wire.refused(operation, {**given, "search_prompt": "xx"})
    assert problems == {"image": "the whole request may have 25,000,000 bytes and has 25,000,001; give a smaller image"}


async def test_two_pictures_share_the_body(wire: Wire) -> None:
    operation = MODELS["us.stability.stable-style-transfer-v1:0"]
    given = {"init_image": padded(10_000_000), "style_image": padded(9_000_000)}
    problems = await wire.refused(operation, given)
    assert list(problems) == ["init_image"]
    assert "the whole request may have 25,000,000 bytes" in problems["init_image"]


ACCOUNT = "arn:aws:bedrock:us-west-2:123456789012"


@pytest.mark.parametrize("operation", list(MODELS.values())[::6], ids=lambda o: o.id)
async def test_an_arn_is_the_address_of_the_body_that_base_model_builds(wire: Wire, operation: Operation) -> None:
    bare = operation.target.removeprefix("us.")
    for arn in (
        f"arn:aws:bedrock:us-west-2::foundation-model/{bare}",
        f"{ACCOUNT}:inference-profile/us.{bare}",
        f"{ACCOUNT}:application-inference-profile/abc123def456",
        f"{ACCOUNT}:provisioned-model/abc123def456",
    ):
        for base_model in (f"bedrock/{operation.target}", f"bedrock/{bare}"):
            await wire.client.invoke(f"bedrock/{arn}", least(operation), base_model=base_model)
            assert wire.recorder.seen[-1].path == f"/model/{quote(arn, safe='')}/invoke"
            assert json.loads(wire.recorder.seen[-1].body).keys() == in_body(operation, least(operation)).keys()


@pytest.mark.parametrize(
    ("arn", "said"),
    [
        ("arn:aws:s3:::bucket/key", "is no ARN of Bedrock's"),
        ("arn:aws:bedrock:us-west-2::foundation-model/stability.sd3-large-v1:0", "names stability.sd3-large-v1:0, but"),
        (f"{ACCOUNT}:inference-profile/us.stability.stable-outpaint-v1:0", "give the same model"),
    ],
)
async def test_an_arn_of_something_else_is_refused(wire: Wire, arn: str, said: str) -> None:
    wire.recorder.seen.clear()
    with pytest.raises(impasto.ConfigError, match=said):
        await wire.client.run(f"bedrock/{arn}", base_model=f"bedrock/{SD35}", prompt="p")
    assert wire.recorder.seen == []


ARN = "arn:aws:bedrock:us-west-2:123456789012:guardrail/abc123"
WRONG_GUARDRAILS = ["", " ", "a\r\nx: y", "a\nb", "\x1b[1m", "\N{WATER WAVE}", " a", "a ", "A", "a/b", ARN + "\n", 5]
WRONG_VERSIONS = ["", "0", "01", "draft", "1.0", "-1", "1\r\nx: y", "\N{ARABIC-INDIC DIGIT ONE}", "123456789", 1]


async def test_the_headers_of_a_guardrail_are_signed(wire: Wire) -> None:
    operation = MODELS[SD35]
    for identifier, version in (("abc123", "DRAFT"), (ARN, "1"), ("0", "12345678")):
        given = {"guardrailIdentifier": identifier, "guardrailVersion": version, "trace": "ENABLED_FULL"}
        post = await wire.taken(operation, {**least(operation), **given})
        assert {name: post.header(header) for name, header in HEADERS.items()} == given
        signed = (post.header("authorization") or "").partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert set(HEADERS.values()) <= set(signed)


async def test_a_guardrail_that_is_none_is_refused(wire: Wire) -> None:
    operation = MODELS[SD35]
    good = {**least(operation), "guardrailIdentifier": "abc123", "guardrailVersion": "DRAFT"}
    for name, wrong in (("guardrailIdentifier", WRONG_GUARDRAILS), ("guardrailVersion", WRONG_VERSIONS)):
        for value in wrong:
            assert list(await wire.refused(operation, {**good, name: value})) == [name]
    assert list(await wire.refused(operation, {**good, "trace": "enabled"})) == ["trace"]
    problems = await wire.refused(operation, {**good, "guardrailVersion": None})
    assert problems == {"guardrailVersion": "required when guardrailIdentifier is given"}
