"""Completeness of audio and 3D models: files of every encoder are complete, truncated ones are not."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, strategies as st

from impasto import File
from impasto.files import media_type_of
from impasto_plugins.media.completeness import is_complete
from tests.media import FRAME, glb, mp3, wav

ID3 = b"ID3\x04\0\0\0\0\x01\0" + bytes(128)
ID3_OF_THE_END = b"TAG" + bytes(125)


def encode(format: str, subtype: str, seconds: float = 2.0) -> bytes:
    """A file as another library writes it."""
    out = io.BytesIO()
    soundfile.write(out, np.full((int(seconds * 32_000), 2), 0.3), 32_000, format=format, subtype=subtype)
    return out.getvalue()


COMPLETE = {
    "wav": wav(3),
    "wav with a chunk": wav(3, junk=33),
    "wav of unknown length": wav(3)[:4] + b"\xff\xff\xff\xff" + wav(3)[8:],
    "wav of floats": encode("WAV", "FLOAT"),
    "wav of 24 bits": encode("WAV", "PCM_24"),
    "mp3": mp3(3),
    "mp3 with tags": ID3 + mp3(3) + ID3_OF_THE_END,
    "mp3 of another encoder": encode("MP3", "MPEG_LAYER_III"),
    "glb": glb(),
}


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_file_is_complete(name: str) -> None:
    data = COMPLETE[name]
    media_type = media_type_of(data[:16])
    assert media_type is not None
    assert is_complete(data, media_type)
    assert is_complete(File.of(data), media_type)
    assert not is_complete(data, "image/png")


@pytest.mark.parametrize("name", [name for name in COMPLETE if "unknown" not in name and "tags" not in name])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_not_complete(name: str, share: float) -> None:
    data = COMPLETE[name]
    cut = data[: int(len(data) * share)]
    if "mp3" in name and cut and _ends_between_frames(data, len(cut)):
        return  # a valid shorter file: nothing in it says how long it was
    assert not is_complete(cut, media_type_of(data[:16]) or "")


def _ends_between_frames(data: bytes, size: int) -> bool:
    """Return True if fewer bytes than a frame header follow the last complete frame."""
    from impasto_plugins.media.mp3 import frame_of

    at = 0
    while (frame := frame_of(data[at : at + 4])) is not None and at + frame.length <= size:
        at += frame.length
    return 0 < at <= size < at + 4


@given(st.binary(max_size=200), st.sampled_from(["audio/wav", "audio/mpeg", "model/gltf-binary"]))
def test_any_bytes_have_a_result(data: bytes, media_type: str) -> None:
    assert is_complete(data, media_type) in (True, False)
    start = {"audio/wav": wav(1)[:20], "audio/mpeg": FRAME[:4], "model/gltf-binary": glb()[:8]}[media_type]
    assert is_complete(start + data, media_type) in (True, False)


def test_a_model_that_announces_no_bytes_is_not_complete() -> None:
    assert not is_complete(struct.pack("<4sII", b"glTF", 2, 0) + bytes(20), "model/gltf-binary")
