"""Limits of an audio file before it is sent: format by content, seconds, size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import attrs

from impasto import File

from . import mp3, wav
from .completeness import is_intact

FORMATS = {"audio/mpeg": "MP3", "audio/wav": "WAV"}


@attrs.frozen(kw_only=True)
class AudioLimits:
    """The limits of an audio file, in seconds and bytes. Called with a file, it yields the file's problems."""

    min_seconds: float
    max_seconds: float
    max_bytes: int

    def __call__(self, file: File) -> Iterator[str]:
        """Yield the problems of a file. The bytes come first: a file that is too large is not opened."""
        if file.media_type not in FORMATS:
            yield f"{file.label!r} is not an MP3 or WAV file; give {self}"
            return
        if file.size > self.max_bytes:
            yield f"has {file.size:,} bytes; a request may have at most {self.max_bytes:,}"
            return
        name = FORMATS[file.media_type]
        try:
            with file.open() as source:
                shortest, longest = _length_of(source, file)
                intact = is_intact(source, file.size, file.media_type)
        except (OSError, ValueError):
            yield f"{file.label!r} is an incomplete or damaged {name} file; give the whole file"
            return
        if not intact:
            yield f"{file.label!r} is an incomplete {name} file; give the whole file"
            return
        if longest < self.min_seconds or shortest > self.max_seconds:
            yield f"is {longest:.2f} seconds long; it must be {self.min_seconds:g} to {self.max_seconds:g}"

    def __str__(self) -> str:
        return f"MP3 or WAV, {self.min_seconds:g}..{self.max_seconds:g} seconds"


def length_of(file: File) -> tuple[float, float]:
    """Return the minimum and maximum seconds of a WAV or MP3; they differ if the encoder's padding is unknown.

    Raises ValueError or OSError if it can't be read.
    """
    with file.open() as source:
        return _length_of(source, file)


def _length_of(source: BinaryIO, file: File) -> tuple[float, float]:
    if file.media_type == "audio/wav":
        seconds = wav.seconds(source, file.size)
        return seconds, seconds
    return mp3.seconds(source)
