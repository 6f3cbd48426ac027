"""What an answer is made of, in OpenAI's shape: text, and pictures that become base64 as they go out."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import attrs
import pybase64

from impasto import Artifact, Cost, File
from impasto.ext import opened
from impasto_plugins.gateway.calls.execution import Done
from impasto_plugins.gateway.calls.streamed_answers import PIECE
from impasto_plugins.gateway.errors import REPLAYED, Failure
from impasto_plugins.images.size import size_in, size_of
from impasto_plugins.openai_compat.response import Usage

_PIECE = 3 * 2**16  # a multiple of 3: pieces of base64 join without padding
_LONGEST_HEADER = 2_000
_USAGE = Usage().model_dump()
_json = json.JSONEncoder(separators=(",", ":")).encode

OPEN_PICTURE = b'{"b64_json":"'
"""How a picture begins that is not kept at a URL: it is the first in its object."""

_FORMATS = {"audio/mpeg": "mp3", "model/gltf-binary": "glb"}
"""Where a format's name is not in its media type."""

Segment = bytes | memoryview | File
"""Bytes as they go out, or a picture's content, which goes out as base64."""


@attrs.frozen
class Picture:
    """One picture of an answer: inline, or kept at ``url``. ``about`` is its format, and its size where it has one."""

    artifact: Artifact
    about: Mapping[str, object]
    url: str | None = None

    @classmethod
    async def of(cls, artifact: Artifact, url: str | None = None) -> Picture:
        """Looks at the picture's header."""
        about = _about(artifact) if artifact.file is None else await asyncio.to_thread(_about, artifact)
        return cls(artifact, about, url)


def _about(artifact: Artifact) -> dict[str, object]:
    file, media_type = artifact.file, artifact.media_type
    told: dict[str, object] = {"output_format": _FORMATS.get(media_type, media_type.rpartition("/")[2])}
    try:
        width, height = size_of(file) if file is not None else size_in(io.BytesIO(artifact.data), media_type)
        told["size"] = f"{width}x{height}"
    except (ValueError, OSError):  # a picture that is none is told by its plugin
        pass
    return told


@attrs.frozen
class Made:
    """What came of a call, as its caller is shown it. ``replayed``: of one that was made for an earlier request."""

    done: Done
    pictures: Sequence[Picture]
    replayed: bool

    @property
    def headers(self) -> dict[str, str]:
        """What the answer's headers tell of it."""
        return {**headers_of(self.done.cost, self.done.warnings), **(REPLAYED if self.replayed else {})}


def length(segments: Iterable[Segment]) -> int:
    """How many bytes they are as they go out."""
    return sum(map(_length, segments))


def _length(segment: Segment) -> int:
    if isinstance(segment, bytes):
        return len(segment)
    size = segment.size if isinstance(segment, File) else len(segment)
    return (size + 2) // 3 * 4


async def pieces(segments: Iterable[Segment]) -> AsyncGenerator[bytes]:
    """The bytes as they go out, never many at once. Raises OSError."""
    for segment in segments:
        if isinstance(segment, File):
            async with opened(segment.open) as source:
                while piece := await asyncio.to_thread(_read, source):
                    yield pybase64.b64encode(piece)
        elif isinstance(segment, bytes):
            yield segment
        else:
            for at in range(0, len(segment), _PIECE):
                yield pybase64.b64encode(segment[at : at + _PIECE])


def _read(source: BinaryIO) -> bytes:
    """A whole piece, but at the end: one that is cut short would be padded in the middle."""
    piece = source.read(PIECE)
    while 0 < len(piece) < PIECE and (more := source.read(PIECE - len(piece))):
        piece += more
    return piece


def headers_of(cost: Cost | None, warnings: Sequence[str]) -> dict[str, str]:
    """What an answer's headers tell of the call."""
    headers: dict[str, str] = {}
    if cost is not None:
        headers["x-impasto-cost-usd"] = f"{cost.usd:.10g}"
    if warnings:
        text = "; ".join(warnings).encode("ascii", "backslashreplace").decode()
        headers["x-impasto-warnings"] = "".join(c if c.isprintable() else " " for c in text)[:_LONGEST_HEADER]
    return headers


def _told(picture: Picture) -> dict[str, object]:
    artifact = picture.artifact
    told = {"seed": artifact.seed, "finish_reason": artifact.finish_reason, "url": picture.url}
    return {name: value for name, value in told.items() if value is not None}


def _object(told: Mapping[str, object], picture: Picture) -> Iterator[Segment]:
    """A JSON object with its picture first, or without one where that has a URL."""
    rest = _json(told).encode()
    if picture.url is not None:
        yield rest
        return
    yield OPEN_PICTURE
    yield picture.artifact.file or memoryview(picture.artifact.data)
    yield b'"}' if rest == b"{}" else b'",' + rest[1:]


def opening(created: int) -> bytes:
    """How an answer in JSON begins."""
    return b'{"created":%d,"data":[' % created


def whole(made: Made) -> Iterator[Segment]:
    """All of an answer in JSON that comes behind its opening."""
    for i, picture in enumerate(made.pictures):
        if i:
            yield b","
        yield from _object(_told(picture), picture)
    about = made.pictures[0].about if made.pictures else {}
    told: dict[str, object] = {**about, "usage": _USAGE}
    if made.done.warnings:
        told["warnings"] = made.done.warnings
    if made.done.lost:
        told["errors"] = made.done.lost
    yield b"]," + _json(told)[1:].encode()


def event_opening(event: str) -> bytes:
    """How a server-sent event begins."""
    return f"event: {event}\ndata: ".encode()


def completed(event: str, picture: Picture, created: int) -> Iterator[Segment]:
    """All of a ``completed`` event that comes behind its opening."""
    told = {
        "type": event,
        "created_at": created,
        "quality": "auto",
        "background": "auto",
        **picture.about,
        **_told(picture),
        "usage": _USAGE,
    }
    yield from _object(told, picture)
    yield b"\n\n"


def error_event(failure: Failure) -> bytes:
    """The event of a call that failed after its stream had begun."""
    return b"event: error\ndata: " + _json(failure.body()).encode() + b"\n\n"
