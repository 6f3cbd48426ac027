"""Input audio: a truncated file is refused, also if it ends with a frame, and tags after the sound are accepted."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
import pytest
import soundfile

from impasto import File
from impasto_plugins.media.limits import AudioLimits
from tests.media import FRAME, mp3, wav

ANY = AudioLimits(min_seconds=0, max_seconds=10_000, max_bytes=100_000_000)


def encode(format: str, **options: Any) -> bytes:
    """A file as libsndfile writes it; LAME counts the bytes of an MP3."""
    out = io.BytesIO()
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (44_100 * 3, 2))
    soundfile.write(out, noise, 44_100, format=format, **options)
    return out.getvalue()


def of_odd_length(*, padded: bool) -> bytes:
    """A WAV of an odd number of bytes, whose RIFF counts the padding whether it is written or not."""
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setparams((1, 1, 8_000, 0, "NONE", ""))
        writer.writeframes(bytes([128]) * 8_001)
    data = out.getvalue()
    return data[:4] + (len(data) + 1 - 8).to_bytes(4, "little") + data[8:] + bytes(padded)


MP3 = encode("MP3")
ID3V1 = b"TAG" + bytes(125)
COVER = bytes(range(256)) * 400
APE_END = b"APETAGEX" + (2000).to_bytes(4, "little") + (len(COVER) + 32).to_bytes(4, "little") + bytes(16)
LYRICS = b"LYRICSBEGIN" + b"la " * 5_000
COMPLETE = {
    "mp3": MP3,
    "mp3 without a tag": mp3(10),
    "mp3 with a tag of its title": MP3 + ID3V1,
    "mp3 with a cover after it": MP3 + COVER + APE_END,
    "mp3 with a cover after it and a tag": MP3 + COVER + APE_END + ID3V1,
    "mp3 with lyrics after it": MP3 + LYRICS + f"{len(LYRICS):06}".encode() + b"LYRICS200" + ID3V1,
    "mp3 with a footer": MP3 + bytes(20_000) + b"3DI\x04\0\x10" + bytes((0, 1, 0x1C, 0x16)),
    "wav": encode("WAV"),
    "float wav": encode("WAV", subtype="FLOAT"),
    "wav of odd length": of_odd_length(padded=True),
    "wav of odd length, not padded": of_odd_length(padded=False),
    "wav that was written while it grew": wav(10)[:4] + b"\xff" * 4 + wav(10)[8:].replace(
        b"data" + (1000).to_bytes(4, "little"), b"data" + b"\xff" * 4
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPLETE)
def test_a_complete_file_is_accepted(kind: str) -> None:
    assert list(ANY(File.of(COMPLETE[kind]))) == []


@pytest.mark.parametrize("kind", ["mp3", "mp3 without a tag", "wav", "float wav", "wav of odd length, not padded"])
def test_a_truncated_file_is_refused(kind: str) -> None:
    data = COMPLETE[kind]
    for size in (len(data) // 2 + 1, len(data) * 9 // 10 + 1, len(data) - 1):
        assert list(ANY(File.of(data[:size]))) == [
            f"'bytes' is an incomplete {'MP3' if 'mp3' in kind else 'WAV'} file; give the whole file"
        ], size


def test_an_mp3_that_ends_with_a_frame_is_refused_if_its_encoder_counted_more_bytes() -> None:
    places = [at for at in range(len(MP3) // 3, len(MP3) // 2) if MP3[at : at + 2] == MP3[:2]]
    assert places
    assert all(list(ANY(File.of(MP3[:at]))) for at in places)


def test_an_mp3_that_ends_within_a_frame_header_is_refused() -> None:
    for size in (1, 2, 3):
        assert list(ANY(File.of(mp3(10) + FRAME[:size])))
