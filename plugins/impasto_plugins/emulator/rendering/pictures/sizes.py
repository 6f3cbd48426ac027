"""How large a picture becomes."""

from __future__ import annotations

import math

Size = tuple[int, int]


def by_ratio(ratio: str, scale: float = 1.0, *, side: int = 1024, step: int = 64) -> Size:
    """About ``side`` squared pixels in a ratio such as ``16:9``, each side a multiple of ``step``."""
    width, _, height = ratio.partition(":")
    aspect = math.sqrt(int(width) / int(height))
    return scaled((_nearest(side * aspect, step), _nearest(side / aspect, step)), scale)


def by_area(size: Size, side: int, scale: float = 1.0) -> Size:
    """About ``side`` squared pixels in the ratio of ``size``."""
    factor = side / math.sqrt(size[0] * size[1])
    return scaled((max(1, round(size[0] * factor)), max(1, round(size[1] * factor))), scale)


def scaled(size: Size, scale: float) -> Size:
    """A size, smaller by ``scale``."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _nearest(length: float, step: int) -> int:
    return max(step, step * round(length / step))
