"""Fields and limits of images and audio that several operations share."""

from __future__ import annotations

from typing import Any

import attrs

from impasto.fields import Role, choice, file, integer, number, text
from impasto_plugins.images.limits import Limits

REQUEST_BYTES = 10 * 2**20
"""The vendor's limit for a whole request."""

MAX_TEXT_LENGTH = 10_000

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
SINGLE_OBJECT = attrs.evolve(EDITABLE, max_pixels=4_194_304)
"""An image of one object, to be cut out or made into a 3D model."""

MAX_ASPECT_RATIO = 2.5

BEDROCK_BYTES = 25_000_000
"""Bedrock's limit for a whole body. In it an image takes a third more bytes."""

ON_BEDROCK = attrs.evolve(EDITABLE, aspect=MAX_ASPECT_RATIO, max_bytes=BEDROCK_BYTES * 3 // 4)
"""The limits of Bedrock's image services."""

BEDROCK_SEED = 4_294_967_295
"""The largest seed of Bedrock's generators except SD3.5."""


def prompt() -> Any:
    """Declare the prompt, in English; ``(word:weight)`` weighs a word."""
    return text(1, MAX_TEXT_LENGTH, required=True, role="prompt")


def optional_text(*, role: Role | None = None) -> Any:
    """Declare text that may be omitted, such as ``negative_prompt``."""
    return text(0, MAX_TEXT_LENGTH, role=role)


def aspect_ratio() -> Any:
    """Declare the shape of the result; the vendor takes no size in pixels."""
    return choice(*RATIOS, default="1:1")


def seed(maximum: int = 4_294_967_294) -> Any:
    """Declare the seed: 0, or none, is random; the result has the seed that was used."""
    return integer(0, maximum, default=0)


def style_preset() -> Any:
    """Declare a hint of style."""
    return choice(*STYLES)


def output_format(*formats: str) -> Any:
    """Declare the encoding of the result."""
    return choice(*(formats or ("png", "jpeg", "webp")), default="png")


def image(limits: Limits, *, required: bool = True, role: Role | None = "image") -> Any:
    """Declare an image, checked before it is sent."""
    return file(limits, limits=str(limits), required=required, role=role)


def mask(max_bytes: int | None = REQUEST_BYTES) -> Any:
    """Declare a mask: white is edited, black kept.

    Any size is valid, the server resizes it. Without a mask the image's alpha counts.
    """
    return image(Limits(max_bytes=max_bytes), required=False, role="mask")


AUDIO_REQUEST_BYTES = 50 * 2**20
LONG_AUDIO_REQUEST_BYTES = 100 * 2**20
"""The vendor states ``50Mb`` for Stable Audio 2 and ``100Mb`` for 3 without a definition: the most that it can mean."""

MIN_AUDIO_SECONDS = 6.0
"""The shortest audio file that the vendor takes, in seconds."""


def audio(max_seconds: float, max_bytes: int) -> Any:
    """Declare an audio file of up to ``max_seconds``, checked before it is sent."""
    from impasto_plugins.media.limits import AudioLimits  # models that make images do not need it

    limits = AudioLimits(min_seconds=MIN_AUDIO_SECONDS, max_seconds=max_seconds, max_bytes=max_bytes)
    return file(limits, limits=str(limits), required=True, role="audio")


def audio_prompt() -> Any:
    """Declare the prompt for audio, in English. The vendor states no minimum length."""
    return text(0, MAX_TEXT_LENGTH, required=True, role="prompt")


def duration(max_seconds: float) -> Any:
    """Declare the seconds of the result."""
    return number(1, max_seconds, default=190)


def audio_format() -> Any:
    """Declare the encoding of the result."""
    return choice("mp3", "wav", default="mp3")


def texture_resolution() -> Any:
    """Declare the sides of a model's texture in pixels; text, as in the vendor's API."""
    return choice("512", "1024", "2048", default="1024")


def remesh() -> Any:
    """Declare the new mesh of a model's surface."""
    return choice("none", "triangle", "quad", default="none")
