"""Thick paint: a picture repainted in strokes that follow its shapes, lit from the upper left."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from functools import lru_cache

import attrs
from PIL import Image, ImageChops, ImageDraw, ImageFilter

_ANGLES = 16
_BRUSHES = 3
_SAMPLES = 160
"""The longest side of the copy in which colours are looked up."""

_SHORTEST = 8
"""Pixels below which a stroke is not painted: a small picture has broad strokes only."""

_LEAST_SIDE = 64
"""The side below which pictures, which only tests request, stay flat."""

Stamp = Image.Image
Spot = tuple[float, float]


def paint(base: Image.Image, rng: random.Random, *, coarse: float = 0.055, relief: float = 0.5) -> Image.Image:
    """Repaint ``base``: broad strokes all over, finer ones, and the finest at edges.

    ``coarse`` is the length of the broadest strokes as a share of the shorter side.
    """
    side = min(base.size)
    if side < _LEAST_SIDE:
        return base
    easel = _Easel(base.copy(), Image.new("L", base.size, 96), _ImageMap(base), rng)
    for share, cover in ((1.0, 1.6), (0.5, 0.9)):
        length = round(side * coarse * share)
        if length < _SHORTEST and share < 1:
            break
        length = max(_SHORTEST, length)
        count = round(cover * base.width * base.height / (length * (length // 3)))
        easel.lay(length, ((rng.random(), rng.random()) for _ in range(count)), 22)
    if (length := round(side * coarse * 0.28)) >= _SHORTEST:
        easel.lay(length, easel.look.edges(rng), 10)
    return _apply_light(easel.canvas, easel.height, relief)


class _ImageMap:
    """Colours and directions of a picture at any spot (0..1 each way)."""

    def __init__(self, base: Image.Image) -> None:
        scale = min(1.0, _SAMPLES / max(base.size))
        self.size = max(3, round(base.width * scale)), max(3, round(base.height * scale))
        small = base.resize(self.size, Image.Resampling.BOX)
        self._data = small.tobytes()
        self._light = small.convert("L").filter(ImageFilter.GaussianBlur(1.5)).tobytes()
        self._edges = small.convert("L").filter(ImageFilter.FIND_EDGES).tobytes()

    def colour(self, spot: Spot) -> tuple[int, int, int]:
        at = 3 * self._at(spot)
        data = self._data
        return data[at], data[at + 1], data[at + 2]

    def angle(self, spot: Spot, flow: float) -> int:
        """Return the direction along the shapes, in sixteenths of a half turn."""
        width, height = self.size
        x = min(width - 2, max(1, int(spot[0] * width)))
        y = min(height - 2, max(1, int(spot[1] * height)))
        light, at = self._light, y * width + x
        across, down = light[at + 1] - light[at - 1], light[at + width] - light[at - width]
        if abs(across) + abs(down) < 5:
            turn = 0.28 * math.sin(3.1 * spot[0] + 5.3 * spot[1] + flow)
        else:
            turn = math.atan2(-across, down)
        return round(-turn / math.pi * _ANGLES) % _ANGLES

    def edges(self, rng: random.Random) -> list[Spot]:
        """Spots at edges, in no order."""
        width, height = self.size
        strong_edges = [at for at, strength in enumerate(self._edges) if strength > 24]
        inner = [at for at in strong_edges if 0 < at % width < width - 1 and 0 < at // width < height - 1]
        rng.shuffle(inner)
        return [((at % width + rng.random()) / width, (at // width + rng.random()) / height) for at in inner[:5000]]

    def _at(self, spot: Spot) -> int:
        width, height = self.size
        return min(height - 1, int(spot[1] * height)) * width + min(width - 1, int(spot[0] * width))


@attrs.frozen(eq=False)
class _Easel:
    """A picture in progress, and the height of its paint."""

    canvas: Image.Image
    height: Image.Image
    look: _ImageMap
    rng: random.Random

    def lay(self, length: int, spots: Iterable[Spot], jitter: int) -> None:
        """Paint one stroke of about ``length`` pixels at each spot, its colour off by up to ``jitter``."""
        stamps = _stamps(length)
        wide, tall = self.canvas.size
        chance, look = self.rng.random, self.look
        flow = chance() * 6
        for spot in spots:
            turn = (look.angle(spot, flow) + (1 if chance() < 0.3 else 0)) % _ANGLES
            stamp = stamps[turn][int(chance() * _BRUSHES)]
            corner = round(spot[0] * wide - stamp.width / 2), round(spot[1] * tall - stamp.height / 2)
            red, green, blue = look.colour(spot)
            brighter = int((chance() - 0.5) * 2 * jitter)
            warmer = int((chance() - 0.5) * jitter)
            self.canvas.paste((red + brighter + warmer, green + brighter, blue + brighter - warmer), corner, stamp)
            self.height.paste(int(64 + 160 * chance()), corner, stamp)


@lru_cache(maxsize=32)
def _stamps(length: int) -> list[list[Stamp]]:
    """Brush marks by angle: streaks of bristles with a rough outline, as masks. The same in every picture."""
    rng = random.Random(length)  # noqa: S311 - bristles
    width = max(2, length // 3)
    brushes = []
    for _ in range(_BRUSHES):
        bristles = Image.frombytes("L", (3, width), bytes(rng.randrange(90, 256) for _ in range(3 * width)))
        mark = bristles.resize((length, width), Image.Resampling.BICUBIC)
        outline = Image.new("L", (length * 2, width * 2), 0)
        ImageDraw.Draw(outline).rounded_rectangle((1, 1, length * 2 - 2, width * 2 - 2), width, fill=255)
        brushes.append(ImageChops.multiply(mark, outline.resize(mark.size, Image.Resampling.BOX)))
    return [
        [brush.rotate(180 * turn / _ANGLES, Image.Resampling.BILINEAR, expand=True) for brush in brushes]
        for turn in range(_ANGLES)
    ]


def _apply_light(canvas: Image.Image, height: Image.Image, relief: float) -> Image.Image:
    """Light from the upper left on ridges of paint."""
    step = max(1, round(min(canvas.size) / 700))
    shifted = ImageChops.offset(height, step, step)
    slope = ImageChops.subtract(height, shifted, scale=1 / relief * 2, offset=128)
    slope = slope.filter(ImageFilter.GaussianBlur(step * 0.6))
    return ImageChops.hard_light(canvas, Image.merge("RGB", (slope, slope, slope)))
