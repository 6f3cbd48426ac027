"""Conservative upscale: enlarge to 4 megapixels or more with little change.

An image of 512x512 pixels became one of 3112x3112.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/upscale/conservative``."""

    image: File = fields.image(attrs.evolve(fields.EDITABLE, aspect=fields.MAX_ASPECT_RATIO), "Image to enlarge.")
    prompt: str = fields.prompt()
    negative_prompt: str | None = fields.negative_prompt()
    creativity: float | None = fields.creativity(0.2, 0.5, default=0.35)
    seed: int | None = fields.seed()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-conservative-upscale-v1:0",
    title="Conservative upscale",
    params=Params,
    target="/v2beta/stable-image/upscale/conservative",
    provider=stability,
    dialect=direct,
    price=in_credits(40),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-conservative-upscale-v1:0",
    0.4,
    image=fields.image(fields.ON_BEDROCK),
    creativity=fields.creativity(0.1, 0.5, default=0.35),
)
