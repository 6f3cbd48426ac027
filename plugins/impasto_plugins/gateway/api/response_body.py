"""Response bodies in OpenAI's shape: text, and images that are encoded as base64 while they are sent."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import BinaryIO

import attrs
import pybase64

from impasto import Artifact, Cost, File, Partial
from impasto_plugins.concurrency import open_in_thread
from impasto_plugins.gateway.calls.execution import CallOutcome
from impasto_plugins.gateway.calls.streamed_answers import CHUNK_BYTES
from impasto_plugins.gateway.errors import REPLAYED_HEADERS, APIError
from impasto_plugins.images.size import size_in, size_of
from impasto_plugins.openai_compat.response import TokenUsage

_CHUNK_BYTES = 3 * 2**16  # a multiple of 3: pieces of base64 join without padding
_MAX_HEADER_LENGTH = 2_000
_NO_USAGE = TokenUsage.of(None).model_dump()
_json = json.JSONEncoder(separators=(",", ":")).encode

IMAGE_OPENING = b'{"b64_json":"'
"""The beginning of an inline image: it comes first in its object."""

_FORMAT_NAMES = {"audio/mpeg": "mp3", "model/gltf-binary": "glb"}
"""Names of formats that differ from their media type."""

Segment = bytes | memoryview | File
"""Bytes to send, or an image's content to encode."""


@attrs.frozen
class ResponseImage:
    """One image of a response: inline, or stored at ``url``.

    ``properties`` is its format, and its size if it has one.
    """

    artifact: Artifact
    properties: Mapping[str, object]
    url: str | None = None


def _read_properties(artifact: Artifact) -> dict[str, object]:
    file, media_type = artifact.file, artifact.media_type
    properties: dict[str, object] = {"output_format": _FORMAT_NAMES.get(media_type, media_type.rpartition("/")[2])}
    try:
        width, height = size_of(file) if file is not None else size_in(io.BytesIO(artifact.data), media_type)
        properties["size"] = f"{width}x{height}"
    except (ValueError, OSError):  # not an image: its plugin reports that
        pass
    return properties


@attrs.frozen
class ResponseContent:
    """The content of a response. ``is_replayed``: the call was made for an earlier request."""

    outcome: CallOutcome
    images: Sequence[ResponseImage]
    is_replayed: bool


async def present(outcome: CallOutcome, *, is_replayed: bool = False) -> ResponseContent:
    """Return the outcome for its caller, with what the images' headers say."""
    images = []
    for artifact, url in zip_longest(outcome.artifacts, outcome.urls):
        if artifact.file is None:
            properties = _read_properties(artifact)
        else:
            properties = await asyncio.to_thread(_read_properties, artifact)
        images.append(ResponseImage(artifact, properties, url))
    return ResponseContent(outcome, images, is_replayed)


def encoded_length(segments: Iterable[Segment]) -> int:
    """Return the number of bytes after encoding."""
    return sum(map(_length, segments))


def _length(segment: Segment) -> int:
    if isinstance(segment, bytes):
        return len(segment)
    size = segment.size if isinstance(segment, File) else len(segment)
    return (size + 2) // 3 * 4


def encode_small(segments: Iterable[Segment], max_bytes: int) -> bytes | None:
    """Return all bytes to send; None if they are more, before images are encoded, or if a file is among them."""
    size, parts = 0, list[bytes]()
    for segment in segments:
        if isinstance(segment, File) or (size := size + len(segment)) > max_bytes:
            return None
        parts.append(segment if isinstance(segment, bytes) else pybase64.b64encode(segment))
    return b"".join(parts)


async def encode_segments(segments: Iterable[Segment]) -> AsyncGenerator[bytes]:
    """Yield the bytes to send, never many at once. Raises OSError."""
    for segment in segments:
        if isinstance(segment, File):
            async with open_in_thread(segment.open) as source:
                while piece := await asyncio.to_thread(_read, source):
                    yield pybase64.b64encode(piece)
        elif isinstance(segment, bytes):
            yield segment
        else:
            for offset in range(0, len(segment), _CHUNK_BYTES):
                yield pybase64.b64encode(segment[offset : offset + _CHUNK_BYTES])


def _read(source: BinaryIO) -> bytes:
    """Read a whole piece, except at the end: a short one in the middle would be padded."""
    chunk = source.read(CHUNK_BYTES)
    while 0 < len(chunk) < CHUNK_BYTES and (more := source.read(CHUNK_BYTES - len(chunk))):
        chunk += more
    return chunk


def build_headers(cost: Cost | None, warnings: Sequence[str], *, is_replayed: bool = False) -> dict[str, str]:
    """Return the headers with facts about the call."""
    headers = dict(REPLAYED_HEADERS) if is_replayed else {}
    if cost is not None:
        headers["x-impasto-cost-usd"] = f"{cost.usd:.10g}"
    if warnings:
        text = "; ".join(warnings).encode("ascii", "backslashreplace").decode()
        headers["x-impasto-warnings"] = "".join(c if c.isprintable() else " " for c in text)[:_MAX_HEADER_LENGTH]
    return headers


def _image_object(image: ResponseImage, fields: Mapping[str, object]) -> Sequence[Segment]:
    """Return a JSON object with its image first, or without one if that has a URL."""
    artifact = image.artifact
    facts = {
        "revised_prompt": artifact.revised_prompt,
        "seed": artifact.seed,
        "finish_reason": artifact.finish_reason,
        "url": image.url,
    }
    rest = _json({**fields, **{name: value for name, value in facts.items() if value is not None}}).encode()
    if image.url is not None:
        return (rest,)
    content = artifact.file or memoryview(artifact.data)
    return IMAGE_OPENING, content, b'"}' if rest == b"{}" else b'",' + rest[1:]


def body_opening(created: int) -> bytes:
    """Return the beginning of a JSON response."""
    return b'{"created":%d,"data":[' % created


def body_segments(content: ResponseContent) -> list[Segment]:
    """Return the rest of a JSON response after its beginning."""
    segments: list[Segment] = []
    for image in content.images:
        if segments:
            segments.append(b",")
        segments += _image_object(image, {})
    properties = content.images[0].properties if content.images else {}
    segments.append(b"]," + _json({**properties, **_call_fields(content.outcome)})[1:].encode())
    return segments


def _call_fields(outcome: CallOutcome) -> Mapping[str, object]:
    """Return what is known of a call beside its images."""
    fields: dict[str, object] = {
        "usage": _NO_USAGE if outcome.usage is None else TokenUsage.of(outcome.usage).model_dump()
    }
    if outcome.warnings:
        fields["warnings"] = outcome.warnings
    if outcome.lost:
        fields["errors"] = outcome.lost
    return fields


def event_opening(event: str) -> bytes:
    """Return the beginning of a server-sent event."""
    return f"event: {event}\ndata: ".encode()


def completed_event(event: str, image: ResponseImage, outcome: CallOutcome, *, is_last: bool) -> Sequence[Segment]:
    """Return the rest of the event of an image after its beginning.

    The last one has the usage, warnings and errors of the whole call: a client adds up the usage of its events.
    """
    call_fields = _call_fields(outcome) if is_last else {"usage": _NO_USAGE}
    return *_image_object(image, {**_event_fields(event, image, outcome.created), **call_fields}), b"\n\n"


def partial_event(event: str, partial: Partial, created: int) -> tuple[Segment, ...]:
    """Return the event of a partial image of the stream that ends with ``event``."""
    name = f"{event.removesuffix('completed')}partial_image"
    image = ResponseImage(partial.artifact, _read_properties(partial.artifact))
    fields = {**_event_fields(name, image, created), "partial_image_index": partial.index}
    return event_opening(name), *_image_object(image, fields), b"\n\n"


def _event_fields(event: str, image: ResponseImage, created: int) -> dict[str, object]:
    return {"type": event, "created_at": created, "quality": "auto", "background": "auto", **image.properties}


def error_event(failure: APIError) -> bytes:
    """Return the event of a call that failed after its stream had begun."""
    return b"event: error\ndata: " + _json(failure.to_json()).encode() + b"\n\n"
