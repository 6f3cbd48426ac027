"""Audio: tunes of plucked notes, made from prompt and seed only. Uploaded audio is checked, not used."""

from __future__ import annotations

import io
import math
import random
import wave
from array import array
from functools import lru_cache
from importlib.util import find_spec

from .pictures.task import Generated, RenderTask

ENCODER = "lameenc"
"""The mp3 encoder, from the extra ``emulator``."""

_HERTZ = (8_000, 11_025, 16_000, 22_050, 32_000, 44_100)
_PENTATONIC = (0, 2, 4, 7, 9, 12, 14, 16)
_NOTES = 16
_NOTE_SECONDS = 0.3
_STEREO_DELAY = 0.011
"""Seconds by which the right channel is delayed."""
_FADE_SECONDS = 0.05
_MAX_AMPLITUDE = 13_000


def can_encode(format: str) -> bool:
    """Return True if the format can be encoded here."""
    return format == "wav" or find_spec(ENCODER) is not None


def render_audio(task: RenderTask) -> Generated:
    """Render audio of the task's duration. Slow, so run it in a thread."""
    hertz = max((rate for rate in _HERTZ if rate <= _HERTZ[-1] * task.scale), default=_HERTZ[0])
    samples = _stereo(task, hertz)
    if (task.text("output_format") or "mp3") == "wav":
        return Generated(_wav(samples, hertz), "audio/wav")
    return Generated(_mp3(samples, hertz), "audio/mpeg")


def _stereo(task: RenderTask, hertz: int) -> array[int]:
    """Return interleaved samples: a phrase repeated, faded out at the end."""
    left = _phrase(random.Random(f"{task.text('prompt')}\0{task.seed}"), hertz)  # noqa: S311 - a tune, no secret
    delay = int(hertz * _STEREO_DELAY)
    phrase = array("h", bytes(4 * len(left)))
    phrase[0::2], phrase[1::2] = left, left[-delay:] + left[:-delay]
    length = 2 * round(task.number("duration") * hertz)
    samples = (phrase * (length // len(phrase) + 1))[:length]
    fade = min(2 * int(hertz * _FADE_SECONDS), length)
    for back in range(fade):
        samples[length - 1 - back] = samples[length - 1 - back] * back // fade
    return samples


def _phrase(random: random.Random, hertz: int) -> array[int]:
    root = 110.0 * 2 ** (random.randrange(12) / 12)
    samples = array("h")
    for _ in range(_NOTES):
        pitch = root * 2 ** (random.choice(_PENTATONIC) / 12)
        samples += _note(pitch, random.choice((1, 1, 2)) * _NOTE_SECONDS, hertz)
    return samples


@lru_cache(maxsize=64)
def _note(pitch: float, seconds: float, hertz: int) -> array[int]:
    """Return a tone and its octave, which die away."""
    turn = 2 * math.pi * pitch / hertz
    fading, loud = math.exp(-3.5 / (seconds * hertz)), float(_MAX_AMPLITUDE)
    samples = array("h")
    for at in range(int(seconds * hertz)):
        attack = min(at * 200 / hertz, 1.0)
        samples.append(int(loud * attack * (math.sin(turn * at) + 0.4 * math.sin(2 * turn * at)) / 1.4))
        loud *= fading
    return samples


def _wav(samples: array[int], hertz: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(hertz)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def _mp3(samples: array[int], hertz: int) -> bytes:
    import lameenc  # of an extra, and only for mp3

    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_channels(2)
    encoder.set_in_sample_rate(hertz)
    encoder.set_out_sample_rate(hertz)
    encoder.set_bit_rate(128 if hertz >= 32_000 else 64)
    encoder.set_quality(7)
    return bytes(encoder.encode(samples.tobytes()) + encoder.flush())
