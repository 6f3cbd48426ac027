"""Style transfer: give an image the style of another.

The result has about 1 megapixel and the aspect ratio of ``init_image``.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import number

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability

_IMAGE = attrs.evolve(fields.EDITABLE, max_side=16_383)


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/control/style-transfer``."""

    init_image: File = fields.image(attrs.evolve(_IMAGE, aspect=fields.MAX_ASPECT_RATIO), "Image to restyle.")
    style_image: File = fields.image(_IMAGE, "Image that gives the style.")
    prompt: str | None = fields.optional_prompt()
    negative_prompt: str | None = fields.negative_prompt()
    style_strength: float | None = number(0, 1, default=1, description="Weight of the style image.")
    composition_fidelity: float | None = number(
        0, 1, default=0.9, alias="fidelity", description="Closeness to the composition of init_image."
    )
    change_strength: float | None = number(0.1, 1, default=0.9, description="Amount by which init_image may change.")
    seed: int | None = fields.seed()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-style-transfer-v1:0",
    title="Style transfer",
    params=Params,
    target="/v2beta/stable-image/control/style-transfer",
    provider=stability,
    dialect=direct,
    price=in_credits(8),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-style-transfer-v1:0",
    0.08,
    init_image=fields.image(fields.ON_BEDROCK),
    style_image=fields.image(fields.ON_BEDROCK),
)
