"""The painter's own parts: masks, sizes, colours, and what it makes of an operation it does not know."""

from __future__ import annotations

import random
from typing import NoReturn

import attrs
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageDraw

from impasto import Operation
from impasto.registry import Registry
from impasto_plugins.emulator.rendering.pictures import RenderTask, draw, sizes
from impasto_plugins.emulator.rendering.pictures.masks import grow
from impasto_plugins.emulator.rendering.pictures.motifs import MOTIFS
from impasto_plugins.emulator.rendering.pictures.painters import find_painter
from impasto_plugins.emulator.rendering.pictures.palette import MOODS, choose_palette, split_words
from impasto_plugins.emulator.rendering.pictures.scene import draw_scene
from tests.images import png
from tests.plugins.emulator.conftest import open_image, plain


def operation(name: str) -> Operation:
    return Registry().operation(f"stability/{name}")


@given(
    size=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    box=st.tuples(*[st.floats(0, 1)] * 4),
    pixels=st.integers(0, 100),
)
@settings(max_examples=60)
def test_a_mask_grows_by_the_requested_pixels(
    size: tuple[int, int], box: tuple[float, float, float, float], pixels: int
) -> None:
    width, height = size
    left, right = sorted((int(box[0] * (width - 1)), int(box[1] * (width - 1))))
    top, bottom = sorted((int(box[2] * (height - 1)), int(box[3] * (height - 1))))
    mask, expected = Image.new("L", size, 0), Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle((left, top, right, bottom), fill=255)
    ImageDraw.Draw(expected).rectangle((left - pixels, top - pixels, right + pixels, bottom + pixels), fill=255)
    assert grow(mask, pixels).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("ratio", "size"), [("1:1", (1024, 1024)), ("16:9", (1344, 768)), ("9:16", (768, 1344)), ("21:9", (1536, 640))]
)
def test_sizes_are_those_of_the_contract(ratio: str, size: tuple[int, int]) -> None:
    assert sizes.size_by_ratio(ratio) == size


def test_sizes_of_other_operations_are_those_of_the_contract() -> None:
    assert sizes.size_by_ratio("1:1", side=1536) == (1536, 1536)
    assert sizes.size_by_ratio("16:9", step=1) == (1365, 768)
    assert sizes.size_by_area((512, 512), 3112) == (3112, 3112)
    assert sizes.size_by_area((512, 512), 3152) == (3152, 3152)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (47, 48), (64, 64), (300, 70)])
def test_any_size_can_be_painted(size: tuple[int, int]) -> None:
    for prompt in ("", "a lighthouse at night", " ".join(MOTIFS)):
        assert draw_scene(prompt, 1, size).size == size


def test_objects_of_the_negative_prompt_are_not_drawn() -> None:
    with_cat = draw_scene("a cat", 3, (96, 96))
    assert draw_scene("a cat", 3, (96, 96), without="dogs and birds").tobytes() != with_cat.tobytes()
    assert choose_palette(split_words("sunset"), _Never()) == MOODS["sunset"]


class _Never(random.Random):
    def choice(self, seq: object) -> NoReturn:
        raise AssertionError("chance has no part in it")


def test_an_operation_without_a_painter_is_drawn_by_the_default() -> None:
    new = attrs.evolve(operation("control-sketch"), target="/v2beta/stable-image/control/brand-new")
    assert find_painter(new) is find_painter(attrs.evolve(new, target="/v2beta/another"))
    task = RenderTask(operation=new, values={"image": plain((90, 70)), "prompt": "x"}, seed=1)
    assert open_image(draw(task, "mark").data).size == (90, 70)
    without = attrs.evolve(operation("stable-image-core"), target="/v2beta/stable-image/generate/brand-new")
    task = RenderTask(operation=without, values={"prompt": "x", "output_format": "webp"}, seed=1, scale=0.1)
    assert open_image(draw(task, "mark").data).format == "WEBP"


def test_an_image_too_large_to_decode_becomes_grey() -> None:
    task = RenderTask(
        operation=operation("sd3"), values={"image": png(16_384, 8_192), "strength": 0.0}, seed=1, scale=0.1
    )
    image = open_image(draw(task, "mark").data)
    assert image.width == pytest.approx(2 * image.height, abs=1)
    assert image.getpixel((5, 5)) == (128, 128, 128)
