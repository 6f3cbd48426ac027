"""Outpaint: extend an image beyond its borders.

The result has the size of ``image`` plus the added pixels.
"""

from __future__ import annotations

from typing import Any

import attrs

from impasto import File, Operation
from impasto.fields import integer, number

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability
from .rules import OneNonZero


def _margin(side: str) -> Any:
    return integer(0, 2000, default=0, description=f"Pixels to add {side}.")


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/edit/outpaint``."""

    image: File = fields.image(attrs.evolve(fields.EDITABLE, aspect=fields.MAX_ASPECT_RATIO), "Image to extend.")
    left: int | None = _margin("on the left")
    right: int | None = _margin("on the right")
    up: int | None = _margin("at the top")
    down: int | None = _margin("at the bottom")
    creativity: float | None = number(0, 1, default=0.5, description="Freedom to invent the content of the added area.")
    prompt: str | None = fields.optional_prompt()
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-outpaint-v1:0",
    title="Outpaint",
    params=Params,
    target="/v2beta/stable-image/edit/outpaint",
    provider=stability,
    dialect=direct,
    price=in_credits(4),
    rules=(OneNonZero(("left", "right", "up", "down")),),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-outpaint-v1:0",
    0.06,
    image=fields.image(fields.ON_BEDROCK),
    creativity=number(0.1, 1, default=0.5),
)
