"""Stable Image Ultra: the finest text to image; with a picture, image to image."""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import number
from impasto.rules import Needs
from impasto_pictures.limits import Limits

from . import fields
from .direct import direct
from .provider import in_credits, stability

_IMAGE = Limits(min_side=64, max_side=16_384, min_pixels=4_096, max_bytes=fields.REQUEST_BYTES)


@attrs.frozen(kw_only=True)
class Params:
    """What ``POST /v2beta/stable-image/generate/ultra`` takes.

    A picture makes ``strength`` required: 0 keeps it, 1 ignores it. The result has about 1 megapixel.
    """

    prompt: str = fields.prompt()
    negative_prompt: str | None = fields.optional_text()
    aspect_ratio: str | None = fields.aspect_ratio()
    image: File | None = fields.picture(_IMAGE, required=False)
    strength: float | None = number(0, 1)
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/stable-image-ultra",
    title="Stable Image Ultra",
    params=Params,
    target="/v2beta/stable-image/generate/ultra",
    provider=stability,
    dialect=direct,
    price=in_credits(8),
    rules=(Needs("image", ("strength",)),),
    max_bytes=fields.REQUEST_BYTES,
)
