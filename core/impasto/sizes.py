"""The ways in which an operation takes the size of its images. OpenAI's ``size`` is translated to them.

A name with dots is a field of a nested object: ``image_size.width``.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from .errors import BrokenPlugin
from .field_checks import Field, field_at

_USUAL_NAMES = ("aspect_ratio", "width", "height", "size")
"""The names of the fields that a size sets if the plugin names no others."""


@attrs.frozen
class AspectRatios:
    """The size is one of the ratios that ``field`` lists, such as ``16:9`` or ``16x9``."""

    field: str = "aspect_ratio"

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that a size sets."""
        return (self.field,)


@attrs.frozen(kw_only=True)
class WidthHeight:
    """The size is a width and a height in pixels, each within the limits and a ``multiple``.

    ``max_pixels`` limits their product.
    """

    width: str = "width"
    height: str = "height"
    minimum: int = 1
    maximum: int
    multiple: int = 1
    max_pixels: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that a size sets."""
        return (self.width, self.height)


@attrs.frozen
class Sizes:
    """The size is one of ``choices``, such as ``1024x1536``; ``auto`` may be one of them."""

    field: str = "size"
    choices: tuple[str, ...] = attrs.field(kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that a size sets."""
        return (self.field,)


Size = AspectRatios | WidthHeight | Sizes


def size_of_fields(fields: Mapping[str, Field]) -> Size | None:
    """Return the size that fields with the usual names take: ``aspect_ratio``, or ``width`` and ``height``."""
    if "aspect_ratio" in fields:
        return AspectRatios()
    width, height = fields.get("width"), fields.get("height")
    if width is None or height is None or {width.kind, height.kind} != {"integer"}:
        return None
    limits = {(field.minimum, field.maximum, field.step or 1) for field in (width, height)}
    low, high, step = limits.pop()
    if limits or high is None or (low or 0) % step:  # not alike, or counted from another number than 0
        return None
    return WidthHeight(minimum=int(low or 1), maximum=int(high), multiple=step)


def check_size_names(size: Size, fields: Mapping[str, Field], model: str) -> None:
    """Raise BrokenPlugin if a size would be set in a field that does not exist."""
    for name in size.names:
        field = field_at(fields, name)
        if field is None and name in _USUAL_NAMES:  # a copy with other parameters has the size of the first
            continue
        if field is None or field.kind == "group":
            nested = "a field of a nested object is named with a dot, such as image_size.width"
            raise BrokenPlugin(f"{model}: its size names {name!r}, which is not a field with a value; {nested}")
