"""Style guide: generate an image in the style of another.

The result has about 1 megapixel.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import number

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/control/style``."""

    prompt: str = fields.prompt()
    image: File = fields.image(
        attrs.evolve(fields.EDITABLE, aspect=fields.MAX_ASPECT_RATIO), "Image whose style the result takes."
    )
    negative_prompt: str | None = fields.negative_prompt()
    aspect_ratio: str | None = fields.aspect_ratio()
    fidelity: float | None = number(0, 1, default=0.5, description="Closeness to the style of the input image.")
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-image-style-guide-v1:0",
    title="Control: style guide",
    params=Params,
    target="/v2beta/stable-image/control/style",
    provider=stability,
    dialect=direct,
    price=in_credits(5),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation, "us.stability.stable-image-style-guide-v1:0", 0.07, image=fields.image(fields.ON_BEDROCK)
)
