"""Audio and 3D models for tests, made as cheaply as possible: a minute has a few kilobytes."""

from __future__ import annotations

import json
import struct
from functools import cache

RATE = 100
"""Samples, of a byte each, in a second of ``wav``."""

FRAME = b"\xff\xe3\x18\xc4" + bytes(68)
"""A frame of MPEG 2.5, layer III: 8 kbit/s, 8 kHz, mono, silent."""

FRAME_SECONDS = 576 / 8000


@cache
def wav(seconds: float, *, junk: int | None = None) -> bytes:
    """A WAV, with a chunk of so many bytes that says nothing."""
    samples = bytes([128]) * round(seconds * RATE)
    samples += bytes(len(samples) % 2)
    head = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, RATE, 1, 8)
    beside = b"" if junk is None else b"junk" + struct.pack("<I", junk) + bytes(junk + junk % 2)
    body = b"WAVE" + head + beside + b"data" + struct.pack("<I", round(seconds * RATE)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


@cache
def mp3(seconds: float) -> bytes:
    """An MP3 of the nearest number of frames."""
    return FRAME * round(seconds / FRAME_SECONDS)


@cache
def glb() -> bytes:
    """A GLB with an empty scene."""
    text = json.dumps({"asset": {"version": "2.0"}, "scenes": [{}], "scene": 0}).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text
