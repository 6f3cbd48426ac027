"""Control by sketch: generate an image from the lines of a drawing.

The result has the size of ``image``.
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
    """Parameters of ``POST /v2beta/stable-image/control/sketch``."""

    prompt: str = fields.prompt()
    image: File = fields.image(
        attrs.evolve(fields.EDITABLE, min_pixels=None, aspect=fields.MAX_ASPECT_RATIO),
        "Drawing, or an image with contours, whose lines the result follows.",
    )
    control_strength: float | None = fields.control_strength()
    negative_prompt: str | None = fields.negative_prompt()
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-image-control-sketch-v1:0",
    title="Control: sketch",
    params=Params,
    target="/v2beta/stable-image/control/sketch",
    provider=stability,
    dialect=direct,
    price=in_credits(5),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation, "us.stability.stable-image-control-sketch-v1:0", 0.07, image=fields.image(fields.ON_BEDROCK)
)
