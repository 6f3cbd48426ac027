"""Stable Image Core: fast text to image.

The result has about 1.5 megapixels or more.
"""

from __future__ import annotations

import attrs

from impasto import Operation
from impasto.fields import choice

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/generate/core``."""

    prompt: str = fields.prompt()
    negative_prompt: str | None = fields.negative_prompt()
    aspect_ratio: str | None = fields.aspect_ratio()
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-image-core",
    title="Stable Image Core",
    params=Params,
    target="/v2beta/stable-image/generate/core",
    provider=stability,
    dialect=direct,
    price=in_credits(3),
)

_BEDROCK = {
    "seed": fields.seed(fields.BEDROCK_SEED),
    "output_format": choice("jpeg", "png"),
    "mode": choice("text-to-image", default="text-to-image", description="Kind of call; this model has only one."),
}

on_bedrock = variant(operation, "stability.stable-image-core-v1:1", 0.04, without=("style_preset",), **_BEDROCK)
on_bedrock_v1_0 = variant(operation, "stability.stable-image-core-v1:0", 0.04, **_BEDROCK)
