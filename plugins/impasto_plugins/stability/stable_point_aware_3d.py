"""Stable Point Aware 3D: a 3D model, as GLB, of the object in an image.

A preview of the vendor's, which makes a point cloud first. The answer has no seed.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import choice, number

from . import fields
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/3d/stable-point-aware-3d``."""

    image: File = fields.object_image()
    texture_resolution: str | None = fields.texture_resolution()
    foreground_ratio: float | None = fields.foreground_ratio(1, 2, default=1.3)
    remesh: str | None = fields.remesh()
    target_type: str | None = choice(
        "none", "vertex", "face", default="none", description="Elements that target_count counts."
    )
    target_count: float | None = number(
        100,
        20_000,
        default=1_000,
        description="Number of vertices or faces to simplify the mesh to. It needs a target_type.",
    )
    guidance_scale: float | None = number(
        1, 10, default=3, description="Guidance of the diffusion that makes the points."
    )
    seed: int | None = fields.seed(reported=False)


operation = Operation(
    id="stability/stable-point-aware-3d",
    title="Stable Point Aware 3D (preview)",
    params=Params,
    target="/v2beta/3d/stable-point-aware-3d",
    provider=stability,
    dialect=direct,
    output="3d",
    price=in_credits(4),
    max_bytes=fields.REQUEST_BYTES,
)
