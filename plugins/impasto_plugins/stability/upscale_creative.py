"""Creative upscale: enlarge to about 10 megapixels and invent details.

The vendor's own API answers with a job. An image of 512x512 pixels became one of 3152x3152.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation

from . import fields
from .bedrock import variant
from .direct import asynchronous
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/upscale/creative``."""

    image: File = fields.image(attrs.evolve(fields.EDITABLE, max_pixels=1_048_576), "Image to enlarge.")
    prompt: str = fields.prompt()
    negative_prompt: str | None = fields.negative_prompt()
    creativity: float | None = fields.creativity(0.1, 0.5, default=0.3)
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-creative-upscale-v1:0",
    title="Creative upscale",
    params=Params,
    target="/v2beta/stable-image/upscale/creative",
    provider=stability,
    dialect=asynchronous,
    price=in_credits(60),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-creative-upscale-v1:0",
    0.6,
    image=fields.image(attrs.evolve(fields.ON_BEDROCK, max_pixels=1_048_576, aspect=None)),
)
