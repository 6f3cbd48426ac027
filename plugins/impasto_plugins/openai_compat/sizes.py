"""OpenAI's ``size`` in the form that a model takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

import attrs

from impasto import AspectRatios, Sizes, WidthHeight
from impasto.ext import field_at
from impasto.fields import Field, format_value

_OPENAI = {"1792x1024": (16, 9), "1024x1792": (9, 16)}
"""OpenAI's own sizes that stand for a ratio which they do not have exactly."""
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_RATIO = re.compile(r"([1-9][0-9]{0,4})[:x]([1-9][0-9]{0,4})")


def checked_size(size: object) -> str | None:
    """Return the size unchanged, or None for ``auto``. Raises ValueError."""
    if not isinstance(size, str) or (size != "auto" and _SIZE.fullmatch(size) is None):
        raise ValueError(f"must be auto or WIDTHxHEIGHT in pixels, each 1 to 99999, not {format_value(size)}")
    return str.__str__(size) if size != "auto" else None


def fit_size(
    size: str, declared: AspectRatios | WidthHeight | Sizes, fields: Mapping[str, Field]
) -> tuple[Mapping[str, object], bool] | None:
    """Return the model's fields for a checked size, and True if they are what the size asks for.

    A name with dots is a field of a nested object. None if the model has no field with such values.
    """
    if any(field_at(fields, name) is None for name in declared.names):
        return None
    match declared:
        case AspectRatios(field=field):
            ratios = field_at(fields, field)
            nearest = nearest_ratio(size, ratios.choices) if ratios is not None else None
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


def with_values(params: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    """Return parameters with further values; a name with dots is one of a nested object.

    What should be an object and is not stays as it is: the check of the parameters reports it.
    """
    changed = dict(params)
    for name, value in values.items():
        first, dot, nested = name.partition(".")
        if not dot:
            changed[name] = value
        elif (inner := _fields_of_object(changed.get(first, {}))) is not None:
            changed[first] = with_values(inner, {nested: value})
    return changed


def leaves_of(
    params: Mapping[str, object], fields: Mapping[str, Field], within: str = ""
) -> Iterator[tuple[str, object]]:
    """Yield the values of parameters with their names, those of nested objects with dots, as ``with_values`` takes."""
    for name, value in params.items():
        field = fields.get(name)
        if field is not None and field.kind == "group" and isinstance(value, Mapping):
            yield from leaves_of(value, field.fields, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def _fields_of_object(value: object) -> Mapping[str, object] | None:
    if isinstance(value, Mapping):
        return value
    kind = type(value)
    return {each.name: getattr(value, each.name) for each in attrs.fields(kind)} if attrs.has(kind) else None


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
    listed = {ratio: _numbers(_RATIO, ratio) for ratio in ratios if _RATIO.fullmatch(ratio)}
    for ratio, sides in listed.items():
        if sides == _OPENAI.get(size):
            return ratio, True
    width, height = _numbers(_SIZE, size)
    if not listed:
        return None
    best = min(listed, key=lambda ratio: abs(math.log(width / height) - math.log(listed[ratio][0] / listed[ratio][1])))
    return best, width * listed[best][1] == height * listed[best][0]


def _numbers(pattern: re.Pattern[str], text: str) -> tuple[int, int]:
    found = pattern.fullmatch(text)
    assert found is not None  # noqa: S101 - both were matched before
    return int(found[1]), int(found[2])
