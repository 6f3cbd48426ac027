"""Completeness of audio and 3D models. Players and viewers accept truncated files, or refuse them late."""

from __future__ import annotations

import io
from typing import BinaryIO

from impasto import File

from . import mp3, wav

_GLB_HEADER = 12


def is_complete(data: bytes | File, media_type: str) -> bool:
    """Return True if a WAV, MP3 or GLB has everything that its framing announces. Reads in pieces. Raises OSError."""
    with io.BytesIO(data) if isinstance(data, bytes) else data.open() as source:
        return _is_complete(source, source.seek(0, io.SEEK_END), media_type)


def is_intact(source: BinaryIO, size: int, media_type: str) -> bool:
    """Return True if audio to be sent has all that its own framing, and its encoder, announce.

    Stricter than ``is_complete``: an MP3 must have the bytes that its encoder counted, if the count is in the file.

    Raises:
        OSError: the file can't be read.
    """
    return _is_complete(source, size, media_type) and (
        media_type != "audio/mpeg" or mp3.has_counted_bytes(source, size)
    )


def _is_complete(source: BinaryIO, size: int, media_type: str) -> bool:
    match media_type:
        case "audio/wav":
            return wav.is_complete(source, size)
        case "audio/mpeg":
            return mp3.is_complete(source, size)
        case "model/gltf-binary":
            return _is_complete_glb(source, size)
        case _:
            return False


def _is_complete_glb(source: BinaryIO, size: int) -> bool:
    source.seek(8)
    return _GLB_HEADER < int.from_bytes(source.read(4), "little") <= size
