"""Audio inpaint: replace a part of a sound.

The path of Stable Audio 2 always runs version 2.5. Stable Audio 3 answers with a job.
"""

from __future__ import annotations

import attrs

from impasto import File, Operation
from impasto.fields import number

from . import fields
from .direct import asynchronous_audio, direct
from .provider import in_credits, stability

_START = "Start of the part that is replaced, in seconds."
_END = "End of the part that is replaced, in seconds."


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/audio/stable-audio-2/inpaint``."""

    audio: File = fields.audio(190, fields.AUDIO_REQUEST_BYTES)
    prompt: str = fields.audio_prompt()
    mask_start: float | None = number(0, 190, default=30, description=_START)
    mask_end: float | None = number(0, 190, default=190, description=_END)
    duration: float | None = fields.duration(190)
    seed: int | None = fields.seed()
    steps: int | None = fields.steps(4, 8, default=8)
    output_format: str | None = fields.audio_format()


stable_audio_2_5 = Operation(
    id="stability/stable-audio-2.5/inpaint",
    title="Stable Audio 2.5: inpaint",
    params=Params,
    target="/v2beta/audio/stable-audio-2/inpaint",
    provider=stability,
    dialect=direct,
    output="audio",
    price=in_credits(20),
    max_bytes=fields.AUDIO_REQUEST_BYTES,
)


@attrs.frozen(kw_only=True)
class AudioInpaintLongParams(Params):
    """Parameters of ``POST /v2beta/audio/stable-audio/inpaint`` without ``model``: sounds of twice the length."""

    audio: File = fields.audio(380, fields.LONG_AUDIO_REQUEST_BYTES)
    mask_start: float | None = number(0, 380, default=30, description=_START)
    mask_end: float | None = number(0, 380, default=380, description=_END)
    duration: float | None = fields.duration(380)
    cfg_scale: float | None = fields.cfg_scale(25, default=1)


stable_audio_3 = attrs.evolve(
    stable_audio_2_5,
    id="stability/stable-audio-3/inpaint",
    title="Stable Audio 3: inpaint",
    params=AudioInpaintLongParams,
    target="/v2beta/audio/stable-audio/inpaint",
    dialect=asynchronous_audio,
    price=in_credits(26),
    constants={"model": "stable-audio-3"},
    max_bytes=fields.LONG_AUDIO_REQUEST_BYTES,
)
