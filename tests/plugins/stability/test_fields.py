"""Fields of both providers: odd values, wrong files, several problems at once. ``tests/oracle`` holds the bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from impasto import Operation
from impasto.fields import Field
from impasto_plugins.images.limits import Limits
from tests.images import WRONG, animated, drawn
from tests.plugins.stability.bedrock_cases import SD3
from tests.plugins.stability.cases import inside, outside
from tests.plugins.stability.wires import BedrockWire, DirectWire, Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one client and one server for all requests of a provider


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[DirectWire, BedrockWire])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    async with request.param.open() as it:
        yield it


def fields(wire: Wire) -> Iterator[tuple[Operation, str, Field]]:
    for operation in wire.operations.values():
        for name, field in operation.fields.items():
            if name not in wire.headers:
                yield operation, name, field


def each_kind_of_field(wire: Wire) -> list[tuple[Operation, str, Field]]:
    return list({(each[2].kind, bool(each[2].minimum)): each for each in fields(wire)}.values())


def each_limit_of_images(wire: Wire) -> list[tuple[Operation, str, Field]]:
    return list({str(each[2].limits): each for each in fields(wire) if isinstance(each[2].inspect, Limits)}.values())


async def test_odd_values_arrive_unchanged(wire: Wire) -> None:
    for operation, name, field in each_kind_of_field(wire):
        for value in inside(field):
            await wire.send(operation, wire.request(operation, name, value))


async def test_odd_values_are_refused_with_the_fields_name_and_limits(wire: Wire) -> None:
    for operation, name, field in each_kind_of_field(wire):
        for value, message in outside(field):
            problems = await wire.refuse(operation, wire.request(operation, name, value))
            assert list(problems) == [name], operation.id
            assert message in problems[name]
            assert len(problems[name]) < 400, "a refused value is not repeated at length"


async def test_all_problems_are_reported_at_once(wire: Wire) -> None:
    for operation in wire.operations.values():
        wrong: dict[str, Any] = dict.fromkeys(operation.fields, ("neither", "of", "them"))
        assert set(await wire.refuse(operation, {**wrong, "sede": 1})) == {*operation.fields, "sede"}, operation.id


async def test_a_file_that_is_not_an_image_is_refused_by_its_content(wire: Wire) -> None:
    for operation, name, field in each_limit_of_images(wire):
        for content in WRONG.values():
            problems = await wire.refuse(operation, wire.request(operation, name, ("image.png", content, "image/png")))
            assert list(problems) == [name], operation.id
            assert problems[name].startswith("'image.png' is ")
            assert problems[name].endswith((f"give {field.limits}", "give the whole file"))


async def test_images_of_every_format_arrive_unchanged(wire: Wire) -> None:
    for operation, name, _ in each_limit_of_images(wire):
        size = (640, 640) if operation.target == SD3 else (96, 96)
        images = [drawn(kind, mode, size) for kind, mode in (("PNG", "I;16"), ("PNG", "P"), ("PNG", "RGBA"))]
        images += [drawn("JPEG", "CMYK", size), drawn("JPEG", "L", size, progressive=True)]
        images += [drawn("WEBP", size=size, lossless=True)]
        images += [animated("PNG"), animated("WEBP")] if operation.target != SD3 else []
        for image in images:
            await wire.send(operation, wire.request(operation, name, image))
