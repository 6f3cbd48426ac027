"""Stable Fast 3D: a 3D model, as GLB, of the object in an image."""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import number

from . import fields
from .direct import direct
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/3d/stable-fast-3d``."""

    image: File = fields.object_image()
    texture_resolution: str | None = fields.texture_resolution()
    foreground_ratio: float | None = fields.foreground_ratio(0.1, 1, default=0.85)
    remesh: str | None = fields.remesh()
    vertex_count: float | None = number(
        -1, 20_000, default=-1, description="Number of vertices to simplify the mesh to; -1 is no limit."
    )


operation = Operation(
    id="stability/stable-fast-3d",
    title="Stable Fast 3D",
    params=Params,
    target="/v2beta/3d/stable-fast-3d",
    provider=stability,
    dialect=direct,
    output="3d",
    price=in_credits(10),
    max_bytes=fields.REQUEST_BYTES,
)
