"""Odd values of every kind of field, the words of refusals, and null. The bounds are held by ``tests/oracle``."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

import impasto
from impasto import InvalidRequest, Operation
from impasto_plugins.images.limits import Limits
from impasto_plugins.media.limits import AudioLimits
from tests.conftest import KEY
from tests.pictures import WRONG, animated, drawn, padded, png
from tests.plugins.stability.cases import (
    BY_NAME,
    BY_TARGET,
    JOBS,
    RULES,
    Rule,
    inside,
    least,
    on_the_wire,
    outside,
    request,
    tail,
)
from tests.recorder import Recorder, Seen, recording
from tests.sounds import mp3, wav

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one client and one server for all requests

EVERY = pytest.mark.parametrize("operation", BY_NAME.values(), ids=BY_NAME)
EACH_KIND_OF_FIELD = pytest.mark.parametrize(
    ("operation", "name"),
    {(f.kind, bool(f.minimum)): (o, name) for o in BY_NAME.values() for name, f in o.fields.items()}.values(),
    ids=lambda v: getattr(v, "id", v),
)
FILES = [(o, name) for o in BY_NAME.values() for name in o.file_fields]
EACH_LIMIT_OF_IMAGES = pytest.mark.parametrize(
    ("operation", "name"),
    {str(o.fields[name].limits): (o, name) for o, name in FILES if isinstance(o.fields[name].inspect, Limits)}.values(),
    ids=lambda v: getattr(v, "id", v),
)
EVERY_SOUND = pytest.mark.parametrize(
    ("operation", "name"),
    [(o, name) for o, name in FILES if isinstance(o.fields[name].inspect, AudioLimits)],
    ids=lambda v: getattr(v, "id", v),
)

ERASE = next(operation for operation in BY_NAME.values() if tail(operation) == "edit/erase")


class Wire:
    """A client and what it talks to."""

    def __init__(self, client: impasto.Client, recorder: Recorder) -> None:
        self.client, self.recorder = client, recorder

    async def taken(self, operation: Operation, given: dict[str, Any]) -> Seen:
        """The one paid request that came of a call, every part of it as given and none beside."""
        self.recorder.clear()
        result = await self.client.run(operation.id, **given)
        assert len(result.artifacts) == 1
        [post] = self.recorder.posts
        assert post.path == operation.target
        expected = on_the_wire(operation, given)
        assert set(post.fields) | set(post.files) == set(expected)
        for name, value in expected.items():
            if name in operation.file_fields:
                assert post.files[name].data == value
            else:
                assert_written(post.fields[name], value)
        return post

    async def refused(self, operation: Operation, given: dict[str, Any]) -> dict[str, str]:
        """The problems that a call was refused for, by field, after nothing was sent."""
        self.recorder.clear()
        with pytest.raises(InvalidRequest) as caught:
            await self.client.run(operation.id, **given)
        assert self.recorder.seen == []
        assert str(caught.value).startswith(f"{operation.id}: ")
        assert (caught.value.operation, caught.value.billed) == (operation.id, "no")
        return {problem.field: problem.message for problem in caught.value.problems}


def assert_written(text: str, value: object) -> None:
    """A field's text: text as it is, numbers as plain decimals of the very same value."""
    if isinstance(value, str):
        assert text == value
    else:
        assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text)
        assert float(text) == value
        assert ("." in text) == isinstance(value, float)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire() -> AsyncIterator[Wire]:
    async with recording() as recorder:
        recorder.jobs = JOBS
        async with impasto.Client(api_key=KEY, api_base=recorder.url, poll_interval=0.001, timeout=30) as client:
            yield Wire(client, recorder)


async def test_the_paths_that_answer_with_a_job_are_those_of_asynchronous_operations() -> None:
    assert set(BY_TARGET) >= JOBS
    assert len(BY_TARGET) >= 25
    assert len(BY_NAME) >= 34


@EACH_KIND_OF_FIELD
async def test_odd_values_arrive_as_given(wire: Wire, operation: Operation, name: str) -> None:
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
        assert len(problems[name]) < 400, "a refused value is not repeated at length"


@EVERY
async def test_none_is_not_given(wire: Wire, operation: Operation) -> None:
    for name in operation.fields:
        await _none_is_not_given(wire, operation, name)


async def _none_is_not_given(wire: Wire, operation: Operation, name: str) -> None:
    given = request(operation, name, None)
    if operation.fields[name].required:
        assert await wire.refused(operation, given) == {name: "required"}
    elif (tail(operation), name) == ("generate/sd3", "strength"):
        assert await wire.refused(operation, given) == {name: "required when mode is image-to-image"}
    elif (tail(operation), name) in {("generate/ultra", "image"), ("generate/sd3", "image")}:
        await wire.taken(operation, {**given, "strength": None})
    elif (tail(operation), name) == ("edit/replace-background-and-relight", "background_prompt"):
        assert list(await wire.refused(operation, given)) == [name]
    else:
        await wire.taken(operation, given)


@EVERY
async def test_everything_wrong_is_said_at_once(wire: Wire, operation: Operation) -> None:
    wrong: dict[str, Any] = dict.fromkeys(operation.fields, ("neither", "of", "them"))
    problems = await wire.refused(operation, {**wrong, "sede": 1})
    assert set(problems) == {*operation.fields, "sede"}


@EVERY
async def test_an_unknown_parameter_is_refused_with_the_closest(wire: Wire, operation: Operation) -> None:
    for name in operation.fields:
        problems = await wire.refused(operation, {**least(operation), name + "s": "x"})
        assert problems == {name + "s": f"unknown parameter {name + 's'!r}; did you mean {name!r}?"}
    for name in ("model", "size", "quality", "api_key", "extra_body", "bottom"):
        assert list(await wire.refused(operation, {**least(operation), name: "x"})) == [name]


@EACH_LIMIT_OF_IMAGES
async def test_a_file_that_is_no_image_is_refused_by_its_content(wire: Wire, operation: Operation, name: str) -> None:
    for content in WRONG.values():
        problems = await wire.refused(operation, request(operation, name, ("image.png", content, "image/png")))
        assert list(problems) == [name]
        assert problems[name].startswith("'image.png' is ")
        assert problems[name].endswith((f"give {operation.fields[name].limits}", "give the whole file"))


async def test_an_image_of_a_wrong_size_is_refused_with_its_size(wire: Wire) -> None:
    operation = ERASE
    problems = await wire.refused(operation, request(operation, "image", png(63, 300)))
    assert list(problems) == ["image"]
    assert problems["image"].startswith("is 63x300 pixels: ")


@EACH_LIMIT_OF_IMAGES
async def test_pictures_of_every_make_arrive_byte_for_byte(wire: Wire, operation: Operation, name: str) -> None:
    made = (
        (drawn("PNG", "I;16"), "image/png", "png"),
        (drawn("PNG", "P"), "image/png", "png"),
        (drawn("PNG", "RGBA"), "image/png", "png"),
        (animated("PNG"), "image/png", "png"),
        (drawn("JPEG", "CMYK"), "image/jpeg", "jpg"),
        (drawn("JPEG", "L", progressive=True), "image/jpeg", "jpg"),
        (drawn("WEBP", lossless=True), "image/webp", "webp"),
        (animated("WEBP"), "image/webp", "webp"),
    )
    for data, media_type, extension in made:
        post = await wire.taken(operation, request(operation, name, data))
        assert (post.files[name].content_type, post.files[name].filename) == (media_type, f"{name}.{extension}")


async def test_an_empty_file(wire: Wire) -> None:
    for operation, name in FILES:
        assert await wire.refused(operation, request(operation, name, b"")) == {name: "is empty"}


@EVERY_SOUND
async def test_a_sound_has_the_name_of_its_type_and_one_of_a_wrong_length_is_refused_with_it(
    wire: Wire, operation: Operation, name: str
) -> None:
    limits = operation.fields[name].inspect
    assert isinstance(limits, AudioLimits)
    for data, media_type, extension in ((wav(10), "audio/wav", "wav"), (mp3(10), "audio/mpeg", "mp3")):
        post = await wire.taken(operation, request(operation, name, data))
        assert (post.files[name].content_type, post.files[name].filename) == (media_type, f"{name}.{extension}")
    assert await wire.refused(operation, request(operation, name, wav(0.01))) == {
        name: f"is 0.01 seconds long; it must be {limits.min_seconds:g} to {limits.max_seconds:g}"
    }


@EVERY_SOUND
async def test_a_file_that_is_no_sound_is_refused_by_its_content(wire: Wire, operation: Operation, name: str) -> None:
    for wrong in (
        *WRONG.values(),
        png(96, 96),
        b"RIFF\x24\0\0\0WAVE" + bytes(40),
        b"ID3" + bytes(40),
        b"OggS" + bytes(40),
    ):
        problems = await wire.refused(operation, request(operation, name, ("song.mp3", wrong, "audio/mpeg")))
        assert list(problems) == [name]
        assert problems[name].startswith("'song.mp3' is ")
        assert problems[name].endswith((f"give {operation.fields[name].limits}", "give the whole file"))


async def test_a_request_of_one_byte_too_many_is_refused_with_both_lengths(wire: Wire) -> None:
    operation, most = ERASE, 10 * 2**20
    small = await wire.taken(operation, {"image": padded(5000)})
    room = most - (len(small.body) - 5000)
    exact = await wire.taken(operation, {"image": padded(room)})
    assert exact.header("content-length") == str(most)
    problems = await wire.refused(operation, {"image": padded(room + 1)})
    assert list(problems) == ["image"]
    assert "the whole request may have 10,485,760 bytes and has 10,485,761" in problems["image"]


async def test_a_file_that_is_too_large_by_itself_is_reported_with_all_else(wire: Wire) -> None:
    operation = ERASE
    assert set(await wire.refused(operation, {"image": padded(10 * 2**20 + 1), "sede": 1})) == {"image", "sede"}


async def test_two_files_that_are_too_much_together(wire: Wire) -> None:
    operation = ERASE
    first, second = operation.file_fields[:2]
    given = {**least(operation), first: padded(6 * 2**20), second: padded(5 * 2**20)}
    assert await wire.refused(operation, given) == {
        first: "the whole request may have at most 10,485,760 bytes, not 11,534,336 bytes of files"
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.operation)
async def test_rules_between_fields(wire: Wire, rule: Rule) -> None:
    operation = next(o for o in BY_NAME.values() if tail(o) == _TAILS[rule.operation])
    for given in rule.taken:
        await wire.taken(operation, {**least(operation), **given})
    for given, problems in rule.refused:
        assert await wire.refused(operation, {**least(operation), **given}) == problems


_TAILS = {
    "stability/sd3.5-large": "generate/sd3",
    "stability/stable-image-ultra": "generate/ultra",
    "stability/outpaint": "edit/outpaint",
    "stability/replace-background-and-relight": "edit/replace-background-and-relight",
}


async def test_every_operation_with_rules_has_its_rules_tested() -> None:
    assert {tail(o) for o in BY_NAME.values() if o.rules} == set(_TAILS.values())
    assert {rule.operation for rule in RULES} == set(_TAILS)
