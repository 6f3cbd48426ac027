"""MP3: frames one after another, each of which says how long it is; there is no other length in it."""

from __future__ import annotations

from functools import lru_cache
from typing import BinaryIO, NamedTuple

_KBITS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
"""Bit rates of MPEG 2 and 2.5, and of MPEG 1."""

_HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_TAGS = (b"Xing", b"Info", b"VBRI")
_WINDOW = 1 << 16
_TAIL = 8192
"""More than any two frames."""

_PADDING_FRAMES = 5
"""How many frames of silence encoders put around a sound, at most, where they don't tell how much it is."""


class Frame(NamedTuple):
    """What a frame's header says: its bytes, its samples, samples a second."""

    length: int
    samples: int
    rate: int


def is_whole(source: BinaryIO, size: int) -> bool:
    """Whether the last frame has all its bytes."""
    return 0 < end(source, size) <= size


def end(source: BinaryIO, size: int) -> int:
    """Where the last frame ends, or would end; 0 where there is none.

    Looks at the last of ``size`` bytes only: a sound of minutes has thousands of frames.
    """
    at, frame = _next(source, max(size - _TAIL, 0))
    end = 0
    while frame is not None:
        end = at + frame.length
        at, frame = _next(source, end)
    return end


def seconds(source: BinaryIO) -> tuple[float, float]:
    """The least and the most that it may play: an encoder's padding is not always told. Raises ValueError."""
    at, frame = _next(source, _after_id3(source))
    if frame is None:
        raise ValueError("no frames")
    one = frame.samples / frame.rate
    source.seek(at)
    first = source.read(frame.length)
    tag = next((place for name in _TAGS if (place := first.find(name, 0, 64)) > 0), None)
    trimmed = _trimmed(first, tag) if tag is not None else None
    total = -(trimmed or 0) / frame.rate
    if tag is not None:
        total -= one  # that frame tells something of the others, and is not played
    while frame is not None:
        total += frame.samples / frame.rate
        at, frame = _next(source, at + frame.length)
    untold = _PADDING_FRAMES * one if trimmed is None else 0.0
    return round(max(total - untold, 0.0), 6), round(max(total, 0.0), 6)


@lru_cache(4096)
def frame_of(header: bytes) -> Frame | None:
    """What four bytes say, if they begin a frame of layer III."""
    bits = int.from_bytes(header)
    version, layer, rate, hertz = bits >> 19 & 3, bits >> 17 & 3, bits >> 12 & 15, bits >> 10 & 3
    if len(header) < 4 or bits >> 21 != 0x7FF or version == 1 or layer != 1 or rate in (0, 15) or hertz == 3:
        return None
    samples = 1152 if version == 3 else 576
    per_second = _HERTZ[version][hertz]
    length = samples // 8 * _KBITS[version == 3][rate] * 1000 // per_second + (bits >> 9 & 1)
    return Frame(length, samples, per_second)


def _next(source: BinaryIO, at: int) -> tuple[int, Frame | None]:
    """The frame that begins here, or soon after something else: tags, or zeros before the first."""
    source.seek(at)
    if (frame := frame_of(source.read(4))) is not None:
        return at, frame
    source.seek(at)
    window = source.read(_WINDOW)
    place = window.find(b"\xff")
    while place >= 0:
        frame = frame_of(window[place : place + 4])
        if frame is not None and frame_of(window[place + frame.length : place + frame.length + 4]) is not None:
            return at + place, frame
        place = window.find(b"\xff", place + 1)
    return at, None


def _after_id3(source: BinaryIO) -> int:
    source.seek(0)
    head = source.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if head[5] & 0x10 else 0)


def _trimmed(first: bytes, tag: int) -> int | None:
    """Samples of padding that LAME, or who writes as it does, tells in its part of the tag."""
    flags = int.from_bytes(first[tag + 4 : tag + 8])
    at = tag + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    if first[tag : tag + 4] == b"VBRI" or not first[at : at + 4].startswith((b"LAME", b"Lavc", b"Lavf")):
        return None
    told = int.from_bytes(first[at + 21 : at + 24])
    return (told >> 12) + (told & 0xFFF)
