"""Reads a multipart body within a limit, and writes down what was in it."""

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

MOST_PARTS = 64
_PIECE = 1 << 18


class TooLarge(Exception):
    """The body has more bytes than it may."""


class NotAForm(Exception):
    """The body is no multipart form; the message says why, in the vendor's words."""


@attrs.frozen
class Part:
    """One part of a form. ``filename`` is None where it is a plain field."""

    data: bytes
    filename: str | None
    declared: str

    @property
    def is_file(self) -> bool:
        return self.filename is not None


Form = dict[str, Part]
"""Parts by name. Of a name that is repeated the last counts."""


async def read_form(request: web.Request, most: int) -> Form:
    """The parts of a multipart body of at most ``most`` bytes. Raises NotAForm or TooLarge."""
    kind = request.headers.get("content-type")
    if kind is None:
        raise NotAForm("content-type: required")
    named, _, options = kind.lower().partition(";")
    if named.strip() != "multipart/form-data" or "boundary=" not in options:
        raise NotAForm("content-type: must be multipart/form-data")
    if (request.content_length or 0) > most:
        raise TooLarge
    form: Form = {}
    try:
        reader = await request.multipart()
        count = 0
        while (part := await reader.next()) is not None:
            count += 1
            if not isinstance(part, BodyPartReader) or part.name is None:
                raise NotAForm("body: every part must be a named field or file")
            if count > MOST_PARTS:
                raise NotAForm(f"body: more than {MOST_PARTS} parts")
            data = bytearray()
            while piece := await part.read_chunk(_PIECE):
                data += piece
                if request.content.total_bytes > most:
                    raise TooLarge
            form[part.name] = Part(bytes(data), part.filename, part.headers.get("content-type", ""))
    except (ValueError, RuntimeError, AssertionError):  # all that aiohttp's reader makes of a damaged form
        raise NotAForm("body: is no well-formed multipart form") from None
    return form


def describe(part: Part) -> FilePart:
    """A file part as the account lists it. Looks at the picture's header."""
    file = File.of((part.filename, part.data))
    width = height = None
    if file.media_type in FORMATS:
        with suppress(OSError, SyntaxError, ValueError, EOFError, struct.error):  # no picture after all
            width, height = size_of(file)
    return FilePart(
        filename=part.filename or "",
        declared=part.declared,
        media_type=file.media_type,
        bytes=len(part.data),
        sha256=hashlib.sha256(part.data).hexdigest(),
        width=width,
        height=height,
    )
