"""Fields and picture limits that several operations share."""

from __future__ import annotations

from typing import Any

import attrs

from impasto.fields import Role, choice, file, integer, text
from impasto_pictures.limits import Limits

REQUEST_BYTES = 10 * 2**20
"""The vendor's limit for a whole request."""

LONGEST_TEXT = 10_000

RATIOS = ("21:9", "16:9", "3:2", "5:4", "1:1", "4:5", "2:3", "9:16", "9:21")
STYLES = (
    "enhance",
    "anime",
    "photographic",
    "digital-art",
    "comic-book",
    "fantasy-art",
    "line-art",
    "analog-film",
    "neon-punk",
    "isometric",
    "low-poly",
    "origami",
    "modeling-compound",
    "cinematic",
    "3d-model",
    "pixel-art",
    "tile-texture",
)

EDITABLE = Limits(min_side=64, min_pixels=4_096, max_pixels=9_437_184, max_bytes=REQUEST_BYTES)
ANY_PICTURE = Limits(max_bytes=REQUEST_BYTES)
WIDEST = 2.5

BEDROCK_BYTES = 25_000_000
"""Bedrock's limit for a whole body, in which a picture is a third larger."""

ON_BEDROCK = attrs.evolve(EDITABLE, aspect=WIDEST, max_bytes=BEDROCK_BYTES * 3 // 4)
"""What Bedrock's image services take."""

BEDROCK_SEED = 4_294_967_295
"""The largest seed of Bedrock's generators but SD3.5."""


def prompt(**options: Any) -> Any:
    """The prompt, in English; ``(word:weight)`` weighs a word."""
    return text(1, LONGEST_TEXT, required=True, role="prompt", **options)


def optional_text(*, role: Role | None = None) -> Any:
    """Text that may be left out, such as ``negative_prompt``."""
    return text(0, LONGEST_TEXT, role=role)


def aspect_ratio() -> Any:
    """The shape of the result; the vendor takes no size in pixels."""
    return choice(*RATIOS, default="1:1")


def seed(most: int = 4_294_967_294) -> Any:
    """0, or none, is random; the result tells the seed that was used."""
    return integer(0, most, default=0)


def style_preset() -> Any:
    """A hint of style."""
    return choice(*STYLES)


def output_format(*formats: str) -> Any:
    """The encoding of the result."""
    return choice(*(formats or ("png", "jpeg", "webp")), default="png")


def picture(limits: Limits, *, required: bool = True, role: Role | None = "image") -> Any:
    """A picture, looked at before it is sent."""
    return file(limits, limits=str(limits), required=required, role=role)


def mask() -> Any:
    """White is edited, black kept; of any size, the server resizes it. Without one, the picture's alpha counts."""
    return picture(ANY_PICTURE, required=False, role="mask")
