"""The GPT image models: text to images, and edits if images are given."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from impasto import File, Operation, Sizes
from impasto.dialects import TokenPrice
from impasto.fields import choice, file, files, integer, text
from impasto.rules import Excludes, Needs

from .dialect import dialect
from .provider import provider

_SIZES = ("auto", "1024x1024", "1536x1024", "1024x1536")


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of POST /v1/images/generations and, with ``image``, of POST /v1/images/edits."""

    prompt: str = text(1, 32_000, required=True, role="prompt", description="Content of the images, or the edit.")
    image: tuple[File, ...] | None = files(1, 16, description="Images to edit or combine: PNG, WebP or JPEG.")
    mask: File | None = file(
        role="mask", mask_area="transparent", description="PNG whose transparent pixels are edited in the first image."
    )
    n: int | None = integer(1, 10, default=1, description="Number of images.")
    size: str | None = choice(*_SIZES, default="auto", description="Width and height in pixels.")
    quality: str | None = choice("auto", "low", "medium", "high", default="auto", description="Quality of the images.")
    background: str | None = choice(
        "auto", "transparent", "opaque", default="auto", description="Background; transparent needs PNG or WebP."
    )
    output_format: str | None = choice("png", "jpeg", "webp", default="png", description="Media type of the images.")
    output_compression: int | None = integer(
        0, 100, default=100, description="Compression of JPEG and WebP in percent."
    )
    partial_images: int | None = integer(0, 3, default=0, description="Number of partial images of a stream.")
    moderation: str | None = choice("auto", "low", default="auto", description="Strictness of the moderation.")
    input_fidelity: str | None = choice(
        "low", "high", default="low", description="Effort to match the images' features, such as faces."
    )


def _model(name: str, price: TokenPrice[Params] | None) -> Operation:
    return Operation(
        id=f"openai/{name}",
        title=name.replace("gpt-image", "GPT Image").replace("-", " "),
        params=Params,
        target="/v1/images/generations",
        provider=provider,
        dialect=dialect,
        constants={"model": name},
        native_n=("n", 10),
        price=price,
        rules=(
            Needs("mask", ("image",)),
            Needs("input_fidelity", ("image",)),
            Excludes("image", None, ("moderation",)),
        ),
        size=Sizes(choices=_SIZES),
        docs_url="https://platform.openai.com/docs/guides/image-generation",
    )


def _dearest(low: float, medium: float, high: float) -> Callable[[Params], float]:
    """Return the estimate of an image of any size, without its input. The quality ``auto`` may be high."""
    by_quality = {"low": low, "medium": medium}
    return lambda params: by_quality.get(params.quality or "auto", high)


gpt_image_1 = _model(
    "gpt-image-1",
    TokenPrice(text_input=5, image_input=10, output=40, as_of="2026-11-29", estimate=_dearest(0.016, 0.063, 0.25)),
)
gpt_image_1_mini = _model(
    "gpt-image-1-mini",
    TokenPrice(text_input=2, image_input=2.5, output=8, as_of="2026-11-29", estimate=_dearest(0.006, 0.015, 0.052)),
)
gpt_image_1_5 = _model("gpt-image-1.5", None)
