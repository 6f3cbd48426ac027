"""The FLUX.2 models: text and reference images to one image. A resolver finds models newer than this release."""

from __future__ import annotations

import re

import attrs

from impasto import File, Operation
from impasto.fields import choice, files, integer, text

from .dialect import dialect
from .provider import provider

_NAME = re.compile(r"bfl/(flux-2-[a-z0-9]+(-[a-z0-9]+)*)")


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of POST /v1/flux-2-pro, flux-2-max and flux-2-flex."""

    prompt: str = text(1, required=True, role="prompt", description="Content of the image, or the edit to make.")
    input_image: tuple[File, ...] | None = files(
        1, 8, description="Reference images to edit or combine: input_image, input_image_2 and so on."
    )
    seed: int | None = integer(description="Seed of the random noise. Without it the seed is random.")
    width: int | None = integer(64, 4096, step=16, description="Width in pixels, at most 4 megapixels in all.")
    height: int | None = integer(64, 4096, step=16, description="Height in pixels, at most 4 megapixels in all.")
    safety_tolerance: int | None = integer(
        0, 5, default=2, description="Tolerance of the moderation, from 0 (strict) to 5."
    )
    output_format: str | None = choice("jpeg", "png", default="jpeg", description="Media type of the image.")


@attrs.frozen(kw_only=True)
class KleinParams(Params):
    """Parameters of POST /v1/flux-2-klein-4b and flux-2-klein-9b, which take fewer reference images."""

    input_image: tuple[File, ...] | None = files(
        1, 4, description="Reference images to edit or combine: input_image, input_image_2 and so on."
    )


def find(model: str) -> Operation | None:
    """Return the model of a name such as ``bfl/flux-2-pro``, or None."""
    if (found := _NAME.fullmatch(model)) is None:
        return None
    name = found[1]
    return Operation(
        id=model,
        title=name.upper().replace("-", " "),
        params=KleinParams if "-klein" in name else Params,
        target=f"/v1/{name}",
        provider=provider,
        dialect=dialect,
        docs_url="https://docs.bfl.ml/quick_start/generating_images",
    )
