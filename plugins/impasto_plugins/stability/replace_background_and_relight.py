"""Replace background and relight: a new background, and light to match.

The vendor's own API answers with a job. The result has the size of ``subject_image``.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import choice, number
from impasto.rules import OneOf

from . import fields
from .direct import asynchronous
from .provider import in_credits, stability
from .rules import NeedsOneOf


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/edit/replace-background-and-relight``."""

    subject_image: File = fields.image(
        attrs.evolve(fields.EDITABLE, aspect=fields.MAX_ASPECT_RATIO), "Image with the subject."
    )
    background_reference: File | None = fields.image(
        fields.EDITABLE, "Image whose style the new background follows.", required=False
    )
    background_prompt: str | None = fields.optional_prompt("Description of the new background, in English.")
    foreground_prompt: str | None = fields.optional_text(
        "Description of the subject, which keeps the background from bleeding into it."
    )
    negative_prompt: str | None = fields.negative_prompt()
    preserve_original_subject: float | None = number(
        0, 1, default=0.6, description="Closeness to the original subject; 1 keeps each of its pixels."
    )
    original_background_depth: float | None = number(
        0, 1, default=0.5, description="Closeness of the new background's depth to that of the original one."
    )
    keep_original_background: str | None = choice(
        "true", "false", default="false", description="If true, the background stays and only the light changes."
    )
    light_source_direction: str | None = choice(
        "left", "right", "above", "below", description="Side from which the light comes."
    )
    light_reference: File | None = fields.image(
        fields.EDITABLE, "Image whose bright areas guide the light.", required=False, role=None
    )
    light_source_strength: float | None = number(
        0, 1, default=0.3, description="Multiplier for the strength of the light."
    )
    seed: int | None = fields.seed()
    output_format: str | None = fields.output_format()


operation = Operation(
    id="stability/replace-background-and-relight",
    title="Replace background and relight",
    params=Params,
    target="/v2beta/stable-image/edit/replace-background-and-relight",
    provider=stability,
    dialect=asynchronous,
    price=in_credits(8),
    rules=(
        OneOf(("background_prompt", "background_reference")),
        NeedsOneOf("light_source_strength", ("light_reference", "light_source_direction")),
    ),
    max_bytes=fields.REQUEST_BYTES,
)
