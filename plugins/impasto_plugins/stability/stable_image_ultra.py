"""Stable Image Ultra: the finest text to image, and image to image.

The result has about 1 megapixel. On the vendor's own API an image needs ``strength``.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import choice
from impasto.rules import Needs
from impasto_plugins.images.limits import Limits

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability

_IMAGE = Limits(min_side=64, max_side=16_384, min_pixels=4_096, max_bytes=fields.REQUEST_BYTES)


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/generate/ultra``."""

    prompt: str = fields.prompt()
    negative_prompt: str | None = fields.negative_prompt()
    aspect_ratio: str | None = fields.aspect_ratio()
    image: File | None = fields.start_image(_IMAGE)
    strength: float | None = fields.strength()
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-image-ultra",
    title="Stable Image Ultra",
    params=Params,
    target="/v2beta/stable-image/generate/ultra",
    provider=stability,
    dialect=direct,
    price=in_credits(8),
    rules=(Needs("image", ("strength",)),),
    max_bytes=fields.REQUEST_BYTES,
)

_BEDROCK = {
    "image": fields.start_image(Limits(max_bytes=fields.ON_BEDROCK.max_bytes)),
    "strength": fields.strength(default=0.35),
    "seed": fields.seed(fields.BEDROCK_SEED),
    "output_format": choice("jpeg", "png"),
    "mode": choice(
        "text-to-image", default="text-to-image", description="Kind of call. Leave it out for image to image."
    ),
}

on_bedrock = variant(
    operation, "stability.stable-image-ultra-v1:1", 0.14, rules=(), without=("style_preset",), **_BEDROCK
)
on_bedrock_v1_0 = attrs.evolve(
    on_bedrock, id="bedrock/stability.stable-image-ultra-v1:0", target="stability.stable-image-ultra-v1:0"
)
