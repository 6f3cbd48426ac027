"""Outpaint: extends an image beyond its borders."""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import integer, number
from impasto.rules import OneNonZero

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/edit/outpaint``. Margins are in pixels.

    The result has the size of ``image`` plus its margins.
    """

    image: File = fields.image(attrs.evolve(fields.EDITABLE, aspect=fields.MAX_ASPECT_RATIO))
    left: int | None = integer(0, 2000, default=0)
    right: int | None = integer(0, 2000, default=0)
    up: int | None = integer(0, 2000, default=0)
    down: int | None = integer(0, 2000, default=0)
    creativity: float | None = number(0, 1, default=0.5)
    prompt: str | None = fields.optional_text(role="prompt")
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
