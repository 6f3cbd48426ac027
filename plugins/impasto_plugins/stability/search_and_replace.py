"""Search and replace: paint the prompt in place of an object.

``search_prompt`` names the object. The result has the size of ``image``.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import integer, text

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/edit/search-and-replace``."""

    image: File = fields.image(attrs.evolve(fields.EDITABLE, aspect=fields.MAX_ASPECT_RATIO), "Image to edit.")
    prompt: str = fields.prompt("Content to put in the place of the object, in English.")
    search_prompt: str = text(
        0, fields.MAX_TEXT_LENGTH, required=True, description="Short description of the object to replace."
    )
    negative_prompt: str | None = fields.negative_prompt()
    grow_mask: float | None = fields.grow_mask(20, default=3, edge="found area")
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-image-search-replace-v1:0",
    title="Search and replace",
    params=Params,
    target="/v2beta/stable-image/edit/search-and-replace",
    provider=stability,
    dialect=direct,
    price=in_credits(5),
    max_bytes=fields.REQUEST_BYTES,
)

on_bedrock = variant(
    operation,
    "us.stability.stable-image-search-replace-v1:0",
    0.07,
    image=fields.image(fields.ON_BEDROCK),
    grow_mask=integer(0, 20, default=5),
)
