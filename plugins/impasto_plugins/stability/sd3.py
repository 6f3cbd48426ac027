"""Stable Diffusion 3 and 3.5: text to image, and image to image.

The result has about 1 megapixel. With an image the call is image to image: ``strength`` is required, and
``aspect_ratio`` is refused. All names call one path; each sends its own ``model``.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from impasto import File, Operation
from impasto.fields import choice
from impasto.rules import Excludes, Needs, NoEffect
from impasto_plugins.images.limits import Limits

from . import fields
from .bedrock import variant
from .direct import direct
from .provider import in_credits, stability

_IMAGE = Limits(min_side=64, max_bytes=fields.REQUEST_BYTES)
_TO_IMAGE = "image-to-image"


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/stable-image/generate/sd3`` without ``model``."""

    prompt: str = fields.prompt()
    mode: str | None = choice(
        "text-to-image",
        _TO_IMAGE,
        default="text-to-image",
        description="Kind of call. If there is an image, the default is image-to-image.",
    )
    image: File | None = fields.start_image(_IMAGE)
    strength: float | None = fields.strength()
    aspect_ratio: str | None = fields.aspect_ratio()
    negative_prompt: str | None = fields.negative_prompt()
    seed: int | None = fields.seed()
    style_preset: str | None = fields.style_preset()
    cfg_scale: float | None = fields.cfg_scale(10)
    output_format: str | None = fields.output_format()


@attrs.frozen(kw_only=True)
class Full(Params):
    """Parameters of the large and the medium model."""

    cfg_scale: float | None = fields.cfg_scale(10, default=4)


@attrs.frozen(kw_only=True)
class Distilled(Params):
    """Parameters of the turbo and the flash model, which take fewer steps."""

    cfg_scale: float | None = fields.cfg_scale(10, default=1)


def _mode_of_image(arguments: Mapping[str, object]) -> Mapping[str, object]:
    """Add ``mode`` if there is an image without one; the vendor would ignore the image otherwise."""
    if arguments.get("image") is not None and arguments.get("mode") is None:
        return {**arguments, "mode": _TO_IMAGE}
    return arguments


sd3 = Operation(
    id="stability/sd3",
    title="Stable Diffusion 3.5 Large (the vendor's default)",
    params=Full,
    target="/v2beta/stable-image/generate/sd3",
    provider=stability,
    dialect=direct,
    price=in_credits(6.5),
    rules=(
        Needs("mode", ("image", "strength"), _TO_IMAGE),
        Excludes("mode", _TO_IMAGE, ("aspect_ratio",)),
        Excludes("mode", "text-to-image", ("image", "strength"), by_default=True),
    ),
    derive_params=_mode_of_image,
    max_bytes=fields.REQUEST_BYTES,
)


def _operation(model: str, title: str, params: type[Params], price: float, note: str = "") -> Operation:
    return attrs.evolve(
        sd3,
        id=f"stability/{model}",
        title=title,
        params=params,
        constants={"model": model},
        price=in_credits(price, note),
    )


_RETIRED = "deprecated 2025-04-17; reported to be served and billed as its 3.5 counterpart"

sd3_5_large = _operation("sd3.5-large", "Stable Diffusion 3.5 Large", Full, 6.5)
sd3_5_large_turbo = _operation("sd3.5-large-turbo", "Stable Diffusion 3.5 Large Turbo", Distilled, 4)
sd3_5_medium = _operation("sd3.5-medium", "Stable Diffusion 3.5 Medium", Full, 3.5)
sd3_5_flash = _operation("sd3.5-flash", "Stable Diffusion 3.5 Flash", Distilled, 2.5)
sd3_large = _operation("sd3-large", "Stable Diffusion 3 Large (retired)", Params, 6.5, _RETIRED)
sd3_large_turbo = _operation("sd3-large-turbo", "Stable Diffusion 3 Large Turbo (retired)", Params, 4, _RETIRED)
sd3_medium = _operation("sd3-medium", "Stable Diffusion 3 Medium (retired)", Params, 3.5, _RETIRED)

_BEDROCK_RULES = (
    Needs("mode", ("image", "strength"), _TO_IMAGE),
    Excludes("mode", _TO_IMAGE, ("aspect_ratio",)),
    Excludes("mode", "text-to-image", ("image",), by_default=True),
    NoEffect("image", ("strength",)),  # AWS's own notebook sends mode text-to-image with strength 1
)
_NOT_ON_BEDROCK = ("cfg_scale", "style_preset")
_BEDROCK_BYTES = fields.ON_BEDROCK.max_bytes

on_bedrock = variant(
    sd3_5_large,
    "stability.sd3-5-large-v1:0",
    0.08,
    without=_NOT_ON_BEDROCK,
    rules=_BEDROCK_RULES,
    image=fields.start_image(attrs.evolve(_IMAGE, max_bytes=_BEDROCK_BYTES)),
)
sd3_large_on_bedrock = variant(
    sd3_large,
    "stability.sd3-large-v1:0",
    0.08,
    without=_NOT_ON_BEDROCK,
    rules=_BEDROCK_RULES,
    image=fields.start_image(Limits(min_side=640, max_side=1_536, max_bytes=_BEDROCK_BYTES)),
    seed=fields.seed(fields.BEDROCK_SEED),
    output_format=choice("jpeg", "png"),
)
