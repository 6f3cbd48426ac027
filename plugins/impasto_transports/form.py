"""multipart/form-data as the providers take it: always multipart, files sent as they are read."""

from __future__ import annotations

import asyncio
import io
from contextlib import ExitStack
from decimal import Decimal
from typing import BinaryIO

from aiohttp import MultipartWriter, Payload, StringPayload
from aiohttp.abc import AbstractStreamWriter

from impasto import File, InvalidRequest, Problem, WireRequest

_PIECE = 1 << 20
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "audio/mpeg": "mp3", "audio/wav": "wav"}


async def opened_form(wire: WireRequest, files: ExitStack) -> MultipartWriter:
    """``make_form``, in a thread where files of the disk are opened."""
    if not any(file.on_disk for file in wire.files.values()):
        return make_form(wire, files)
    opening = asyncio.ensure_future(asyncio.to_thread(make_form, wire, files))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])  # its readers are in ``files`` then, which the caller closes
        raise


def make_form(wire: WireRequest, files: ExitStack) -> MultipartWriter:
    """The form of one attempt; its readers are closed by ``files``. Raises InvalidRequest, before any socket."""
    form = MultipartWriter("form-data")
    for name, value in wire.fields.items():
        part: Payload = StringPayload(decimal_text(value))
        part.set_content_disposition("form-data", name=name)
        form.append_payload(part)
    for name, file in wire.files.items():
        part = _FilePayload(_reader(name, file, files), file)
        part.set_content_disposition(
            "form-data", name=name, filename=f"{name}.{_EXTENSIONS.get(file.media_type, 'bin')}"
        )
        form.append_payload(part)
    size = form.size
    if wire.max_bytes is not None and size is not None and size > wire.max_bytes:
        largest = max(wire.files, key=lambda name: wire.files[name].size, default="prompt")
        problem = f"the whole request may have {wire.max_bytes:,} bytes and has {size:,}; give a smaller {largest}"
        raise InvalidRequest([Problem(largest, problem)])
    return form


def decimal_text(value: str | float) -> str:
    """A field's value as the wire wants it: numbers as decimal text without an exponent."""
    if isinstance(value, float):
        text = repr(value)
        return format(Decimal(text), "f") if "e" in text else text
    return str(value)


def _reader(name: str, file: File, files: ExitStack) -> BinaryIO:
    try:
        return files.enter_context(file.open())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest([Problem(name, f"can't be read again: {reason}")]) from None


class _FilePayload(Payload):
    """A file part, read in pieces: from memory at once, from disk in a thread."""

    _autoclose = True

    def __init__(self, reader: BinaryIO, file: File) -> None:
        super().__init__(reader, content_type=file.media_type)
        self._reader = reader
        self._length = file.size

    @property
    def size(self) -> int:
        return self._length

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a file part is bytes")

    async def write(self, writer: AbstractStreamWriter) -> None:
        reader = self._reader
        if isinstance(reader, io.BytesIO):
            view = memoryview(reader.getvalue())  # no copy, and no hold on the reader, which may be closed before
            for at in range(0, self._length, _PIECE):
                await writer.write(view[at : at + _PIECE])
            return
        left = self._length
        while left > 0:
            piece = await asyncio.to_thread(reader.read, min(_PIECE, left))
            if not piece:
                raise OSError("the file became shorter while it was sent")
            left -= len(piece)
            await writer.write(piece)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await self.write(writer)
