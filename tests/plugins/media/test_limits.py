"""The length of audio files, compared with that of another library, and the problems of files that exceed a limit."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, strategies as st

from impasto import File
from impasto.files import media_type_of
from impasto_plugins.media.limits import AudioLimits, length_of
from tests.media import FRAME, FRAME_SECONDS, mp3, wav

LIMITS = AudioLimits(min_seconds=6, max_seconds=190, max_bytes=1_000_000)


def info_frame(flags: int, encoder: bytes = b"LAME3.100", delay: int = 576, padding: int = 1_000) -> bytes:
    """A frame that describes the others: a larger one than ``FRAME``, of the same kind."""
    tag = b"Info" + flags.to_bytes(4) + bytes(4 * (flags & 1) + 4 * (flags >> 1 & 1) + 4 * (flags >> 3 & 1))
    tag += encoder.ljust(21, b"\0") + (delay << 12 | padding).to_bytes(3)
    head = b"\xff\xe3\x98\xc4"  # 80 kbit/s: 720 bytes
    return (head + bytes(9) + tag).ljust(720, b"\0")


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_lengths_agree_with_those_of_another_library(rate: int, channels: int) -> None:
    samples = np.full((3 * rate, channels), 0.2)
    for format, within in (("WAV", 0.0001), ("MP3", 0.4)):
        out = io.BytesIO()
        soundfile.write(out, samples, rate, format=format)
        minimum, maximum = length_of(File.of(out.getvalue()))
        assert minimum - within <= 3 <= maximum + within
        assert maximum - minimum < within or format == "MP3"


def test_the_length_of_an_mp3_without_a_tag_is_known_to_a_few_frames() -> None:
    assert length_of(File.of(wav(7.25))) == (7.25, 7.25)
    assert length_of(File.of(wav(7.25, junk=31))) == (7.25, 7.25)
    minimum, maximum = length_of(File.of(mp3(7.2)))
    assert maximum == pytest.approx(7.2)
    assert maximum - minimum == pytest.approx(5 * FRAME_SECONDS)


@pytest.mark.parametrize("flags", [0, 1, 2, 8, 3, 9, 11])
def test_the_padding_that_an_encoder_notes_is_subtracted(flags: int) -> None:
    sound = info_frame(flags) + FRAME * 100
    minimum, maximum = length_of(File.of(sound))
    assert minimum == maximum
    assert maximum == pytest.approx(100 * FRAME_SECONDS - 1_576 / 8_000)
    unknown = info_frame(flags, b"Xyz") + FRAME * 100
    assert length_of(File.of(unknown))[1] == pytest.approx(100 * FRAME_SECONDS)


def test_tags_and_zeros_before_the_first_frame_are_skipped() -> None:
    tag = b"ID3\x04\0\0\0\0\x01\0" + bytes(128)
    for before in (tag, tag + bytes(300), b"ID3\x04\0\x10\0\0\x01\0" + bytes(138)):
        assert length_of(File.of(before + mp3(7.2)))[1] == pytest.approx(7.2)


def test_an_mp3_is_recognized_by_its_first_bytes() -> None:
    for begin in ("fffb", "fffa", "fff3", "fff2", "ffe3", "ffe2", "494433"):
        assert media_type_of(bytes.fromhex(begin) + bytes(14)) == "audio/mpeg"
    for other in ("fff1", "fffe", "ffd8"):
        assert media_type_of(bytes.fromhex(other) + bytes(14)) != "audio/mpeg"


def test_the_messages_name_the_length_and_the_limits() -> None:
    assert str(LIMITS) == "MP3 or WAV, 6..190 seconds"
    assert list(LIMITS(File.of(wav(6)))) == []
    assert list(LIMITS(File.of(wav(5.99)))) == ["is 5.99 seconds long; it must be 6 to 190"]
    assert list(LIMITS(File.of(wav(190.01)))) == ["is 190.01 seconds long; it must be 6 to 190"]
    assert list(LIMITS(File.of(wav(8, junk=1_000_000)))) == [
        "has 1,000,852 bytes; a request may have at most 1,000,000"
    ]


@given(st.binary(max_size=300))
def test_any_bytes_after_a_valid_beginning_have_a_message(data: bytes) -> None:
    for begin in (b"RIFF\0\0\0\0WAVE", b"ID3", FRAME[:4], wav(1)[:40]):
        for problem in LIMITS(File.of(begin + data)):
            assert "seconds" in problem or "incomplete" in problem
