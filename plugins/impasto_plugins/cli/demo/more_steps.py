"""Steps that `impasto try --all` adds: sounds and 3D models."""

from __future__ import annotations

from pathlib import Path

from .tour import FOX, LIGHTHOUSE, Step

_TUNE = Path("tune.wav")

MORE_STEPS = (
    Step(
        "Text to audio",
        "tune",
        "stability/stable-audio-2.5/text-to-audio",
        {"prompt": "a slow guitar by the sea", "duration": 12, "seed": 40, "output_format": "wav"},
    ),
    Step(
        "Audio to audio (asynchronous job)",
        "music-box",
        "stability/stable-audio-3/audio-to-audio",
        {
            "audio": _TUNE,
            "prompt": "the same on a music box",
            "strength": 0.6,
            "duration": 10,
            "seed": 41,
            "output_format": "wav",
        },
    ),
    Step(
        "Inpaint four seconds of a sound",
        "bell",
        "stability/stable-audio-2.5/inpaint",
        {
            "audio": _TUNE,
            "prompt": "a bell",
            "mask_start": 4,
            "mask_end": 8,
            "duration": 12,
            "seed": 42,
            "output_format": "wav",
        },
    ),
    Step("3D model from an image", "fox-3d", "stability/stable-fast-3d", {"image": FOX}, "glb"),
    Step(
        "3D model with few points",
        "lighthouse-3d",
        "stability/stable-point-aware-3d",
        {"image": LIGHTHOUSE, "target_type": "vertex", "target_count": 600, "seed": 43},
        "glb",
    ),
)
