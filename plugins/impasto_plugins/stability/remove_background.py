"""Remove background: cut the subject out of an image.

The result has an alpha channel.
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
    """Parameters of ``POST /v2beta/stable-image/edit/remove-background``."""

    image: File = fields.image(fields.SINGLE_OBJECT, "Image of which the background is removed.")
    output_format: str | None = fields.output_format("png", "webp")


operation = Operation(
    id="stability/stable-image-remove-background-v1:0",
    title="Remove background",
    params=Params,
    target="/v2beta/stable-image/edit/remove-background",
    provider=stability,
    dialect=direct,
    price=in_credits(5),
    max_bytes=fields.REQUEST_BYTES,
    transparent_output=True,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-image-remove-background-v1:0",
    0.07,
    image=fields.image(fields.ON_BEDROCK),
    output_format=fields.output_format(),
)
