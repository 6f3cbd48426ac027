"""The images of answers, and small ones of each media type that replace them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from contextlib import suppress

import attrs

from impasto.dialects import decode_base64
from impasto.files import media_type_of

from .recorder import Answer

_ENCODED = {
    "image/png": "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGUlEQVR4nGNkaGhgIAUwkaR6VMOohiGlAQBBvQEg5hFlkQAA"
    "AABJRU5ErkJggg==",
    "image/jpeg": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAP//////////////////////////////////////////////////////////////"
    "////////////////////////2wBDAf//////////////////////////////////////////////////////////////////"
    "////////////////////wAARCAAQABADASIAAhEBAxEB/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAA"
    "AAAAAAD/xAAVAQEBAAAAAAAAAAAAAAAAAAAAAv/EABQRAQAAAAAAAAAAAAAAAAAAAAD/2gAMAwEAAhEDEQA/AACR/9k=",
    "image/webp": "UklGRhwAAABXRUJQVlA4TA8AAAAvD8ADAAcQUcD+ByKi/wEA",
}
_SHORTEST = 32
"""Characters of a text that may be an image in base64."""
_DATA_URL = re.compile(rb"data:image/[a-z]+;base64,")
SAMPLES: Mapping[str, bytes] = {media_type: base64.b64decode(text) for media_type, text in _ENCODED.items()}


def with_image(answer: Answer, image: bytes, media_type: str) -> Answer | None:
    """Return an answer with a sample in place of its image, as bytes or in base64, or None if it is not in there."""
    sample = SAMPLES[media_type]
    if answer.body == image:
        return attrs.evolve(answer, body=sample).with_headers(content_type=media_type)
    encoded = base64.b64encode(image)
    if image and encoded in answer.body:
        body = _DATA_URL.sub(f"data:{media_type};base64,".encode(), answer.body)
        return attrs.evolve(answer, body=body.replace(encoded, base64.b64encode(sample)))
    return None


def images_in(body: bytes) -> list[bytes]:
    """Return the images of an answer: the body, or those in base64 in its JSON."""
    found: list[bytes] = [body]
    with suppress(ValueError, RecursionError):
        values = [json.loads(body)]
        while values:
            match values.pop():
                case str() as text if len(text) > _SHORTEST:
                    with suppress(ValueError):
                        found.append(decode_base64(text))
                case dict() as mapping:
                    values += mapping.values()
                case list() as several:
                    values += several
    return [each for each in found if str(media_type_of(each[:16])).startswith("image/")]
