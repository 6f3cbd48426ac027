"""Fast upscale: enlarge each side four times, in about a second.

It has no prompt and no seed.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto_plugins.images.limits import Limits

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability

_IMAGE = Limits(min_side=32, max_side=1_536, min_pixels=1_024, max_pixels=1_048_576, max_bytes=fields.REQUEST_BYTES)


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/upscale/fast``."""

    image: File = fields.image(_IMAGE, "Image to enlarge.")
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-fast-upscale-v1:0",
    title="Fast upscale",
    params=Params,
    target="/v2beta/stable-image/upscale/fast",
    provider=stability,
    dialect=direct,
    price=in_credits(2),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-fast-upscale-v1:0",
    0.03,
    image=fields.image(attrs.evolve(_IMAGE, max_bytes=fields.ON_BEDROCK.max_bytes)),
)
