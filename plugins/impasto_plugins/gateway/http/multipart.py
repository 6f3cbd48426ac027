"""multipart/form-data, read as it comes: strict, bounded, and never more in memory than a chunk and a delimiter."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import attrs

LONGEST_BOUNDARY = 70
"""Bytes; the standard's own limit."""

LONGEST_HEAD = 8 * 1024
_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))(?:;|\s*$)""", re.IGNORECASE)
_ALLOWED = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r';[ \t]*([A-Za-z]+)(\*?)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_PLAIN = ("7bit", "8bit", "binary")


class NotAForm(Exception):
    """The body is no multipart form; the message says why."""


@attrs.frozen
class Head:
    """What a part says of itself. ``filename`` is None where it is a plain field."""

    name: str
    filename: str | None


def boundary_of(content_type: str) -> bytes:
    """The boundary that a multipart content type names. Raises NotAForm."""
    found = _BOUNDARY.search(content_type)
    text = (found[1] or found[2]) if found is not None else ""
    if len(text) > LONGEST_BOUNDARY or _ALLOWED.fullmatch(text) is None:
        raise NotAForm(f"the content type names no boundary of 1 to {LONGEST_BOUNDARY} allowed characters")
    return text.encode()


class Parts:
    """The parts of a form, in their order: ``head()``, then ``body()`` to its end, and again until None."""

    def __init__(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        self._chunks = chunks
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like the others
        self._begun = False

    async def head(self) -> Head | None:
        """The next part's head; None where the form ends. Raises NotAForm."""
        buffer = self._buffer
        if not self._begun:
            self._begun = True
            await self._fill(len(self._delimiter))
            if not buffer.startswith(self._delimiter):
                raise NotAForm("the body does not begin with its boundary")
            del buffer[: len(self._delimiter)]
        await self._fill(2)
        if buffer.startswith(b"--"):
            async for _ in self._chunks:  # what stands behind a form is nothing
                pass
            return None
        if not buffer.startswith(b"\r\n"):
            raise NotAForm("a boundary does not end its line")
        while (end := buffer.find(b"\r\n\r\n")) < 0 and len(buffer) <= LONGEST_HEAD:
            await self._more()
        if not 0 <= end <= LONGEST_HEAD:
            raise NotAForm(f"a part's headers have more than {LONGEST_HEAD:,} bytes")
        lines = bytes(buffer[2:end])
        del buffer[: end + 4]
        return _head(lines)

    async def body(self) -> AsyncIterator[bytes]:
        """The part's content in pieces. Raises NotAForm where it is cut short."""
        buffer, delimiter = self._buffer, self._delimiter
        while (at := buffer.find(delimiter)) < 0:
            if (ready := len(buffer) - len(delimiter) + 1) > 0:
                piece = bytes(buffer[:ready])
                del buffer[:ready]
                yield piece
            await self._more()
        piece = bytes(buffer[:at])
        del buffer[: at + len(delimiter)]
        if piece:
            yield piece

    async def _fill(self, least: int) -> None:
        while len(self._buffer) < least:
            await self._more()

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._chunks)
        except StopAsyncIteration:
            raise NotAForm("the body is cut short") from None


def _head(lines: bytes) -> Head:
    try:
        text = lines.decode("utf-8")
    except UnicodeDecodeError:
        raise NotAForm("a part's headers are no UTF-8") from None
    headers: dict[str, str] = {}
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line or "\x00" in line:
            raise NotAForm("a part has a damaged header")
        if name.lower() in headers:
            raise NotAForm("a part has a header twice")
        headers[name.lower()] = value.strip()
    kind = headers.get("content-type", "").lower()
    if kind.startswith("multipart/"):
        raise NotAForm("a part is a multipart form itself")
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN:
        raise NotAForm("a part has a transfer encoding; send it as it is")
    disposition = headers.get("content-disposition", "")
    if disposition.partition(";")[0].strip().lower() != "form-data":
        raise NotAForm("every part must be a form's field or file")
    found = {m[1].lower() + m[2]: m[3] if m[3] is not None else m[4] for m in _PARAMETER.finditer(disposition)}
    if not found.get("name"):
        raise NotAForm("every part must have a name")
    filename = found.get("filename", found.get("filename*"))
    return Head(_unquoted(found["name"]), None if filename is None else _unquoted(filename))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
