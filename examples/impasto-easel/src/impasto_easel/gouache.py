"""easel/gouache: text to image."""

from __future__ import annotations

import attrs

from impasto import Cost, FlatPrice
from impasto.fields import choice, integer, text

from .images import Images, dialect
from .provider import provider


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of POST /v1/images/generations."""

    prompt: str = text(1, 4_000, required=True, role="prompt", description="Content of the image.")
    size: str | None = choice(
        "1024x1024", "1536x1024", "1024x1536", default="1024x1024", description="Width and height in pixels."
    )
    quality: str | None = choice(
        "draft", "fine", default="fine", description="Quality of the image; a draft is faster."
    )
    seed: int | None = integer(0, 2**31 - 1, description="Seed of the random noise. Without it the seed is random.")
    response_format: str | None = choice(
        "url", "b64_json", default="url", description="Form of the answer: an address, or the image in base64."
    )


gouache = Images(
    id="easel/gouache",
    title="Easel Gouache",
    params=Params,
    target="/v1/images/generations",
    provider=provider,
    dialect=dialect,
    constants={"model": "gouache"},
    price=FlatPrice(cost=Cost(usd=0.04, as_of="2026-01-01")),
)
