"""Objects that a prompt may name: a few shapes each, in units of their height, from the middle of their foot."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import attrs
from PIL import Image, ImageDraw

from .palette import Colour, Palette, mix

_DARK: Colour = (20, 18, 30)
_WHITE: Colour = (250, 246, 235)
_WOOD: Colour = (96, 62, 40)


@attrs.frozen(eq=False)
class Spot:
    """The place of an object, its height in pixels, and its colours."""

    pen: ImageDraw.ImageDraw
    x: float
    y: float
    tall: float
    colours: Palette
    rng: random.Random

    def poly(self, colour: Colour, *points: float) -> None:
        """Draw a polygon. Points are x and y in turn, in heights of the object."""
        at = zip(points[::2], points[1::2], strict=True)
        self.pen.polygon([(self.x + self.tall * x, self.y - self.tall * y) for x, y in at], fill=colour)

    def oval(self, colour: Colour, x: float, y: float, r: float, squeeze: float = 1.0) -> None:
        """Draw an oval around x and y with the radius r, which ``squeeze`` narrows."""
        cx, cy, wide, high = self.x + self.tall * x, self.y - self.tall * y, self.tall * r * squeeze, self.tall * r
        self.pen.ellipse((cx - wide, cy - high, cx + wide, cy + high), fill=colour)

    def box(self, colour: Colour, left: float, bottom: float, right: float, top: float) -> None:
        """Draw a rectangle."""
        self.poly(colour, left, bottom, right, bottom, right, top, left, top)

    def lit(self, colour: Colour, share: float = 0.3) -> Colour:
        """Return a colour with a share of the light's colour."""
        return mix(colour, self.colours.light, share)


def dark(colour: Colour, share: float = 0.35) -> Colour:
    """Return the colour of the shaded side."""
    return mix(colour, _DARK, share)


def lighthouse(s: Spot) -> None:
    """Draw a lighthouse."""
    s.poly(dark(s.colours.near, 0.3), -0.55, -0.1, -0.28, 0.06, 0, 0.1, 0.3, 0.04, 0.6, -0.1)
    for band in range(5):
        low, high = 0.06 + 0.132 * band, 0.06 + 0.132 * (band + 1)
        left, right = 0.13 - 0.011 * band, 0.13 - 0.011 * (band + 1)
        colour = s.colours.accent if band % 2 else s.lit(_WHITE, 0.2)
        s.poly(colour, -left, low, left, low, right, high, -right, high)
        s.poly(dark(colour), left * 0.25, low, left, low, right, high, right * 0.25, high)
    s.box(_DARK, -0.11, 0.71, 0.11, 0.735)
    s.box(s.colours.light, -0.06, 0.735, 0.06, 0.82)
    s.poly(_DARK, -0.09, 0.82, 0.09, 0.82, 0, 0.9)


def boat(s: Spot) -> None:
    """Draw a boat."""
    sail = s.lit(_WHITE)
    s.poly(dark(s.colours.accent), -0.4, 0.12, 0.42, 0.12, 0.28, 0, -0.28, 0)
    s.box(_DARK, -0.015, 0.1, 0.015, 1)
    s.poly(sail, 0.03, 0.95, 0.03, 0.2, 0.4, 0.2)
    s.poly(mix(sail, s.colours.accent, 0.45), -0.03, 0.85, -0.03, 0.2, -0.32, 0.2)


def pine(s: Spot) -> None:
    """Draw a pine."""
    green = s.lit(mix(s.colours.near, (30, 92, 52), 0.55), s.rng.uniform(0, 0.12))
    s.box(dark(_WOOD, 0.3), -0.03, 0, 0.03, 0.15)
    for step in range(3):
        low, wide = 0.1 + 0.26 * step, 0.26 - 0.07 * step
        s.poly(green, -wide, low, wide, low, 0, low + 0.4)
        s.poly(dark(green), wide * 0.1, low, wide, low, 0, low + 0.4)


def tree(s: Spot) -> None:
    """Draw a tree."""
    s.poly(dark(_WOOD, 0.3), -0.05, 0, 0.05, 0, 0.02, 0.5, -0.02, 0.5)
    crown = mix(s.colours.accent, (90, 140, 60), 0.35)
    for _ in range(14):
        y = s.rng.uniform(0.45, 0.88)
        tone = mix(crown, s.colours.light if y > 0.68 else _DARK, s.rng.uniform(0.05, 0.4))
        s.oval(tone, s.rng.uniform(-0.25, 0.25), y, s.rng.uniform(0.1, 0.18))


def house(s: Spot) -> None:
    """Draw a house."""
    wall = s.lit((240, 228, 205))
    s.box(wall, -0.5, 0, 0.5, 0.55)
    s.box(dark(wall, 0.25), 0.15, 0, 0.5, 0.55)
    s.poly(mix(s.colours.accent, (140, 40, 30), 0.4), -0.62, 0.52, 0.62, 0.52, 0.1, 1, -0.2, 1)
    s.box(dark(_WOOD, 0.2), -0.12, 0, 0.06, 0.32)
    for at in (-0.36, 0.24):
        s.box((255, 214, 120), at, 0.26, at + 0.15, 0.42)


def tower(s: Spot) -> None:
    """Draw one building of a city."""
    wide, rng = s.rng.uniform(0.1, 0.2), s.rng
    wall = mix(s.colours.near, s.colours.sky[1], rng.uniform(0.15, 0.7))
    s.box(wall, -wide, 0, wide, 1)
    s.box(dark(wall, 0.4), wide * 0.3, 0, wide, 1)
    step = wide / 1.6
    for row in range(1, int(0.94 / step)):
        for column in range(-1, 1):
            if rng.random() < 0.5:
                left, top = (column + 0.25) * step, 1 - row * step
                lamp = mix(s.colours.light, s.colours.accent, rng.random() * 0.6)
                s.box(lamp, left, top - step * 0.5, left + step * 0.5, top)


def balloon(s: Spot) -> None:
    """Draw a balloon."""
    accent = s.colours.accent
    s.oval(accent, 0, 0.62, 0.36)
    s.poly(accent, -0.33, 0.48, 0.33, 0.48, 0.07, 0.12, -0.07, 0.12)
    s.oval((255, 240, 210), 0, 0.62, 0.36, 0.62)
    s.oval(dark(accent, 0.25), 0, 0.62, 0.36, 0.24)
    s.box(_WOOD, -0.07, 0, 0.07, 0.09)


def mountain(s: Spot) -> None:
    """Draw a mountain."""
    rock = dark(s.colours.far, 0.15)
    s.poly(rock, -1.1, 0, 0, 1, 1.2, 0)
    s.poly(dark(rock), 0, 1, 1.2, 0, 0.1, 0, 0.16, 0.5)
    snow = s.lit((250, 250, 252))
    s.poly(snow, -0.34, 0.7, 0, 1, 0.36, 0.7, 0.16, 0.76, 0.04, 0.62, -0.14, 0.74)


def flower(s: Spot) -> None:
    """Draw a flower."""
    s.box((50, 100, 50), -0.03, 0, 0.03, 0.6)
    other = s.rng.choice(((255, 255, 255), (255, 200, 60), (230, 80, 140)))
    petal = mix(s.colours.accent, other, s.rng.random() * 0.6)
    for dx, dy in ((-0.2, 0), (0.2, 0), (0, -0.2), (0, 0.2)):
        s.oval(petal, dx, 0.75 + dy, 0.2)
    s.oval((255, 205, 80), 0, 0.75, 0.12)


def bird(s: Spot) -> None:
    """Draw a bird."""
    tone = dark(s.colours.near, 0.4)
    s.poly(tone, -1, 0.5, -0.4, 0.75, 0, 0.35, 0.4, 0.75, 1, 0.5, 0.4, 0.55, 0, 0.15, -0.4, 0.55)


def cat(s: Spot) -> None:
    """Draw an animal that sits and looks at you."""
    coat = mix(s.colours.accent, (120, 80, 50), 0.4)
    s.oval(dark(coat, 0.15), 0, 0.28, 0.3, 0.85)
    s.oval(coat, 0, 0.26, 0.24, 0.8)
    s.oval(coat, 0, 0.68, 0.2, 1.1)
    for side in (-1, 1):
        s.poly(coat, side * 0.2, 0.72, side * 0.19, 0.98, side * 0.04, 0.84)
        s.oval((250, 240, 150), side * 0.09, 0.7, 0.045)
        s.oval(_DARK, side * 0.09, 0.7, 0.03, 0.5)
        s.oval(coat, side * 0.12, 0.04, 0.06, 1.4)
    s.poly((200, 110, 110), -0.03, 0.63, 0.03, 0.63, 0, 0.59)


def person(s: Spot) -> None:
    """Draw a person."""
    coat = dark(s.colours.accent, 0.2)
    s.poly(coat, -0.22, 0, 0.22, 0, 0.11, 0.72, -0.11, 0.72)
    s.poly(dark(coat, 0.45), 0.04, 0, 0.22, 0, 0.11, 0.72)
    s.oval(s.lit((235, 200, 170)), 0, 0.83, 0.11, 0.85)
    s.poly(_DARK, -0.14, 0.88, 0.14, 0.88, 0.07, 0.98, -0.07, 0.98)


@attrs.frozen
class Motif:
    """The number of an object, its height (a share of the picture's), and its place.

    The place is a share of the way from the horizon (0) to the lower edge (1); in the sky it is below 0.
    """

    draw: Callable[[Spot], None]
    many: tuple[int, int]
    tall: tuple[float, float]
    depth: tuple[float, float]
    spread: tuple[float, float] = (0.15, 0.85)


_FOREST = Motif(pine, (22, 34), (0.14, 0.4), (0.05, 0.95), (-0.02, 1.02))
_WOODS = Motif(tree, (5, 8), (0.25, 0.45), (0.2, 0.85), (0.0, 1.0))
_CITY = Motif(tower, (16, 24), (0.18, 0.5), (0.02, 0.2), (-0.02, 1.02))
_PEAKS = Motif(mountain, (2, 4), (0.2, 0.42), (0.02, 0.1), (0.0, 1.0))
_MEADOW = Motif(flower, (40, 60), (0.035, 0.12), (0.45, 1.05), (0.0, 1.0))
_BEAST = Motif(cat, (1, 1), (0.5, 0.6), (0.8, 0.9), (0.35, 0.65))

MOTIFS = {
    "mountain": _PEAKS,
    "alp": _PEAKS,
    "peak": _PEAKS,
    "city": _CITY,
    "skyline": _CITY,
    "cyberpunk": _CITY,
    "forest": _FOREST,
    "pine": _FOREST,
    "wood": _FOREST,
    "jungle": _FOREST,
    "tree": _WOODS,
    "park": _WOODS,
    "autumn": _WOODS,
    "bird": Motif(bird, (5, 9), (0.02, 0.04), (-0.8, -0.3), (0.1, 0.9)),
    "balloon": Motif(balloon, (2, 4), (0.16, 0.34), (-0.75, -0.15)),
    "house": Motif(house, (1, 2), (0.2, 0.28), (0.25, 0.6)),
    "cottage": Motif(house, (1, 1), (0.24, 0.3), (0.3, 0.6)),
    "castle": Motif(tower, (5, 7), (0.25, 0.45), (0.1, 0.2), (0.35, 0.65)),
    "boat": Motif(boat, (1, 3), (0.16, 0.3), (0.25, 0.7)),
    "ship": Motif(boat, (1, 1), (0.4, 0.5), (0.3, 0.5)),
    "sail": Motif(boat, (1, 2), (0.25, 0.4), (0.3, 0.6)),
    "lighthouse": Motif(lighthouse, (1, 1), (0.6, 0.7), (0.12, 0.2), (0.28, 0.72)),
    "flower": _MEADOW,
    "meadow": _MEADOW,
    "garden": _MEADOW,
    "person": Motif(person, (1, 1), (0.4, 0.5), (0.7, 0.85), (0.3, 0.7)),
    "woman": Motif(person, (1, 1), (0.4, 0.5), (0.7, 0.85), (0.3, 0.7)),
    "man": Motif(person, (1, 1), (0.4, 0.5), (0.7, 0.85), (0.3, 0.7)),
    "people": Motif(person, (4, 7), (0.12, 0.25), (0.3, 0.8)),
    "cat": _BEAST,
    "dog": _BEAST,
    "fox": _BEAST,
}
"""Drawings by word, from the background to the front."""


def place_motifs(
    picture: Image.Image, words: Sequence[str], colours: Palette, rng: random.Random, horizon: int
) -> None:
    """Draw the objects that the words name, the farthest first."""
    name_set = set(words)
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    for motif in dict.fromkeys(motif for word, motif in MOTIFS.items() if word in name_set):
        depths = sorted(rng.uniform(*motif.depth) for _ in range(rng.randint(*motif.many)))
        for depth in depths:
            below = height - horizon if depth > 0 else horizon
            near = (depth - motif.depth[0]) / (motif.depth[1] - motif.depth[0])
            tall = height * (motif.tall[0] + (motif.tall[1] - motif.tall[0]) * near)
            x = width * rng.uniform(*motif.spread)
            motif.draw(Spot(pen, x, horizon + below * depth, tall, colours, rng))
