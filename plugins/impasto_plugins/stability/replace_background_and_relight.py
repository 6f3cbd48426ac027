"""Replace background and relight: a new background, and light to match it. Asynchronous."""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import choice, number
from impasto.rules import NeedsOneOf, OneOf

from . import fields
from .direct import asynchronous
from .provider import in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/edit/replace-background-and-relight``.

    The result has the size of ``subject_image``.
    """

    subject_image: File = fields.image(attrs.evolve(fields.EDITABLE, aspect=fields.MAX_ASPECT_RATIO))
    background_reference: File | None = fields.image(fields.EDITABLE, required=False)
    background_prompt: str | None = fields.optional_text(role="prompt")
    foreground_prompt: str | None = fields.optional_text()
    negative_prompt: str | None = fields.optional_text()
    preserve_original_subject: float | None = number(0, 1, default=0.6)
    original_background_depth: float | None = number(0, 1, default=0.5)
    keep_original_background: str | None = choice("true", "false", default="false")
    light_source_direction: str | None = choice("left", "right", "above", "below")
    light_reference: File | None = fields.image(fields.EDITABLE, required=False, role=None)
    light_source_strength: float | None = number(0, 1, default=0.3)
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
