"""Fields and limits of pictures and sounds that several operations share."""

from __future__ import annotations

from typing import Any

import attrs

from impasto.fields import Role, choice, file, integer, number, text
from impasto_plugins.images.limits import Limits

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
OF_A_THING = attrs.evolve(EDITABLE, max_pixels=4_194_304)
"""A picture of one thing, to be cut out or made into a model."""

WIDEST = 2.5

BEDROCK_BYTES = 25_000_000
"""Bedrock's limit for a whole body, in which a picture is a third larger."""

ON_BEDROCK = attrs.evolve(EDITABLE, aspect=WIDEST, max_bytes=BEDROCK_BYTES * 3 // 4)
"""What Bedrock's image services take."""

BEDROCK_SEED = 4_294_967_295
"""The largest seed of Bedrock's generators but SD3.5."""


def prompt() -> Any:
    """The prompt, in English; ``(word:weight)`` weighs a word."""
    return text(1, LONGEST_TEXT, required=True, role="prompt")


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


def mask(max_bytes: int | None = REQUEST_BYTES) -> Any:
    """White is edited, black kept; of any size, the server resizes it. Without one, the image's alpha counts."""
    return picture(Limits(max_bytes=max_bytes), required=False, role="mask")


SOUND_REQUEST_BYTES = 50 * 2**20
LONG_SOUND_REQUEST_BYTES = 100 * 2**20
"""The vendor says ``50Mb`` for Stable Audio 2 and ``100Mb`` for 3, and not what that is: the most that it can mean."""

LEAST_SOUND = 6.0
"""Seconds of a sound that is given, at the least."""


def sound(most: float, max_bytes: int) -> Any:
    """A sound of up to ``most`` seconds, looked at before it is sent."""
    from impasto_plugins.media.limits import SoundLimits  # not for those who make pictures

    limits = SoundLimits(min_seconds=LEAST_SOUND, max_seconds=most, max_bytes=max_bytes)
    return file(limits, limits=str(limits), required=True, role="audio")


def sound_prompt() -> Any:
    """The prompt for a sound, in English; the vendor states no least length."""
    return text(0, LONGEST_TEXT, required=True, role="prompt")


def duration(most: float) -> Any:
    """Seconds of the result."""
    return number(1, most, default=190)


def sound_format() -> Any:
    """The encoding of the result."""
    return choice("mp3", "wav", default="mp3")


def texture_resolution() -> Any:
    """The sides of a model's texture, in pixels; text, as the vendor has it."""
    return choice("512", "1024", "2048", default="1024")


def remesh() -> Any:
    """How a model's surface is laid out anew."""
    return choice("none", "triangle", "quad", default="none")
