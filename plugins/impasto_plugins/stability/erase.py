"""Erase: remove what a mask, or the transparency of the image, marks.

It has no prompt. The result has the size of ``image``.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import integer

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/edit/erase``."""

    image: File = fields.image(fields.EDITABLE, "Image to edit.")
    mask: File | None = fields.mask()
    grow_mask: float | None = fields.grow_mask(20, default=5)
    seed: int | None = fields.seed()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-image-erase-object-v1:0",
    title="Erase",
    params=Params,
    target="/v2beta/stable-image/edit/erase",
    provider=stability,
    dialect=direct,
    price=in_credits(5),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-image-erase-object-v1:0",
    0.07,
    image=fields.image(fields.ON_BEDROCK),
    mask=fields.mask(fields.ON_BEDROCK.max_bytes),
    grow_mask=integer(0, 20, default=5),
)
