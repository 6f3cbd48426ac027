"""A request's JSON body with its files as base64, written into one buffer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import attrs

from impasto import BrokenPlugin, File, FileRef, InvalidRequest, JSONValue, Problem, WireRequest
from impasto.ext import describe_error

from .form import parameter_of, too_large

try:
    from pybase64 import b64encode
except ImportError:  # part of the extras that need its speed
    from base64 import b64encode  # type: ignore[assignment]  # their optional arguments differ

_PIECE = 3 * 2**18  # a multiple of 3: pieces of base64 join without padding


@attrs.frozen
class JSONBody:
    """The body of one attempt: ``texts``, and between each two of them one of ``files``, with its name."""

    wire: WireRequest
    texts: Sequence[bytes]
    files: Sequence[tuple[str, File]]

    @classmethod
    def of(cls, wire: WireRequest) -> JSONBody:
        """Return a request's body, without reading its files. Raises InvalidRequest if it is too long, BrokenPlugin."""
        refs = {name: FileRef(file) for name, file in wire.files}
        if len(refs) < len(wire.files) or (refs and not refs.keys().isdisjoint(wire.fields)):
            raise BrokenPlugin("a JSON body can't have two values of one name; put a list of FileRef into fields")
        mark = secrets.token_hex(16)  # unknown to callers, so no text of theirs contains it
        files: list[tuple[str, File]] = []
        try:
            fields = _mark_files({**wire.fields, **refs}, "", mark, files)
            text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            texts = [part.encode() for part in text.replace(f'"{mark}', '"').split(mark)]
        except (TypeError, ValueError, RecursionError) as error:
            advice = "give text, numbers, true, false, None, lists, mappings and FileRef"
            raise BrokenPlugin(f"a plugin's fields are not JSON ({describe_error(error)}); {advice}") from None
        body = cls(wire, texts, files)
        if wire.max_bytes is not None and body.size > wire.max_bytes:
            raise too_large(wire, body.size, files)
        return body

    @property
    def size(self) -> int:
        """The bytes of the whole body."""
        return sum(map(len, self.texts)) + sum(4 * -(-file.size // 3) for _, file in self.files)

    def encode(self) -> bytearray:
        """Return the whole body. Files are read in pieces. Raises InvalidRequest before anything is sent."""
        body = bytearray(self.texts[0])
        for (name, file), text in zip(self.files, self.texts[1:], strict=True):
            try:
                with file.open() as source:
                    size = 0
                    while piece := _read(source, _PIECE):
                        size += len(piece)
                        body += b64encode(piece)
                if size != file.size:
                    raise ValueError(f"it has {size:,} bytes and had {file.size:,}")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                problem = Problem(parameter_of(self.wire, file, name), f"can't be read again: {reason}")
                raise InvalidRequest([problem]) from None
            body += text
        return body


def _mark_files(value: JSONValue, name: str, mark: str, files: list[tuple[str, File]]) -> JSONValue:
    """Return the value with two marks in place of each file; between them is the beginning of its text.

    ``files`` gets each file with the name of its field.
    """
    if isinstance(value, FileRef):
        files.append((name, value.file))
        return mark + (f"data:{value.file.media_type};base64," if value.data_url else "") + mark
    if isinstance(value, Mapping):
        return {key: _mark_files(each, key, mark, files) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return [_mark_files(each, name, mark, files) for each in value]
    return value


def _read(source: BinaryIO, size: int) -> bytes:
    """Read exactly ``size`` bytes, except at the end: a piece in the middle must not be padded."""
    pieces = bytearray()
    while len(pieces) < size and (more := source.read(size - len(pieces))):
        pieces += more
    return bytes(pieces)
