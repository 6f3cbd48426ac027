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


_IMAGE_CONTENT = "Content of the image, in English."


def prompt(description: str = _IMAGE_CONTENT) -> Any:
    """Declare the prompt. In prompts of the vendor's own API ``(word:weight)`` weighs a word, from 0 to 1."""
    return text(1, MAX_TEXT_LENGTH, required=True, role="prompt", description=description)


def optional_prompt(description: str = _IMAGE_CONTENT) -> Any:
    """Declare a prompt that may be omitted."""
    return text(0, MAX_TEXT_LENGTH, role="prompt", description=description)


def negative_prompt() -> Any:
    """Declare the negative prompt."""
    return optional_text("Content to avoid in the image.")


def optional_text(description: str) -> Any:
    """Declare text that may be omitted and is not the prompt."""
    return text(0, MAX_TEXT_LENGTH, description=description)


def aspect_ratio() -> Any:
    """Declare the aspect ratio of the result."""
    return choice(
        *RATIOS, default="1:1", description="Width to height of the image. The size in pixels can't be chosen."
    )


def seed(maximum: int = 4_294_967_294, *, reported: bool = True) -> Any:
    """Declare the seed. ``reported``: answers have the seed that was used."""
    report = "reports it" if reported else "does not report it"
    return integer(
        0,
        maximum,
        default=0,
        description=f"Seed of the random noise. 0, or no seed, picks one at random; the result {report}.",
    )


def cfg_scale(maximum: float, *, default: float | None = None) -> Any:
    """Declare the guidance scale."""
    return number(
        1, maximum, default=default, description="Adherence to the prompt; a higher value follows it more strictly."
    )


def control_strength() -> Any:
    """Declare the influence of the image that controls the result."""
    return number(0, 1, default=0.7, description="Influence of the input image on the result.")


def creativity(minimum: float, maximum: float, *, default: float) -> Any:
    """Declare the creativity of an upscale."""
    return number(minimum, maximum, default=default, description="Freedom to invent details.")


def style_preset() -> Any:
    """Declare the style preset."""
    return choice(*STYLES, description="Style that the image should have.")


def output_format(*formats: str) -> Any:
    """Declare the encoding of the result."""
    return choice(
        *(formats or ("png", "jpeg", "webp")), default="png", description="File format of the image that is returned."
    )


def image(limits: Limits, description: str = "", *, required: bool = True, role: Role | None = "image") -> Any:
    """Declare an image, checked before it is sent."""
    return file(limits, limits=str(limits), required=required, role=role, description=description)


def start_image(limits: Limits) -> Any:
    """Declare the image that makes a call of a generator image to image."""
    return image(limits, "Image to start from, for image to image.", required=False)


def strength(*, default: float | None = None) -> Any:
    """Declare the strength of image to image."""
    return number(0, 1, default=default, description="Difference from the input image: 0 keeps it, 1 ignores it.")


def mask(max_bytes: int | None = REQUEST_BYTES) -> Any:
    """Declare a mask of any size; the server resizes it."""
    return image(
        Limits(max_bytes=max_bytes),
        "Areas to edit: white is edited, black is kept. Without it, transparent areas of the image are edited.",
        required=False,
        role="mask",
    )


def grow_mask(maximum: float, *, default: float, edge: str = "mask") -> Any:
    """Declare the growth of a mask, or of the mask that the server makes of an object."""
    return number(
        0, maximum, default=default, description=f"Pixels by which the edge of the {edge} is grown and softened."
    )


AUDIO_REQUEST_BYTES = 50 * 2**20
LONG_AUDIO_REQUEST_BYTES = 100 * 2**20
"""The vendor states ``50Mb`` for Stable Audio 2 and ``100Mb`` for 3 without a definition: the most that it can mean."""

MIN_AUDIO_SECONDS = 6.0
"""The shortest audio file that the vendor takes, in seconds."""


def audio(max_seconds: float, max_bytes: int) -> Any:
    """Declare an audio file of up to ``max_seconds``, checked before it is sent."""
    from impasto_plugins.media.limits import AudioLimits  # models that make images do not need it

    limits = AudioLimits(min_seconds=MIN_AUDIO_SECONDS, max_seconds=max_seconds, max_bytes=max_bytes)
    return file(limits, limits=str(limits), required=True, role="audio", description="Audio to change.")


def audio_prompt() -> Any:
    """Declare the prompt for audio. The vendor states no minimum length."""
    return text(0, MAX_TEXT_LENGTH, required=True, role="prompt", description="Description of the sound, in English.")


def duration(max_seconds: float) -> Any:
    """Declare the length of the result."""
    return number(1, max_seconds, default=190, description="Length of the result in seconds.")


def steps(minimum: int, maximum: int, *, default: int) -> Any:
    """Declare the sampling steps."""
    return integer(minimum, maximum, default=default, description="Number of sampling steps.")


def audio_strength(minimum: float = 0) -> Any:
    """Declare the strength of audio to audio."""
    return number(minimum, 1, default=1, description="Difference from the input audio: 0 keeps it, 1 ignores it.")


def audio_format() -> Any:
    """Declare the encoding of the result."""
    return choice("mp3", "wav", default="mp3", description="File format of the audio that is returned.")


def object_image() -> Any:
    """Declare the image that a 3D model is made of."""
    return image(SINGLE_OBJECT, "Image of the object.")


def texture_resolution() -> Any:
    """Declare the side of the texture maps; text, as in the vendor's API."""
    return choice("512", "1024", "2048", default="1024", description="Side of the texture maps in pixels.")


def foreground_ratio(minimum: float, maximum: float, *, default: float) -> Any:
    """Declare the padding; its range has another meaning in each model."""
    return number(minimum, maximum, default=default, description="Amount of padding around the object in the frame.")


def remesh() -> Any:
    """Declare the remeshing of the surface."""
    return choice(
        "none", "triangle", "quad", default="none", description="New mesh of the surface: triangles, quads, or none."
    )
