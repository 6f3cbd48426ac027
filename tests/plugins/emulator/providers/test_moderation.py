"""Content that is refused or blurred: by words in a text field, or by a fault."""

from __future__ import annotations

import json

import pytest
from PIL import ImageFilter, ImageStat

from tests.plugins.emulator.conftest import GENERATE, RELIGHT, Wire, open_image, plain, started


@pytest.mark.parametrize(
    ("word", "status", "name"),
    [
        ("[content_moderation]", 403, "content_moderation"),
        ("[invalid_language]", 422, "invalid_language"),
        ("[public_figure]", 422, "public_figure"),
    ],
)
async def test_a_refused_word_costs_nothing(wire: Wire, word: str, status: int, name: str) -> None:
    for path, fields in (
        (GENERATE, {"prompt": f"a {word} lighthouse"}),
        (GENERATE, {"prompt": "x", "negative_prompt": word}),
        (RELIGHT, {"subject_image": plain(), "background_prompt": word}),
    ):
        answered, _, body = await wire.post(path, fields)
        assert (answered, json.loads(body)["name"]) == (status, name)
    assert wire.emulator.charges == []


async def test_moderation_comes_after_the_key() -> None:
    async with started(keys=("right",)) as wire:
        assert (await wire.post(GENERATE, {"prompt": "[content_moderation]"}, key="wrong"))[0] == 401


async def test_a_filtered_image_is_blurred_and_charged() -> None:
    async with started(image_scale=0.2) as wire:
        clear = open_image((await wire.post(GENERATE, {"prompt": "x", "seed": 1}))[2])
        status, headers, body = await wire.post(GENERATE, {"prompt": "x [content_filtered]", "seed": 1})
        assert (status, headers["finish-reason"]) == (200, "CONTENT_FILTERED")
        assert _detail(open_image(body)) < _detail(clear) / 4
        wire.emulator.fault("filtered", times=1)
        _, headers, body = await wire.post(GENERATE, {"prompt": "x", "seed": 1})
        assert headers["finish-reason"] == "CONTENT_FILTERED"
        assert _detail(open_image(body)) < _detail(clear) / 4
        reasons = [charge.finish_reason for charge in wire.emulator.charges]
        assert reasons == ["SUCCESS", "CONTENT_FILTERED", "CONTENT_FILTERED"]


def _detail(image: object) -> float:
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES).crop((4, 4, 200, 200))  # type: ignore[attr-defined]  # an Image
    return ImageStat.Stat(edges).mean[0]
