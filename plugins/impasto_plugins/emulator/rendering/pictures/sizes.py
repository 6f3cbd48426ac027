"""Sizes of pictures."""

from __future__ import annotations

import math

Size = tuple[int, int]


def size_by_ratio(ratio: str, scale: float = 1.0, *, side: int = 1024, step: int = 64) -> Size:
    """Return a size of about ``side`` squared pixels in a ratio such as ``16:9``, each side a multiple of ``step``."""
    width, _, height = ratio.partition(":")
    aspect = math.sqrt(int(width) / int(height))
    return scale_size((_round_to_step(side * aspect, step), _round_to_step(side / aspect, step)), scale)


def size_by_area(size: Size, side: int, scale: float = 1.0) -> Size:
    """Return a size of about ``side`` squared pixels in the ratio of ``size``."""
    factor = side / math.sqrt(size[0] * size[1])
    return scale_size((max(1, round(size[0] * factor)), max(1, round(size[1] * factor))), scale)


def scale_size(size: Size, scale: float) -> Size:
    """Return a size reduced by ``scale``."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _round_to_step(length: float, step: int) -> int:
    return max(step, step * round(length / step))
