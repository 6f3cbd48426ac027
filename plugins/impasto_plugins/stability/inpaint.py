"""Inpaint: paint the prompt into the area that a mask, or transparency, marks.

The result has the size of ``image``.
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
    """Parameters of ``POST /v2beta/stable-image/edit/inpaint``."""

    image: File = fields.image(fields.EDITABLE, "Image to edit.")
    prompt: str = fields.prompt()
    negative_prompt: str | None = fields.negative_prompt()
    mask: File | None = fields.mask()
    grow_mask: float | None = fields.grow_mask(100, default=5)
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-image-inpaint-v1:0",
    title="Inpaint",
    params=Params,
    target="/v2beta/stable-image/edit/inpaint",
    provider=stability,
    dialect=direct,
    price=in_credits(5),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-image-inpaint-v1:0",
    0.07,
    image=fields.image(fields.ON_BEDROCK),
    mask=fields.mask(fields.ON_BEDROCK.max_bytes),
    grow_mask=integer(0, 20, default=5),
)
