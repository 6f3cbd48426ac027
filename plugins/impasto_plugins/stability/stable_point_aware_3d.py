"""Stable Point Aware 3D, a preview: a model, as GLB, of the thing in a picture, by way of a cloud of points."""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import choice, number

from . import fields
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """What ``POST /v2beta/3d/stable-point-aware-3d`` takes.

    ``target_count`` counts what ``target_type`` names. The answer does not tell its seed.
    """

    image: File = fields.picture(fields.OF_A_THING)
    texture_resolution: str | None = fields.texture_resolution()
    foreground_ratio: float | None = number(1, 2, default=1.3)
    remesh: str | None = fields.remesh()
    target_type: str | None = choice("none", "vertex", "face", default="none")
    target_count: float | None = number(100, 20_000, default=1_000)
    guidance_scale: float | None = number(1, 10, default=3)
    seed: int | None = fields.seed()


operation = Operation(
    id="stability/stable-point-aware-3d",
    title="Stable Point Aware 3D (preview)",
    params=Params,
    target="/v2beta/3d/stable-point-aware-3d",
    provider=stability,
    dialect=direct,
    makes="3d",
    price=in_credits(4),
    max_bytes=fields.REQUEST_BYTES,
)
