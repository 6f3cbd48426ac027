"""Length and completeness of an MP3: a sequence of frames with their own lengths. The file has no other length."""

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
_COUNTS_FRAMES, _COUNTS_BYTES = 1, 2
"""Flags of a tag, and the order of its numbers."""

_SLACK = 4096
"""Bytes that an encoder may have counted and the file lacks: tags that a player removed, a last frame."""

_WINDOW = 1 << 16
_TAIL = 8192
"""Bytes; more than any two frames."""

_MAX_TAGS = 4

_PADDING_FRAMES = 5
"""Frames of silence that encoders add at most if the file does not say how many."""


class Frame(NamedTuple):
    """A frame header: bytes, samples, samples a second."""

    length: int
    samples: int
    rate: int


def is_complete(source: BinaryIO, size: int) -> bool:
    """Return True if the last frame has all its bytes, and no other frame begins after it."""
    last = end(source, size)
    if not 0 < last <= size:
        return False
    source.seek(last)
    rest = source.read(4)
    return len(rest) == 4 or not rest.startswith(b"\xff")  # a frame header of less than four bytes is cut off


def has_counted_bytes(source: BinaryIO, size: int) -> bool:
    """Return True unless bytes are missing of those that the encoder counted in the tag of the first frame."""
    at, frame = _next(source, _after_id3(source))
    if frame is None:
        return False
    source.seek(at)
    first = source.read(frame.length)
    tag = _tag_in(first)
    counted = 0
    if tag is not None and first[tag : tag + 4] == b"VBRI":
        counted = int.from_bytes(first[tag + 10 : tag + 14])
    elif tag is not None:
        flags = int.from_bytes(first[tag + 4 : tag + 8])
        place = tag + 8 + 4 * (flags & _COUNTS_FRAMES)
        counted = int.from_bytes(first[place : place + 4]) if flags & _COUNTS_BYTES else 0
    return counted - _SLACK <= size - at


def end(source: BinaryIO, size: int) -> int:
    """Return the end of the last frame, present or not; 0 without frames.

    Reads only the last bytes before the tags at the end: a sound of minutes has thousands of frames.
    """
    at, frame = _next(source, max(_before_tags(source, size) - _TAIL, 0))
    end = 0
    while frame is not None:
        end = at + frame.length
        at, frame = _next(source, end)
    return end


def seconds(source: BinaryIO) -> tuple[float, float]:
    """Return the minimum and maximum seconds; the encoder's padding is not always known. Raises ValueError."""
    at, frame = _next(source, _after_id3(source))
    if frame is None:
        raise ValueError("no frames")
    one = frame.samples / frame.rate
    source.seek(at)
    first = source.read(frame.length)
    tag = _tag_in(first)
    trimmed = _trimmed(first, tag) if tag is not None else None
    total = -(trimmed or 0) / frame.rate
    if tag is not None:
        total -= one  # that frame describes the others, and is not played
    while frame is not None:
        total += frame.samples / frame.rate
        at, frame = _next(source, at + frame.length)
    padding = _PADDING_FRAMES * one if trimmed is None else 0.0
    return round(max(total - padding, 0.0), 6), round(max(total, 0.0), 6)


def _tag_in(first: bytes) -> int | None:
    """Return the place of the tag that encoders put into a first frame, or None."""
    return next((place for name in _TAGS if (place := first.find(name, 0, 64)) > 0), None)


def _before_tags(source: BinaryIO, size: int) -> int:
    """Return the place at which the tags after the sound begin; with a cover in them they are longer than a window.

    ID3v1 is the last, and before it in any order APEv2, Lyrics3v2 or ID3v2 with a footer.
    """
    end = size
    for _ in range(_MAX_TAGS):
        source.seek(max(end - 128, 0))
        last = source.read(min(end, 128))
        if last.startswith(b"TAG") and len(last) == 128:
            length = 128
        elif last[-32:-24] == b"APETAGEX":
            has_header = last[-9] & 0x80
            length = int.from_bytes(last[-20:-16], "little") + (32 if has_header else 0)
        elif last.endswith(b"LYRICS200") and last[-15:-9].isdigit():
            length = int(last[-15:-9]) + 15
        elif last[-10:-7] == b"3DI":
            length = _synchsafe(last[-4:]) + 20
        else:
            break
        if length > end:
            break
        end -= length
    return end


@lru_cache(4096)
def frame_of(header: bytes) -> Frame | None:
    """Return the frame that four bytes begin, if they are a header of layer III."""
    bits = int.from_bytes(header)
    version, layer, rate, hertz = bits >> 19 & 3, bits >> 17 & 3, bits >> 12 & 15, bits >> 10 & 3
    if len(header) < 4 or bits >> 21 != 0x7FF or version == 1 or layer != 1 or rate in (0, 15) or hertz == 3:
        return None
    samples = 1152 if version == 3 else 576
    per_second = _HERTZ[version][hertz]
    length = samples // 8 * _KBITS[version == 3][rate] * 1000 // per_second + (bits >> 9 & 1)
    return Frame(length, samples, per_second)


def _next(source: BinaryIO, at: int) -> tuple[int, Frame | None]:
    """Return the frame that begins here, or after tags or zeros within a window, and its place."""
    source.seek(at)
    if (frame := frame_of(source.read(4))) is not None:
        return at, frame
    source.seek(at)
    window = source.read(_WINDOW)
    place = window.find(b"\xff")
    while place >= 0:
        # Any two bytes may look like a header, so another one must follow at the end of this frame.
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
    return 10 + _synchsafe(head[6:]) + (10 if head[5] & 0x10 else 0)


def _synchsafe(digits: bytes) -> int:
    """Return the number that an ID3 tag writes with 7 bits a byte."""
    size = 0
    for byte in digits:
        size = size << 7 | byte & 0x7F
    return size


def _trimmed(first: bytes, tag: int) -> int | None:
    """Return the samples of padding that LAME and compatible encoders note in the tag."""
    flags = int.from_bytes(first[tag + 4 : tag + 8])
    at = tag + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    if first[tag : tag + 4] == b"VBRI" or not first[at : at + 4].startswith((b"LAME", b"Lavc", b"Lavf")):
        return None
    padding = int.from_bytes(first[at + 21 : at + 24])
    return (padding >> 12) + (padding & 0xFFF)
