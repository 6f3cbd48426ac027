"""Text to audio: generate a sound from a prompt.

Stable Audio 2 and 2.5 share a path. Stable Audio 3 answers with a job.
"""

from __future__ import annotations

import attrs

from impasto import Operation

from . import fields
from .direct import asynchronous_audio, direct
from .provider import PerStep, in_credits, stability


@attrs.frozen(kw_only=True)
class Params:
    """Parameters of ``POST /v2beta/audio/stable-audio-2/text-to-audio`` for Stable Audio 2, without ``model``."""

    prompt: str = fields.audio_prompt()
    duration: float | None = fields.duration(190)
    seed: int | None = fields.seed()
    steps: int | None = fields.steps(30, 100, default=50)
    cfg_scale: float | None = fields.cfg_scale(25, default=7)
    output_format: str | None = fields.audio_format()


stable_audio_2 = Operation(
    id="stability/stable-audio-2/text-to-audio",
    title="Stable Audio 2: text to audio",
    params=Params,
    target="/v2beta/audio/stable-audio-2/text-to-audio",
    provider=stability,
    dialect=direct,
    output="audio",
    price=PerStep(base=17, each=0.06, steps=50),
    constants={"model": "stable-audio-2"},
)


@attrs.frozen(kw_only=True)
class TextToAudioFastParams(Params):
    """Parameters for Stable Audio 2.5, which takes fewer steps."""

    steps: int | None = fields.steps(4, 8, default=8)
    cfg_scale: float | None = fields.cfg_scale(25, default=1)


stable_audio_2_5 = attrs.evolve(
    stable_audio_2,
    id="stability/stable-audio-2.5/text-to-audio",
    title="Stable Audio 2.5: text to audio",
    params=TextToAudioFastParams,
    price=in_credits(20),
    constants={"model": "stable-audio-2.5"},
)


@attrs.frozen(kw_only=True)
class TextToAudioLongParams(TextToAudioFastParams):
    """Parameters of ``POST /v2beta/audio/stable-audio/text-to-audio`` without ``model``: sounds of twice the length."""

    duration: float | None = fields.duration(380)


stable_audio_3 = attrs.evolve(
    stable_audio_2_5,
    id="stability/stable-audio-3/text-to-audio",
    title="Stable Audio 3: text to audio",
    params=TextToAudioLongParams,
    target="/v2beta/audio/stable-audio/text-to-audio",
    dialect=asynchronous_audio,
    price=in_credits(26),
    constants={"model": "stable-audio-3"},
)
