"""The result of a complete answer, on the direct route and on Bedrock."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from impasto import Artifact, ContentFiltered, File, Result, WireResponse
from impasto.dialects import unusable
from impasto.ext import Makes, media_type_of, printable
from impasto_plugins.images.completeness import is_complete

FILTERED = "CONTENT_FILTERED"


@attrs.frozen
class Kind:
    """A kind of output: ``accept`` requests its bytes, ``key`` is its name in a JSON answer."""

    noun: str
    media_types: frozenset[str]
    is_complete: Callable[[bytes | File, str], bool] = attrs.field(repr=False)
    accept: str | None = None
    key: str | None = None


def _is_complete_media(data: bytes | File, media_type: str) -> bool:
    from impasto_plugins.media import completeness  # models that make images do not need it

    return completeness.is_complete(data, media_type)


_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp"})

IMAGE = Kind("image", _IMAGE_TYPES, is_complete, "image/*", "image")
AUDIO = Kind("audio file", frozenset({"audio/mpeg", "audio/wav"}), _is_complete_media, "audio/*", "audio")
MODEL_3D = Kind("3D model", frozenset({"model/gltf-binary"}), _is_complete_media)

KINDS: Mapping[Makes, Kind] = {"image": IMAGE, "audio": AUDIO, "3d": MODEL_3D}


def result(kind: Kind, response: WireResponse, data: bytes | File, reason: object, seed: object) -> Result:
    """Return the result of a complete answer. Raises UnusableResult or ContentFiltered."""
    file = data if isinstance(data, File) else None
    media_type = media_type_of(data[:16]) if isinstance(data, bytes) else data.media_type
    if media_type is None or media_type not in kind.media_types:
        raise unusable(f"has no valid {kind.noun}", response)
    if not kind.is_complete(data, media_type):
        raise unusable(f"has an incomplete {kind.noun}", response)
    artifact = Artifact(
        data=data if isinstance(data, bytes) else b"",
        media_type=media_type,
        seed=_seed(seed),
        finish_reason=printable(reason) if isinstance(reason, str) else None,
        file=file,
    )
    if reason == FILTERED:
        error = ContentFiltered(
            "the image violates the provider's content policy and came back blurred",
            status=response.status,
            name=FILTERED,
            request_id=response.request_id,
        )
        error.artifacts = (artifact,)
        error.billed = "unknown"
        raise error
    return Result(artifacts=(artifact,), request_id=response.request_id)


def _seed(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value if type(value) is int else None
