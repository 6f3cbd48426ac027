"""Colours that a prompt asks for: by its moods (sunset, winter, ...) and by the names of colours in it."""

from __future__ import annotations

import random
import re

import attrs
from PIL import ImageColor

Colour = tuple[int, int, int]


@attrs.frozen
class Palette:
    """Sky from top to horizon, land from far to near, the light's colour, and one that stands out."""

    sky: tuple[Colour, Colour, Colour]
    far: Colour
    near: Colour
    light: Colour
    accent: Colour


def _palette(*colours: str) -> Palette:
    top, middle, low, far, near, light, accent = (rgb(each) for each in colours)
    return Palette((top, middle, low), far, near, light, accent)


def rgb(text: str) -> Colour:
    """Return a colour by its name or hex digits."""
    red, green, blue, *_ = ImageColor.getrgb(text)
    return red, green, blue


MOODS = {
    "sunset": _palette("#2b2a5e", "#c8553d", "#ffb84d", "#6d4a73", "#231a33", "#ffe9a8", "#ff5d5d"),
    "dawn": _palette("#6d8fc7", "#f2a7a0", "#ffe3c2", "#8a86b5", "#35405f", "#fff4d6", "#f26d7d"),
    "day": _palette("#2f7fc4", "#7cb9e8", "#e8f1e4", "#7ba7a3", "#3f6b3a", "#fff6c9", "#e2573f"),
    "night": _palette("#0b1030", "#1c2f66", "#41588f", "#22335c", "#0d1526", "#f4efd2", "#f5c451"),
    "storm": _palette("#2c3540", "#55636f", "#a9b3b0", "#4d5a60", "#22292c", "#e7ecdf", "#d9a441"),
    "autumn": _palette("#5c86b0", "#e6c79c", "#f6e4bd", "#b3703a", "#6e2f1d", "#fff0c2", "#d9381e"),
    "winter": _palette("#7f9fc2", "#c5d6e6", "#f4f1ea", "#a9bcd0", "#5f7591", "#fffdf2", "#b5453c"),
    "desert": _palette("#3c8dbc", "#a9cfd6", "#f9dfb0", "#d99a5b", "#9b4f2c", "#fff1bf", "#2a9d8f"),
    "neon": _palette("#140a2e", "#4a1a75", "#d4418e", "#2c1a5c", "#0d0a1f", "#7df9ff", "#39ff88"),
}
"""Palettes by mood; if a prompt names none, the seed picks one of the first four."""

_WORDS = {
    "sunset": "sunset dusk evening fire lava volcano golden",
    "dawn": "dawn sunrise morning spring blossom pastel cherry",
    "day": "day noon summer meadow field garden beach island sunny",
    "night": "night moon stars starry midnight dark space galaxy",
    "storm": "storm rain rainy fog foggy mist misty grey gray thunder gloomy",
    "autumn": "autumn fall october harvest maple",
    "winter": "winter snow snowy ice icy frost glacier arctic cold",
    "desert": "desert dune dunes canyon sand sahara",
    "neon": "neon cyberpunk synthwave city future robot",
}
_MOOD_OF = {word: mood for mood, words in _WORDS.items() for word in words.split()}
_BY_CHANCE = ("sunset", "dawn", "day", "autumn")


def split_words(text: str) -> list[str]:
    """Return the words of a prompt in lower case, each also without a plural's s."""
    words = re.findall(r"[a-z]+", text.lower())
    return [form for word in words for form in dict.fromkeys((word, word.removesuffix("s")))]


def choose_palette(words: list[str], rng: random.Random) -> Palette:
    """Return the palette of a prompt's words."""
    moods = [_MOOD_OF[word] for word in words if word in _MOOD_OF]
    palette = MOODS[moods[0] if moods else rng.choice(_BY_CHANCE)]
    tints = [rgb(word) for word in dict.fromkeys(words) if word in ImageColor.colormap]
    if not tints:
        return palette
    first, last = tints[0], tints[-1]
    top, middle, low = palette.sky
    return attrs.evolve(
        palette,
        sky=(mix(top, first, 0.35), mix(middle, first, 0.6), mix(low, first, 0.3)),
        far=mix(palette.far, first, 0.45),
        near=mix(palette.near, last, 0.35),
        accent=last,
    )


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Return a colour between two; ``share`` is the other's part."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
