"""A request's JSON body with its files as base64, written into one buffer."""

from __future__ import annotations

import json
from typing import BinaryIO

from aiohttp.abc import AbstractStreamWriter

from impasto import InvalidRequest, Problem, WireRequest

from .form import Outgoing

try:
    from pybase64 import b64encode
except ImportError:  # part of the extras that need its speed
    from base64 import b64encode  # type: ignore[assignment]  # their optional arguments differ

_PIECE = 3 * 2**18  # a multiple of 3: pieces of base64 join without padding


def json_body(wire: WireRequest) -> bytearray:
    """Return the body of one attempt. Files are read in pieces. Raises InvalidRequest before anything is sent."""
    body = bytearray(json.dumps(dict(wire.fields), ensure_ascii=False, separators=(",", ":")).encode())
    _check_length(wire, len(body))
    for name, file in wire.files.items():
        body[-1:] = b"," if len(body) > 2 else b""  # in place of the closing brace
        body += json.dumps(name).encode() + b':"'
        try:
            with file.open() as source:
                while piece := _read(source, _PIECE):
                    body += b64encode(piece)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidRequest([Problem(name, f"can't be read again: {reason}")]) from None
        body += b'"}'
    return body


def _check_length(wire: WireRequest, fields: int) -> None:
    """Refuse a body that will be too long, before anything is read. ``fields``: the bytes of the fields alone."""
    files = sum(len(f',"{name}":""') + 4 * -(-file.size // 3) for name, file in wire.files.items())
    total = fields + files - (1 if fields == 2 and files else 0)  # no comma before the first field
    if wire.max_bytes is not None and total > wire.max_bytes:
        largest = max(wire.files, key=lambda name: wire.files[name].size, default="prompt")
        problem = f"the whole request may have {wire.max_bytes:,} bytes and has {total:,}; give a smaller {largest}"
        raise InvalidRequest([Problem(largest, problem)])


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
