"""A scene from words: sky, light, ridges, water and objects. Drawn flat; the brush turns it into paint."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from . import motifs
from .brush import paint
from .palette import Colour, Palette, choose_palette, mix, split_words
from .sizes import Size

_FLAT = 720
"""The longest side at which a scene is drawn; the brush works at the full size."""

_WATER = frozenset(
    ("ocean", "sea", "lake", "river", "beach", "coast", "harbor", "harbour", "island", "bay", "water", "wave", "boat",
     "ship", "sail", "lighthouse")
)  # fmt: skip
_NIGHT = frozenset(("night", "moon", "star", "starry", "midnight", "space", "galaxy"))


def draw_scene(
    prompt: str, seed: int, size: Size, *, without: str = "", palette: Palette | None = None, relief: float = 0.5
) -> Image.Image:
    """Return a painting of a prompt, without the objects that ``without`` names."""
    rng = random.Random(f"{seed} {prompt} {without}")  # noqa: S311 - a picture, no secret
    unwanted = set(split_words(without))
    words = [word for word in split_words(prompt) if word not in unwanted]
    colours = palette or choose_palette(words, rng)
    scale = min(1.0, _FLAT / max(size))
    flat = _flat(words, colours, rng, (max(16, round(size[0] * scale)), max(16, round(size[1] * scale))))
    return paint(flat.resize(size, Image.Resampling.BICUBIC), rng, relief=relief)


def _flat(words: Sequence[str], colours: Palette, rng: random.Random, size: Size) -> Image.Image:
    height = size[1]
    horizon = round(height * rng.uniform(0.52, 0.64))
    picture = _sky(colours, size, horizon)
    night = not _NIGHT.isdisjoint(words)
    if night:
        _stars(picture, rng, horizon)
    sun = _light(picture, colours, rng, horizon, small=night)
    _clouds(picture, colours, rng, horizon)
    wet = not _WATER.isdisjoint(words)
    ridges = rng.randint(1, 2) if wet else 4
    for index in range(ridges):
        share = index / max(1, ridges - 1)
        top = horizon - height * (0.13 - 0.05 * share) + (0 if wet else height * 0.36 * share)
        rough = height * (0.16 if not wet else 0.09)
        colour = mix(colours.far, colours.near, share * 0.85)
        line = ridge_line(rng, size[0], top, rough)
        _ridge(picture, line, horizon if wet else height, colour, colours.light)
    if wet:
        _water(picture, colours, rng, horizon, sun)
        _shore(picture, colours, rng)
    motifs.place_motifs(picture, words, colours, rng, horizon)
    return picture


def gradient(size: Size, *colours: Colour) -> Image.Image:
    """Return colours from top to bottom."""
    strip = Image.new("RGB", (1, len(colours)))
    strip.putdata(colours)
    tall = Image.new("RGB", (1, len(colours) + 2))  # its ends doubled, so that they keep their colour
    tall.paste(strip.crop((0, 0, 1, 1)), (0, 0))
    tall.paste(strip, (0, 1))
    tall.paste(strip.crop((0, len(colours) - 1, 1, len(colours))), (0, len(colours) + 1))
    box = (0, 0.75, 1, len(colours) + 1.25)
    return tall.resize(size, Image.Resampling.BICUBIC, box=box)


def _sky(colours: Palette, size: Size, horizon: int) -> Image.Image:
    picture = Image.new("RGB", size, colours.sky[2])
    picture.paste(gradient((size[0], max(1, horizon)), *colours.sky), (0, 0))
    return picture


def _stars(picture: Image.Image, rng: random.Random, horizon: int) -> None:
    pen = ImageDraw.Draw(picture)
    for _ in range(90):
        x, y = rng.random() * picture.width, rng.random() ** 1.5 * horizon
        r = max(0.6, picture.width / 420 * rng.random())
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 250, 220))


def _light(picture: Image.Image, colours: Palette, rng: random.Random, horizon: int, *, small: bool) -> float:
    """Draw the sun, or the moon, in its glow. Return its distance from the left."""
    side = min(picture.size)
    r = side * (0.05 if small else rng.uniform(0.06, 0.1))
    x, y = picture.width * rng.uniform(0.2, 0.8), horizon * rng.uniform(0.25, 0.8)
    for reach, strength in ((4.5, 70), (2.2, 110)):
        glow = Image.new("L", picture.size, 0)
        ImageDraw.Draw(glow).ellipse((x - r * reach, y - r * reach, x + r * reach, y + r * reach), fill=strength)
        glow = glow.filter(ImageFilter.GaussianBlur(r * reach / 2.5))
        picture.paste(Image.new("RGB", picture.size, colours.light), (0, 0), glow)
    ImageDraw.Draw(picture).ellipse((x - r, y - r, x + r, y + r), fill=colours.light)
    return x


def _clouds(picture: Image.Image, colours: Palette, rng: random.Random, horizon: int) -> None:
    mask = Image.new("L", picture.size, 0)
    pen = ImageDraw.Draw(mask)
    for _ in range(rng.randint(2, 5)):
        x, y = rng.uniform(-0.1, 1.0) * picture.width, rng.uniform(0.08, 0.7) * horizon
        for _ in range(rng.randint(4, 8)):
            wide, tall = picture.width * rng.uniform(0.06, 0.2), picture.height * rng.uniform(0.008, 0.03)
            pen.ellipse((x, y, x + wide, y + tall), fill=rng.randint(70, 170))
            x, y = x + wide * rng.uniform(0.1, 0.5), y + tall * rng.uniform(-0.6, 0.6)
    mask = mask.filter(ImageFilter.GaussianBlur(picture.width / 160))
    picture.paste(Image.new("RGB", picture.size, mix(colours.sky[2], colours.light, 0.6)), (0, 0), mask)


def ridge_line(rng: random.Random, width: float, top: float, rough: float) -> list[tuple[float, float]]:
    """Return a line of hills from left to right, by halving."""
    heights = [rng.uniform(-1, 1), rng.uniform(-1, 1)]
    amount = 1.0
    for _ in range(6):
        amount *= 0.56
        middles = [(a + b) / 2 + rng.uniform(-amount, amount) for a, b in pairwise(heights)]
        heights = [value for pair in zip(heights, [*middles, 0.0], strict=False) for value in pair][:-1]
    last = len(heights) - 1
    return [(width * i / last, top - rough * value) for i, value in enumerate(heights)]


def _ridge(picture: Image.Image, line: list[tuple[float, float]], floor: int, colour: Colour, light: Colour) -> None:
    """Draw land from a line of hills down to ``floor``, its crest in the light."""
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).polygon([(0, floor), *line, (picture.width, floor)], fill=255)
    highest = max(0, min(round(y) for _, y in line))
    lit = Image.new("RGB", picture.size, colour)
    tones = mix(colour, light, 0.32), colour, mix(colour, (0, 0, 0), 0.35)
    lit.paste(gradient((picture.width, max(1, floor - highest)), *tones), (0, highest))
    picture.paste(lit, (0, 0), mask)


def _water(picture: Image.Image, colours: Palette, rng: random.Random, horizon: int, sun: float) -> None:
    """Draw the sky upside down, darker, in waves, with the sun's path on it."""
    width, height = picture.size
    depth = height - horizon
    mirrored = picture.crop((0, max(0, horizon - depth), width, horizon)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mirrored = mirrored.resize((width, depth)).filter(ImageFilter.GaussianBlur(width / 40))
    deep = gradient((width, depth), mix(colours.sky[1], (20, 60, 90), 0.4), mix(colours.sky[0], (8, 24, 48), 0.5))
    water = ImageEnhance.Brightness(Image.blend(mirrored, deep, 0.45)).enhance(0.92)
    pen = ImageDraw.Draw(water)
    thin = max(1, round(height * 0.005))
    share = min(1.0, height / 300)  # a small picture has room for few waves
    for _ in range(round(110 * share)):
        y = rng.random() ** 1.6 * depth
        wide = width * (0.02 + 0.14 * y / max(1, depth)) * rng.random()
        x = rng.random() * width
        bright = rng.random() < 0.5
        colour = mix(colours.sky[1], colours.light if bright else (0, 20, 40), 0.55)
        pen.line((x, y, x + wide, y), fill=colour, width=thin)
    for _ in range(round(60 * share)):
        y = rng.random() * depth
        wide = width * (0.01 + 0.05 * y / max(1, depth)) * (0.4 + rng.random())
        x = sun + rng.gauss(0, 1) * width * (0.012 + 0.03 * y / max(1, depth))
        pen.line((x - wide, y, x + wide, y), fill=mix(colours.light, colours.sky[2], rng.random() * 0.6), width=thin)
    picture.paste(water, (0, horizon))


def _shore(picture: Image.Image, colours: Palette, rng: random.Random) -> None:
    """Draw land in a lower corner."""
    width, height = picture.size
    line = ridge_line(rng, width * rng.uniform(0.5, 0.8), height * 0.93, height * 0.05)
    points = [(0.0, float(height)), *line, (line[-1][0] + width * 0.1, float(height))]
    if rng.random() < 0.5:
        points = [(width - x, y) for x, y in points]
    ImageDraw.Draw(picture).polygon(points, fill=colours.near)
