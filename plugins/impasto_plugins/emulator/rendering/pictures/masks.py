"""Which part of a picture an edit is about. White is edited, black kept."""

from __future__ import annotations

import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from .sizes import Size
from .task import Task


def edit_mask(task: Task, image: Image.Image) -> Image.Image:
    """The mask of an edit, of the picture's size: the one that was sent, else the picture's transparency, grown."""
    if task.given("mask"):
        sent = task.image("mask")
        # a mask's own transparency means nothing; its light does
        mask = sent.convert("L").resize(image.size, Image.Resampling.BILINEAR)
    elif image.mode == "RGBA":
        mask = ImageOps.invert(image.getchannel("A"))
    else:
        mask = Image.new("L", image.size, 0)
    return grown(mask, round(task.number("grow_mask")))


def grown(mask: Image.Image, pixels: int) -> Image.Image:
    """A mask whose white reaches so many pixels farther each way, corners included."""
    reach = 0
    while reach < pixels:
        step = min(reach + 1, pixels - reach)  # what reaches r pixels can move by r + 1 and leave no gap
        for x, y in ((step, 0), (0, step)):
            mask = ImageChops.lighter(mask, ImageChops.lighter(_moved(mask, x, y), _moved(mask, -x, -y)))
        reach += step
    return mask


def found(size: Size, what: str) -> Image.Image:
    """Where a thing that is searched for by its name is said to be: a soft oval near the middle, the same each time."""
    rng = random.Random(what)  # noqa: S311 - a place, no secret
    width, height = size
    wide, tall = width * rng.uniform(0.18, 0.26), height * rng.uniform(0.18, 0.26)
    x, y = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.58)
    return oval(size, (x - wide, y - tall, x + wide, y + tall), min(size) / 40)


def subject(size: Size) -> Image.Image:
    """Where a picture's subject is taken to be: the middle, without the corners."""
    width, height = size
    return oval(size, (width * 0.12, height * 0.08, width * 0.88, height * 0.95), min(size) / 40)


def times(mask: Image.Image, factor: float) -> Image.Image:
    """A mask made stronger or weaker."""
    return mask.point([min(255, round(value * factor)) for value in range(256)])


def oval(size: Size, box: tuple[float, float, float, float], soft: float) -> Image.Image:
    """A white oval on black, with an edge that many pixels soft."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask.filter(ImageFilter.GaussianBlur(soft))


def filled(image: Image.Image, hole: Image.Image) -> Image.Image:
    """The picture with what the mask ``hole`` covers closed from its surroundings."""
    known = image.convert("RGB")
    known.putalpha(ImageOps.invert(hole).point([0] * 255 + [255]))
    levels = [known]
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


def _moved(mask: Image.Image, x: int, y: int) -> Image.Image:
    moved = Image.new("L", mask.size, 0)
    moved.paste(mask, (x, y))
    return moved
