"""Whether a sound or a 3D model is all there: players and viewers take what was cut short, or refuse it late."""

from __future__ import annotations

import io
from typing import BinaryIO

from impasto import File

from . import mp3, wav

_GLB_HEADER = 12


def is_complete(data: bytes | File, media_type: str) -> bool:
    """Whether a WAV, MP3 or GLB holds all that its own framing announces. A file is read in pieces. Raises OSError."""
    with io.BytesIO(data) if isinstance(data, bytes) else data.open() as source:
        size = source.seek(0, io.SEEK_END)
        match media_type:
            case "audio/wav":
                return wav.is_whole(source, size)
            case "audio/mpeg":
                return mp3.is_whole(source, size)
            case "model/gltf-binary":
                return _is_whole_glb(source, size)
            case _:
                return False


def _is_whole_glb(source: BinaryIO, size: int) -> bool:
    source.seek(8)
    return _GLB_HEADER < int.from_bytes(source.read(4), "little") <= size
