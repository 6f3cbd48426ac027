"""OpenAI's ``size`` as a provider's ``aspect_ratio``."""

from __future__ import annotations

import math
import re
from functools import lru_cache

from impasto.fields import format_value

_OPENAI = {"1792x1024": "16:9", "1024x1792": "9:16"}
"""OpenAI's own sizes that stand for a ratio which they do not have exactly."""
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_RATIO = re.compile(r"([1-9][0-9]{0,4}):([1-9][0-9]{0,4})")


def checked_size(size: object) -> str | None:
    """Return the size unchanged, or None for ``auto``. Raises ValueError."""
    if not isinstance(size, str) or (size != "auto" and _SIZE.fullmatch(size) is None):
        raise ValueError(f"must be auto or WIDTHxHEIGHT in pixels, each 1 to 99999, not {format_value(size)}")
    return str.__str__(size) if size != "auto" else None


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
