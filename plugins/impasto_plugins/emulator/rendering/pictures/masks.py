"""The area of an edit. White is edited, black kept."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from .sizes import Size
from .task import RenderTask


def edit_mask(task: RenderTask, image: Image.Image) -> Image.Image:
    """Return the mask of an edit in the picture's size: the uploaded one, or the picture's transparency, grown."""
    if task.has("mask"):
        uploaded_mask = task.image("mask")
        # a mask's own transparency means nothing; its light does
        mask = uploaded_mask.convert("L").resize(image.size, Image.Resampling.BILINEAR)
    elif image.mode == "RGBA":
        mask = ImageOps.invert(image.getchannel("A"))
    else:
        mask = Image.new("L", image.size, 0)
    return grow(mask, round(task.number("grow_mask")))


def grow(mask: Image.Image, pixels: int) -> Image.Image:
    """Return a mask whose white reaches so many pixels farther each way, corners included."""
    reach = 0
    while reach < pixels:
        step = min(reach + 1, pixels - reach)  # what reaches r pixels can move by r + 1 and leave no gap
        for x, y in ((step, 0), (0, step)):
            mask = ImageChops.lighter(mask, ImageChops.lighter(_shift(mask, x, y), _shift(mask, -x, -y)))
        reach += step
    return mask


def locate(size: Size, what: str) -> Image.Image:
    """Return the area of an object that is searched by name: a soft oval near the middle, the same each time."""
    rng = random.Random(what)  # noqa: S311 - a place, no secret
    width, height = size
    wide, tall = width * rng.uniform(0.18, 0.26), height * rng.uniform(0.18, 0.26)
    x, y = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.58)
    return oval(size, (x - wide, y - tall, x + wide, y + tall), min(size) / 40)


def subject(size: Size) -> Image.Image:
    """Return the area of a picture's subject: the middle, without the corners."""
    width, height = size
    return oval(size, (width * 0.12, height * 0.08, width * 0.88, height * 0.95), min(size) / 40)


def scale_strength(mask: Image.Image, factor: float) -> Image.Image:
    """Return a stronger or weaker mask."""
    return mask.point([min(255, round(value * factor)) for value in range(256)])


def oval(size: Size, box: tuple[float, float, float, float], soft: float) -> Image.Image:
    """Return a white oval on black, with an edge of so many pixels."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(soft))


def fill(image: Image.Image, hole: Image.Image) -> Image.Image:
    """Return the picture with the mask ``hole`` filled from its surroundings."""
    source = image.convert("RGB")
    source.putalpha(ImageOps.invert(hole).point([0] * 255 + [255]))
    levels = [source]
    while min(levels[-1].size) > 1:
        last = levels[-1]
        # resizing weighs colours by their alpha, so what is unknown adds nothing
        levels.append(last.resize(((last.width + 1) // 2, (last.height + 1) // 2), Image.Resampling.BOX))
    result = levels[-1].convert("RGB")
    for level in reversed(levels[:-1]):
        result = result.resize(level.size, Image.Resampling.BILINEAR)
        solid = level.getchannel("A")
        result = Image.composite(level.convert("RGB"), result, solid)
    return result


def _shift(mask: Image.Image, x: int, y: int) -> Image.Image:
    shifted_mask = Image.new("L", mask.size, 0)
    shifted_mask.paste(mask, (x, y))
    return shifted_mask
