"""A request's JSON body with its files as base64, written into one buffer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import attrs
from aiohttp.abc import AbstractStreamWriter

from impasto import BrokenPlugin, FileRef, InvalidRequest, JSONValue, Problem, WireRequest

from .form import Outgoing

try:
    from pybase64 import b64encode
except ImportError:  # part of the extras that need its speed
    from base64 import b64encode  # type: ignore[assignment]  # their optional arguments differ

_PIECE = 3 * 2**18  # a multiple of 3: pieces of base64 join without padding


@attrs.frozen
class JSONBody:
    """The body of one attempt: ``texts``, and between each two of them one of ``files``, with its name."""

    texts: Sequence[bytes]
    files: Sequence[tuple[str, FileRef]]

    @classmethod
    def of(cls, wire: WireRequest) -> JSONBody:
        """Return a request's body, without reading its files. Raises InvalidRequest if it is too long, BrokenPlugin."""
        if len(refs := {name: FileRef(file) for name, file in wire.files}) < len(wire.files):
            raise BrokenPlugin("a JSON body can't have two files of one name; give a list of FileRef in fields")
        mark = secrets.token_hex(16)  # unknown to callers, so no text of theirs contains it
        files: list[tuple[str, FileRef]] = []
        try:
            fields = _mark_files({**wire.fields, **refs}, "", mark, files)
            text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            texts = [part.encode() for part in text.replace(f'"{mark}', '"').split(f"{mark}")]
        except (TypeError, ValueError, RecursionError) as error:
            raise BrokenPlugin(f"a plugin's fields are not JSON: {error}") from None
        body = cls(texts, files)
        if wire.max_bytes is not None and body.size > wire.max_bytes:
            largest = max(files, key=lambda each: each[1].file.size, default=("prompt", None))[0]
            problem = f"the whole request may have {wire.max_bytes:,} bytes and has {body.size:,}"
            raise InvalidRequest([Problem(largest, f"{problem}; give a smaller {largest}")])
        return body

    @property
    def size(self) -> int:
        """The bytes of the whole body."""
        return sum(map(len, self.texts)) + sum(4 * -(-ref.file.size // 3) for _, ref in self.files)

    def encode(self) -> bytearray:
        """Return the whole body. Files are read in pieces. Raises InvalidRequest before anything is sent."""
        body = bytearray(self.texts[0])
        for (name, ref), text in zip(self.files, self.texts[1:], strict=True):
            try:
                with ref.file.open() as source:
                    while piece := _read(source, _PIECE):
                        body += b64encode(piece)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise InvalidRequest([Problem(name, f"can't be read again: {reason}")]) from None
            body += text
        return body


def _mark_files(value: JSONValue, name: str, mark: str, files: list[tuple[str, FileRef]]) -> JSONValue:
    """Return the value with a text in place of each file, whose name is that of its field."""
    if isinstance(value, FileRef):
        files.append((name, value))
        return mark + (f"data:{value.file.media_type};base64," if value.data_url else "") + mark
    if isinstance(value, Mapping):
        return {key: _mark_files(each, key, mark, files) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_mark_files(each, name, mark, files) for each in value]
    return value


def _read(source: BinaryIO, size: int) -> bytes:
    """Read exactly ``size`` bytes, except at the end: a piece in the middle must not be padded."""
    pieces = bytearray()
    while len(pieces) < size and (more := source.read(size - len(pieces))):
        pieces += more
    return bytes(pieces)


class MemoryPayload(Outgoing):
    """A body in memory, written in pieces without a copy."""

    def __init__(self, body: bytes | bytearray) -> None:
        super().__init__(body, content_type="application/json")
        self._body = body

    @property
    def size(self) -> int:
        """The bytes of the body."""
        return len(self._body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body in pieces, so that a slow connection applies backpressure, then report it."""
        with memoryview(self._body) as view:
            for at in range(0, len(view), 2**20):
                await writer.write(view[at : at + 2**20])
        self.on_written()
