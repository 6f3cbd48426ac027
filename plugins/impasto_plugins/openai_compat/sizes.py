"""OpenAI's ``size`` in the form that a model takes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

from impasto import AspectRatios, Sizes, WidthHeight
from impasto.fields import Field, format_value

_OPENAI = {"1792x1024": "16:9", "1024x1792": "9:16"}
"""OpenAI's own sizes that stand for a ratio which they do not have exactly."""
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_RATIO = re.compile(r"([1-9][0-9]{0,4}):([1-9][0-9]{0,4})")


def checked_size(size: object) -> str | None:
    """Return the size unchanged, or None for ``auto``. Raises ValueError."""
    if not isinstance(size, str) or (size != "auto" and _SIZE.fullmatch(size) is None):
        raise ValueError(f"must be auto or WIDTHxHEIGHT in pixels, each 1 to 99999, not {format_value(size)}")
    return str.__str__(size) if size != "auto" else None


def fit_size(
    size: str, declared: AspectRatios | WidthHeight | Sizes, fields: Mapping[str, Field]
) -> tuple[Mapping[str, object], bool] | None:
    """Return the model's fields for a checked size, and True if they are what the size asks for.

    None if the model has no field that takes it.
    """
    if not all(name in fields for name in declared.names):
        return None
    match declared:
        case AspectRatios(field=field):
            nearest = nearest_ratio(size, fields[field].choices)
            return ({field: nearest[0]}, nearest[1]) if nearest is not None else None
        case WidthHeight(width=width, height=height):
            exact = _numbers(_SIZE, size)
            allowed = _nearest_pixels(*exact, declared)
            return {width: allowed[0], height: allowed[1]}, allowed == exact
        case Sizes(field=field, choices=choices):
            if size in choices:
                return {field: size}, True
            pixels = {choice: _numbers(_SIZE, choice) for choice in choices if _SIZE.fullmatch(choice)}
            if not pixels:
                return None
            wanted = _numbers(_SIZE, size)
            return {field: min(pixels, key=lambda each: _distance(*wanted, *pixels[each]))}, False


def _distance(width: int, height: int, wide: int, high: int) -> tuple[float, float]:
    """Return the difference in shape and then in area, as ratios."""
    shape = abs(math.log(width / height) - math.log(wide / high))
    return round(shape, 9), abs(math.log(width * height) - math.log(wide * high))


def _nearest_pixels(width: int, height: int, allowed: WidthHeight) -> tuple[int, int]:
    """Return the nearest width and height: scaled together into the limits, so that the shape stays."""
    low, high, multiple = allowed.minimum, allowed.maximum, allowed.multiple
    least, most = -(-low // multiple) * multiple, high // multiple * multiple
    scale = min(1.0, high / max(width, height))
    if allowed.max_pixels is not None:
        scale = min(scale, math.sqrt(allowed.max_pixels / (width * height)))
    if scale == 1.0:
        scale = max(1.0, low / min(width, height))
    sides = [min(max(round(side * scale / multiple) * multiple, least), most) for side in (width, height)]
    while allowed.max_pixels is not None and sides[0] * sides[1] > allowed.max_pixels and max(sides) > least:
        sides[sides.index(max(sides))] -= multiple
    return sides[0], sides[1]


@lru_cache(maxsize=256)  # benchmark `call`: a caller sends few sizes
def nearest_ratio(size: str, ratios: tuple[str, ...]) -> tuple[str, bool] | None:
    """Return the nearest of ``ratios`` to a checked size, and True if it is what the size asks for.

    None if none of ``ratios`` is a ratio.
    """
    exact = _OPENAI.get(size)
    if exact is not None and exact in ratios:
        return exact, True
    width, height = _numbers(_SIZE, size)
    listed = {ratio: _numbers(_RATIO, ratio) for ratio in ratios if _RATIO.fullmatch(ratio)}
    if not listed:
        return None
    best = min(listed, key=lambda ratio: abs(math.log(width / height) - math.log(listed[ratio][0] / listed[ratio][1])))
    return best, width * listed[best][1] == height * listed[best][0]


def _numbers(pattern: re.Pattern[str], text: str) -> tuple[int, int]:
    found = pattern.fullmatch(text)
    assert found is not None  # noqa: S101 - both were matched before
    return int(found[1]), int(found[2])
