"""Every operation through ``Client(transport="emulator")``: the pictures it makes, opened and measured."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

import impasto
from impasto.registry import OPERATIONS, Registry
from impasto_plugins.emulator.providers.stability import load_stability_operations
from tests.media import wav
from tests.plugins.emulator.conftest import encoded, open_image

SCALE = 0.125
Size = tuple[int, int]


@pytest.fixture
async def client() -> AsyncIterator[impasto.Client]:
    settings = {"emulator": {"image_scale": SCALE, "job_seconds": 0.02}}
    async with impasto.Client(transport="emulator", providers=settings, poll_interval=0.02, timeout=60) as it:
        yield it


def _drawing(size: Size = (160, 120)) -> Image.Image:
    """A house on a slope: something with shapes, colours and a smooth sky."""
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    pen = ImageDraw.Draw(image)
    width, height = size
    pen.polygon([(0, height), (0, height * 0.7), (width, height * 0.5), (width, height)], fill=(60, 120, 50))
    pen.rectangle((width * 0.4, height * 0.4, width * 0.65, height * 0.75), fill=(200, 60, 40))
    return image


def _mask(size: Size, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    return mask


DRAWING = _drawing()
IMAGE = encoded(DRAWING)
BOX = (40, 30, 80, 70)
MASK = encoded(_mask(DRAWING.size, BOX))
AUDIO = wav(10)

GIVEN: dict[str, Mapping[str, object]] = {
    "/v2beta/stable-image/generate/ultra": {"prompt": "a red boat at sea"},
    "/v2beta/stable-image/generate/core": {"prompt": "a forest"},
    "/v2beta/stable-image/generate/sd3": {"prompt": "a lighthouse"},
    "/v2beta/stable-image/upscale/fast": {"image": IMAGE},
    "/v2beta/stable-image/upscale/conservative": {"image": IMAGE, "prompt": "a house"},
    "/v2beta/stable-image/upscale/creative": {"image": IMAGE, "prompt": "a house"},
    "/v2beta/stable-image/edit/erase": {"image": IMAGE, "mask": MASK},
    "/v2beta/stable-image/edit/inpaint": {"image": IMAGE, "mask": MASK, "prompt": "a blue door"},
    "/v2beta/stable-image/edit/outpaint": {"image": IMAGE, "left": 30, "down": 50},
    "/v2beta/stable-image/edit/search-and-replace": {"image": IMAGE, "prompt": "a cat", "search_prompt": "house"},
    "/v2beta/stable-image/edit/search-and-recolor": {"image": IMAGE, "prompt": "blue", "select_prompt": "house"},
    "/v2beta/stable-image/edit/remove-background": {"image": IMAGE},
    "/v2beta/stable-image/edit/replace-background-and-relight": {"subject_image": IMAGE, "background_prompt": "snow"},
    "/v2beta/stable-image/control/sketch": {"image": IMAGE, "prompt": "a house"},
    "/v2beta/stable-image/control/structure": {"image": IMAGE, "prompt": "a house"},
    "/v2beta/stable-image/control/style": {"image": IMAGE, "prompt": "a boat"},
    "/v2beta/stable-image/control/style-transfer": {"init_image": IMAGE, "style_image": IMAGE},
    "/v2beta/audio/stable-audio-2/text-to-audio": {"prompt": "rain"},
    "/v2beta/audio/stable-audio-2/audio-to-audio": {"prompt": "rain", "audio": AUDIO},
    "/v2beta/audio/stable-audio-2/inpaint": {"prompt": "rain", "audio": AUDIO},
    "/v2beta/audio/stable-audio/text-to-audio": {"prompt": "rain"},
    "/v2beta/audio/stable-audio/audio-to-audio": {"prompt": "rain", "audio": AUDIO},
    "/v2beta/audio/stable-audio/inpaint": {"prompt": "rain", "audio": AUDIO},
    "/v2beta/3d/stable-fast-3d": {"image": IMAGE},
    "/v2beta/3d/stable-point-aware-3d": {"image": IMAGE},
}


REGISTRY = Registry()
OURS = {n: REGISTRY.operation(n) for n in REGISTRY.names(OPERATIONS) if n.startswith("stability/")}
TARGETS = {name: operation.target for name, operation in OURS.items() if operation.output == "image"}


def scaled(width: int, height: int) -> Size:
    return round(width * SCALE), round(height * SCALE)


SIZES: dict[str, Size] = {
    "/v2beta/stable-image/generate/ultra": scaled(1024, 1024),
    "/v2beta/stable-image/generate/core": scaled(1536, 1536),
    "/v2beta/stable-image/generate/sd3": scaled(1024, 1024),
    "/v2beta/stable-image/upscale/fast": (640, 480),
    "/v2beta/stable-image/edit/outpaint": (190, 170),
    "/v2beta/stable-image/control/style": scaled(1024, 1024),
}
"""Where it is neither the input's nor of an area."""

AREAS = {
    "/v2beta/stable-image/upscale/conservative": 3112,
    "/v2beta/stable-image/upscale/creative": 3152,
    "/v2beta/stable-image/control/style-transfer": 1024,
}


def test_every_operation_has_a_case() -> None:
    assert GIVEN.keys() == load_stability_operations().keys()


@pytest.mark.parametrize("model", TARGETS)
async def test_every_model_makes_an_image(client: impasto.Client, model: str) -> None:
    target = TARGETS[model]
    result = await client.invoke(model, GIVEN[target])
    (artifact,) = result.artifacts
    image = open_image(artifact.data)
    assert image.format == "PNG"
    assert artifact.finish_reason == "SUCCESS"
    assert artifact.seed is not None
    if target in AREAS:
        side = AREAS[target] * SCALE
        assert math.sqrt(image.width * image.height) == pytest.approx(side, rel=0.01)
        assert image.width / image.height == pytest.approx(4 / 3, rel=0.01)
    else:
        assert image.size == SIZES.get(target, DRAWING.size)
    assert len(set(image.resize((16, 16)).convert("RGB").tobytes())) > 8, "it is no flat colour"


@pytest.mark.parametrize(
    ("model", "params", "size"),
    [
        ("stability/sd3.5-large", {"aspect_ratio": "16:9"}, scaled(1344, 768)),
        ("stability/stable-image-ultra", {"aspect_ratio": "9:16"}, scaled(768, 1344)),
        ("stability/stable-image-core", {"aspect_ratio": "21:9"}, (293, 125)),
        ("stability/style-guide", {"aspect_ratio": "16:9", "image": IMAGE}, scaled(1365, 768)),
        ("stability/sd3", {"image": IMAGE, "strength": 0.5}, (148, 111)),
    ],
)
async def test_the_size_follows_the_aspect_ratio(
    client: impasto.Client, model: str, params: dict[str, object], size: Size
) -> None:
    result = await client.invoke(model, {"prompt": "x", **params})
    width, height = open_image(result.artifacts[0].data).size
    assert [width, height] == pytest.approx(list(size), abs=8)


@pytest.mark.parametrize("model", ["stability/sd3.5-large", "stability/inpaint", "stability/upscale-creative"])
async def test_the_returned_seed_gives_the_same_pixels_and_another_file(client: impasto.Client, model: str) -> None:
    arguments = GIVEN[TARGETS[model]]
    first = (await client.invoke(model, arguments)).artifacts[0]
    again = (await client.invoke(model, {**arguments, "seed": first.seed})).artifacts[0]
    other = (await client.invoke(model, {**arguments, "seed": (first.seed or 0) // 2 + 1})).artifacts[0]
    assert open_image(first.data).tobytes() == open_image(again.data).tobytes()
    assert first.data != again.data
    assert open_image(first.data).tobytes() != open_image(other.data).tobytes()


@pytest.mark.parametrize("model", ["stability/inpaint", "stability/erase"])
@pytest.mark.parametrize("grow", [0, 3, 20])
async def test_an_edit_changes_only_pixels_under_its_mask(client: impasto.Client, model: str, grow: int) -> None:
    params: dict[str, object] = {"image": IMAGE, "mask": MASK, "grow_mask": grow}
    if model == "stability/inpaint":
        params["prompt"] = "a blue door"
    changed = _changed(open_image((await client.invoke(model, params)).artifacts[0].data), DRAWING)
    left, top, right, bottom = BOX
    allowed = (left - grow, top - grow, right + grow, bottom + grow)
    assert changed is not None
    assert all(inner >= outer for inner, outer in zip(changed[:2], allowed[:2], strict=True))
    assert all(inner <= outer for inner, outer in zip(changed[2:], allowed[2:], strict=True))
    assert changed[2] - changed[0] > 0.8 * (right - left)


async def test_the_transparent_part_is_painted_without_a_mask(client: impasto.Client) -> None:
    cut = DRAWING.copy()
    cut.putalpha(ImageChops.invert(_mask(cut.size, BOX)))
    result = await client.run("stability/inpaint", image=encoded(cut), prompt="a blue door", grow_mask=0)
    image = open_image(result.artifacts[0].data)
    assert image.mode == "RGB"
    changed = _changed(image, DRAWING)
    assert changed is not None
    assert (changed[0] >= BOX[0], changed[2] <= BOX[2]) == (True, True)


async def test_a_mask_of_another_size_is_resized(client: impasto.Client) -> None:
    mask = encoded(_mask((320, 240), (80, 60, 160, 140)))
    result = await client.run("stability/inpaint", image=IMAGE, mask=mask, prompt="x", grow_mask=0)
    changed = _changed(open_image(result.artifacts[0].data), DRAWING)
    assert changed is not None
    assert list(changed) == pytest.approx(list(BOX), abs=2)


async def test_an_erased_object_disappears(client: impasto.Client) -> None:
    sky = Image.new("RGB", (128, 128), (120, 180, 230))
    spotted = sky.copy()
    ImageDraw.Draw(spotted).rectangle((50, 50, 70, 70), fill=(255, 0, 0))
    mask = encoded(_mask((128, 128), (46, 46, 75, 75)))
    result = await client.run("stability/erase", image=encoded(spotted), mask=mask)
    mean = ImageStat.Stat(open_image(result.artifacts[0].data).crop((52, 52, 68, 68))).mean
    assert mean == pytest.approx([120, 180, 230], abs=25)


async def test_outpaint_keeps_the_image_in_its_place(client: impasto.Client) -> None:
    margins = {"left": 10, "right": 25, "up": 40, "down": 5}
    result = await client.invoke("stability/outpaint", {"image": IMAGE, "prompt": "hills", **margins})
    image = open_image(result.artifacts[0].data)
    assert image.size == (160 + 35, 120 + 45)
    assert _changed(image.crop((10, 40, 170, 160)), DRAWING) is None
    assert len(set(image.crop((0, 0, 195, 40)).tobytes())) > 16


@pytest.mark.parametrize("format", ["png", "webp"])
async def test_a_removed_background_is_transparent(client: impasto.Client, format: str) -> None:
    result = await client.run("stability/remove-background", image=IMAGE, output_format=format)
    alpha = open_image(result.artifacts[0].data).getchannel("A")
    corners = [(0, 0), (159, 0), (0, 119), (159, 119)]
    assert [alpha.getpixel(corner) for corner in corners] == [0, 0, 0, 0]
    assert alpha.getpixel((80, 60)) == 255


async def test_search_edits_leave_the_border_alone(client: impasto.Client) -> None:
    for model, params in (
        ("stability/search-and-replace", {"search_prompt": "house"}),
        ("stability/search-and-recolor", {"select_prompt": "house"}),
    ):
        result = await client.invoke(model, {"image": IMAGE, "prompt": "a blue cat", **params})
        changed = _changed(open_image(result.artifacts[0].data), DRAWING)
        assert changed is not None
        assert changed[0] > 4
        assert changed[1] > 4
        assert changed[2] < 156
        assert changed[3] < 116


async def test_light_comes_from_its_side(client: impasto.Client) -> None:
    grey = encoded(Image.new("RGB", (128, 128), "grey"))
    halves = {"left": (0, 0, 64, 128), "right": (64, 0, 128, 128), "above": (0, 0, 128, 64), "below": (0, 64, 128, 128)}
    for side, half in halves.items():
        result = await client.run(
            "stability/replace-background-and-relight",
            subject_image=grey,
            background_prompt="x",
            keep_original_background="true",
            light_source_direction=side,
            light_source_strength=1,
        )
        image = open_image(result.artifacts[0].data).convert("L")
        assert ImageStat.Stat(image.crop(half)).mean[0] > ImageStat.Stat(image).mean[0] + 10


async def test_image_to_image_keeps_more_with_less_strength(client: impasto.Client) -> None:
    base = DRAWING.resize((148, 111))
    distances = []
    for strength in (0, 0.3, 1):
        result = await client.run("stability/sd3", prompt="night city", image=IMAGE, strength=strength, seed=1)
        image = open_image(result.artifacts[0].data).resize(base.size)
        distances.append(ImageStat.Stat(ImageChops.difference(image, base).convert("L")).mean[0])
    assert distances == sorted(distances)
    assert distances[2] > distances[0] + 20


@pytest.mark.parametrize(("word", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
async def test_the_prompts_colour_is_in_the_image(client: impasto.Client, word: str, channel: int) -> None:
    result = await client.run("stability/sd3", prompt=f"{word} hills on a summer day", seed=11)
    plain = await client.run("stability/sd3", prompt="hills on a summer day", seed=11)
    with_word, without = (
        ImageStat.Stat(open_image(each.artifacts[0].data)).mean[channel]
        - sum(ImageStat.Stat(open_image(each.artifacts[0].data)).mean) / 3
        for each in (result, plain)
    )
    assert with_word > without + 5


async def test_two_clients_have_an_emulator_each(client: impasto.Client) -> None:
    async with impasto.Client(transport="emulator", providers={"emulator": {"credits": 1}}) as poor:
        with pytest.raises(impasto.PaymentRequired):
            await poor.run("stability/sd3", prompt="x")
        assert (await client.run("stability/sd3", prompt="x")).artifacts


async def test_wrong_settings_are_errors_with_their_names() -> None:
    async with impasto.Client(transport="emulator", providers={"emulator": {"image_scale": 2, "colour": 1}}) as client:
        with pytest.raises(impasto.ConfigError, match="unknown parameter 'colour'") as caught:
            await client.run("stability/sd3", prompt="x")
    assert "image_scale" in str(caught.value) or "colour" in str(caught.value)


def _changed(image: Image.Image, before: Image.Image) -> tuple[int, int, int, int] | None:
    """The box of what is different."""
    return ImageChops.difference(image.convert("RGB"), before.convert("RGB")).getbbox()
