"""Nova Canvas: four of its tasks, each a model of its own with the parameters that the task takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from impasto import File, Operation, Problem, WidthHeight, fields
from impasto.rules import Excludes, Needs, OneOf, Rule
from impasto_plugins.bedrock import bedrock

from .dialect import Dialect

MODEL = "amazon.nova-canvas-v1:0"
MAX_PIXELS, MAX_RATIO, MAX_BYTES = 4_194_304, 4, 25_000_000
STYLES = (
    *("3D_ANIMATED_FAMILY_FILM", "DESIGN_SKETCH", "FLAT_VECTOR_ILLUSTRATION", "GRAPHIC_NOVEL_ILLUSTRATION"),
    *("MAXIMALISM", "MIDCENTURY_RETRO", "PHOTOREALISM", "SOFT_DIGITAL_PAINTING"),
)


@attrs.frozen
class Shape:
    """The limits of width and height together; one that is not given is 1024."""

    def problems(self, arguments: Mapping[str, object]) -> Iterator[Problem]:
        """Yield the problem of a shape that Nova Canvas refuses."""
        width, height = arguments.get("width", 1024), arguments.get("height", 1024)
        if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0:
            if max(width, height) > MAX_RATIO * min(width, height):
                yield Problem("width", f"{width}x{height} is not between 1:{MAX_RATIO} and {MAX_RATIO}:1")
            elif width * height > MAX_PIXELS:
                yield Problem("width", f"{width}x{height} is more than {MAX_PIXELS:,} pixels")

    def __str__(self) -> str:
        return f"width x height: at most {MAX_PIXELS:,} pixels, from 1:{MAX_RATIO} to {MAX_RATIO}:1"


@attrs.frozen(kw_only=True)
class Config:
    """Parameters that most tasks share."""

    negativeText: str | None = fields.text(1, 1024, description="What the image must not show.")  # noqa: N815 - the provider's
    quality: str | None = fields.choice("standard", "premium", default="standard", description="Quality of the image.")
    cfgScale: float | None = fields.number(1.1, 10, default=6.5, description="Adherence to the prompt.")  # noqa: N815
    seed: int | None = fields.integer(0, 858_993_459, default=12, description="Seed of the random noise.")
    numberOfImages: int | None = fields.integer(1, 5, default=1, description="Images of one request; set by n.")  # noqa: N815


@attrs.frozen(kw_only=True)
class Sized(Config):
    """Parameters of tasks whose images have a size of their own."""

    width: int | None = fields.integer(320, 4096, step=16, default=1024, description="Width in pixels.")
    height: int | None = fields.integer(320, 4096, step=16, default=1024, description="Height in pixels.")


@attrs.frozen(kw_only=True)
class TextImage(Sized):
    """Parameters of the task TEXT_IMAGE."""

    text: str = fields.text(1, 1024, required=True, role="prompt", description="Content of the image.")
    style: str | None = fields.choice(*STYLES, description="Visual style.")
    conditionImage: File | None = fields.file(description="Image whose layout the new one follows.")  # noqa: N815
    controlMode: str | None = fields.choice(  # noqa: N815
        "CANNY_EDGE", "SEGMENTATION", default="CANNY_EDGE", description="What is followed: edges or areas."
    )
    controlStrength: float | None = fields.number(0, 1, default=0.7, description="Adherence to the layout.")  # noqa: N815


@attrs.frozen(kw_only=True)
class ImageVariation(Sized):
    """Parameters of the task IMAGE_VARIATION."""

    images: tuple[File, ...] = fields.files(1, 5, required=True, description="Images to vary or combine.")
    text: str | None = fields.text(1, 1024, role="prompt", description="Content of the image.")
    similarityStrength: float | None = fields.number(0.2, 1, description="Similarity to the images.")  # noqa: N815


@attrs.frozen(kw_only=True)
class Inpainting(Config):
    """Parameters of the task INPAINTING."""

    image: File = fields.file(required=True, description="Image to edit.")
    text: str | None = fields.text(1, 1024, role="prompt", description="New content; without it the area is removed.")
    maskPrompt: str | None = fields.text(1, 1024, description="Description of the area to edit.")  # noqa: N815
    maskImage: File | None = fields.file(  # noqa: N815
        role="mask", mask_area="black", description="Area to edit: black is edited, white stays."
    )


@attrs.frozen(kw_only=True)
class BackgroundRemoval:
    """Parameters of the task BACKGROUND_REMOVAL."""

    image: File = fields.file(required=True, description="Image whose background becomes transparent.")


def _task(task: str, group: str, params: type[attrs.AttrsInstance], *rules: Rule, suffix: str = "") -> Operation:
    is_sized, takes_n = issubclass(params, Sized), issubclass(params, Config)
    return Operation(
        id=f"bedrock/{MODEL}{suffix}",
        title=f"Nova Canvas {task}",
        params=params,
        target=MODEL,
        provider=bedrock,
        dialect=Dialect(task, group),
        rules=(*rules, Shape()) if is_sized else rules,
        size=WidthHeight(minimum=320, maximum=4096, multiple=16, max_pixels=MAX_PIXELS) if is_sized else None,
        native_n=("numberOfImages", 5) if takes_n else None,
        max_bytes=MAX_BYTES,
        transparent_output=not takes_n,
        docs_url="https://docs.aws.amazon.com/nova/latest/userguide/image-gen-req-resp-structure.html",
    )


_control = [Needs(name, ("conditionImage",)) for name in ("controlMode", "controlStrength")]
text_image = _task("TEXT_IMAGE", "textToImageParams", TextImage, *_control)
image_variation = _task("IMAGE_VARIATION", "imageVariationParams", ImageVariation, suffix="/image-variation")
inpainting = _task(
    *("INPAINTING", "inPaintingParams", Inpainting),
    *(OneOf(("maskPrompt", "maskImage")), Excludes("maskPrompt", None, ("maskImage",))),
    suffix="/inpainting",
)
background_removal = _task(
    "BACKGROUND_REMOVAL", "backgroundRemovalParams", BackgroundRemoval, suffix="/background-removal"
)
