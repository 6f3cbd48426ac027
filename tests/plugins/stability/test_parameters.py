"""Parameters of Stability AI: null, unknown names, sizes, rules between fields. ``tests/oracle`` holds the bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from impasto import Operation
from impasto_plugins.media.limits import AudioLimits
from tests.images import WRONG, drawn, padded, png
from tests.media import mp3, wav
from tests.plugins.stability.cases import (
    BY_NAME,
    BY_TARGET,
    JOBS,
    RULES,
    Rule,
    minimal,
    request,
    tail,
)
from tests.plugins.stability.wires import DirectWire

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one client and one server for all requests

EVERY = pytest.mark.parametrize("operation", BY_NAME.values(), ids=BY_NAME)
FILES = [(o, name) for o in BY_NAME.values() for name in o.file_fields]
EVERY_AUDIO_FIELD = pytest.mark.parametrize(
    ("operation", "name"),
    [(o, name) for o, name in FILES if isinstance(o.fields[name].inspect, AudioLimits)],
    ids=lambda v: getattr(v, "id", v),
)

ERASE = next(operation for operation in BY_NAME.values() if tail(operation) == "edit/erase")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire() -> AsyncIterator[DirectWire]:
    async with DirectWire.open() as it:
        yield it


async def test_all_paths_and_models_of_the_vendor_are_here() -> None:
    assert set(BY_TARGET) >= JOBS
    assert len(BY_TARGET) >= 25
    assert len(BY_NAME) >= 34


@EVERY
async def test_none_is_not_sent(wire: DirectWire, operation: Operation) -> None:
    for name in operation.fields:
        await _check_none(wire, operation, name)


async def _check_none(wire: DirectWire, operation: Operation, name: str) -> None:
    arguments = request(operation, name, None)
    if operation.fields[name].required:
        assert await wire.refuse(operation, arguments) == {name: "required"}
    elif (tail(operation), name) == ("generate/sd3", "strength"):
        assert await wire.refuse(operation, arguments) == {name: "required when mode is image-to-image"}
    elif (tail(operation), name) in {("generate/ultra", "image"), ("generate/sd3", "image")}:
        await wire.send(operation, {**arguments, "strength": None})
    elif (tail(operation), name) == ("edit/replace-background-and-relight", "background_prompt"):
        assert list(await wire.refuse(operation, arguments)) == [name]
    else:
        await wire.send(operation, arguments)


@EVERY
async def test_an_unknown_parameter_is_refused_with_the_closest_name(wire: DirectWire, operation: Operation) -> None:
    for name in operation.fields:
        problems = await wire.refuse(operation, {**minimal(operation), name + "s": "x"})
        assert problems == {name + "s": f"unknown parameter {name + 's'!r}; did you mean {name!r}?"}
    for name in ("model", "size", "quality", "api_key", "extra_body", "bottom"):
        assert list(await wire.refuse(operation, {**minimal(operation), name: "x"})) == [name]


async def test_an_image_of_a_wrong_size_is_refused_with_its_size(wire: DirectWire) -> None:
    operation = ERASE
    problems = await wire.refuse(operation, request(operation, "image", png(63, 300)))
    assert list(problems) == ["image"]
    assert problems["image"].startswith("is 63x300 pixels: ")


async def test_a_file_has_the_name_and_the_type_of_its_content(wire: DirectWire) -> None:
    images = (
        (drawn("PNG"), "image/png", "png"),
        (drawn("JPEG"), "image/jpeg", "jpg"),
        (drawn("WEBP"), "image/webp", "webp"),
    )
    for data, media_type, extension in images:
        post = await wire.send(ERASE, request(ERASE, "image", data))
        assert (post.files["image"].content_type, post.files["image"].filename) == (media_type, f"image.{extension}")


async def test_an_empty_file_is_refused(wire: DirectWire) -> None:
    for operation, name in FILES:
        assert await wire.refuse(operation, request(operation, name, b"")) == {name: "is empty"}


@EVERY_AUDIO_FIELD
async def test_audio_is_sent_with_the_name_of_its_type_and_refused_with_its_length(
    wire: DirectWire, operation: Operation, name: str
) -> None:
    limits = operation.fields[name].inspect
    assert isinstance(limits, AudioLimits)
    for data, media_type, extension in ((wav(10), "audio/wav", "wav"), (mp3(10), "audio/mpeg", "mp3")):
        post = await wire.send(operation, request(operation, name, data))
        assert (post.files[name].content_type, post.files[name].filename) == (media_type, f"{name}.{extension}")
    assert await wire.refuse(operation, request(operation, name, wav(0.01))) == {
        name: f"is 0.01 seconds long; it must be {limits.min_seconds:g} to {limits.max_seconds:g}"
    }


@EVERY_AUDIO_FIELD
async def test_a_file_that_is_not_audio_is_refused_by_its_content(
    wire: DirectWire, operation: Operation, name: str
) -> None:
    for wrong in (
        *WRONG.values(),
        png(96, 96),
        b"RIFF\x24\0\0\0WAVE" + bytes(40),
        b"ID3" + bytes(40),
        b"OggS" + bytes(40),
    ):
        problems = await wire.refuse(operation, request(operation, name, ("song.mp3", wrong, "audio/mpeg")))
        assert list(problems) == [name]
        assert problems[name].startswith("'song.mp3' is ")
        assert problems[name].endswith((f"give {operation.fields[name].limits}", "give the whole file"))


async def test_a_request_with_one_byte_too_many_is_refused_with_both_lengths(wire: DirectWire) -> None:
    operation, maximum = ERASE, 10 * 2**20
    small = await wire.send(operation, {"image": padded(5000)})
    room = maximum - (len(small.body) - 5000)
    exact = await wire.send(operation, {"image": padded(room)})
    assert exact.header("content-length") == str(maximum)
    problems = await wire.refuse(operation, {"image": padded(room + 1)})
    assert list(problems) == ["image"]
    assert "the whole request may have 10,485,760 bytes and has 10,485,761" in problems["image"]


async def test_a_file_that_is_too_large_alone_is_reported_with_other_problems(wire: DirectWire) -> None:
    operation = ERASE
    assert set(await wire.refuse(operation, {"image": padded(10 * 2**20 + 1), "sede": 1})) == {"image", "sede"}


async def test_two_files_that_are_too_large_together_are_refused(wire: DirectWire) -> None:
    operation = ERASE
    first, second = operation.file_fields[:2]
    arguments = {**minimal(operation), first: padded(6 * 2**20), second: padded(5 * 2**20)}
    assert await wire.refuse(operation, arguments) == {
        first: "the whole request may have at most 10,485,760 bytes, not 11,534,336 bytes of files"
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.operation)
async def test_rules_between_fields_are_checked_before_a_request(wire: DirectWire, rule: Rule) -> None:
    operation = next(o for o in BY_NAME.values() if tail(o) == _TAILS[rule.operation])
    for arguments in rule.taken:
        await wire.send(operation, {**minimal(operation), **arguments})
    for arguments, problems in rule.refused:
        assert await wire.refuse(operation, {**minimal(operation), **arguments}) == problems


_TAILS = {
    "stability/sd3.5-large": "generate/sd3",
    "stability/stable-image-ultra": "generate/ultra",
    "stability/outpaint": "edit/outpaint",
    "stability/replace-background-and-relight": "edit/replace-background-and-relight",
}


async def test_the_rules_of_every_operation_are_tested() -> None:
    assert {tail(o) for o in BY_NAME.values() if o.rules} == set(_TAILS.values())
    assert {rule.operation for rule in RULES} == set(_TAILS)
