"""Reads a multipart body within a limit, and records its content."""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress

import attrs
from aiohttp import BodyPartReader, web

from impasto import File
from impasto_plugins.emulator.state.charges import FilePart
from impasto_plugins.images.limits import FORMATS
from impasto_plugins.images.size import size_of

MAX_PARTS = 64
_CHUNK_BYTES = 1 << 18


class BodyTooLarge(Exception):
    """The body exceeds its limit."""


class InvalidMultipart(Exception):
    """The body is not a multipart form; the message gives the reason in the vendor's words."""


@attrs.frozen
class FormPart:
    """One part of a form. ``filename`` is None for a plain field."""

    data: bytes
    filename: str | None
    declared_type: str

    @property
    def is_file(self) -> bool:
        """True if the part has a file name."""
        return self.filename is not None


Form = dict[str, FormPart]
"""Parts by name. Of a repeated name the last counts."""


async def read_form(request: web.Request, max_bytes: int) -> Form:
    """Return the parts of a multipart body of at most ``max_bytes`` bytes. Raises InvalidMultipart or BodyTooLarge."""
    kind = request.headers.get("content-type")
    if kind is None:
        raise InvalidMultipart("content-type: required")
    media_type, _, options = kind.lower().partition(";")
    if media_type.strip() != "multipart/form-data" or "boundary=" not in options:
        raise InvalidMultipart("content-type: must be multipart/form-data")
    if (request.content_length or 0) > max_bytes:
        raise BodyTooLarge
    form: Form = {}
    try:
        reader = await request.multipart()
        count = 0
        while (part := await reader.next()) is not None:
            count += 1
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise InvalidMultipart("body: every part must be a named field or file")
            if count > MAX_PARTS:
                raise InvalidMultipart(f"body: more than {MAX_PARTS} parts")
            data = bytearray()
            while piece := await part.read_chunk(_CHUNK_BYTES):
                data += piece
                if request.content.total_bytes > max_bytes:
                    raise BodyTooLarge
            form[part.name] = FormPart(bytes(data), part.filename, part.headers.get("content-type", ""))
    except (ValueError, RuntimeError, AssertionError):  # aiohttp's reader raises these for an invalid form
        raise InvalidMultipart("body: invalid multipart form") from None
    return form


def describe_file(part: FormPart) -> FilePart:
    """Return the record of a file part. Reads the image's header."""
    file = File.of((part.filename, part.data))
    width = height = None
    if file.media_type in FORMATS:
        with suppress(OSError, SyntaxError, ValueError, EOFError, struct.error):  # not an image
            width, height = size_of(file)
    return FilePart(
        filename=part.filename or "",
        declared=part.declared_type,
        media_type=file.media_type,
        bytes=len(part.data),
        sha256=hashlib.sha256(part.data).hexdigest(),
        width=width,
        height=height,
    )
