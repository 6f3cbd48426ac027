"""multipart/form-data (RFC 7578), read as it comes: bounded, never more in memory than a chunk and a delimiter.

The library ``multipart`` refuses white space behind a boundary and, in its strict mode, a preamble, which RFC 2046
allows; aiohttp's reader decodes transfer encodings and has no bounds of its own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from urllib.parse import unquote

import attrs

LONGEST_BOUNDARY = 70
"""Bytes; the standard's own limit."""

LONGEST_HEAD = 8 * 1024
MOST_PADDING = 1024
"""Bytes of white space behind a boundary."""

_ALLOWED = re.compile(r"[0-9A-Za-z'()+_,./:=? -]*[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r""";[ \t]*([^\s;="]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))""")
_EXTENDED = re.compile(r"utf-8'[^']*'(.*)", re.IGNORECASE)
_PADDING = re.compile(rb"[ \t]*")
_PLAIN = ("7bit", "8bit", "binary")
_NOT_TEXT = ("image/", "audio/", "model/", "application/octet-stream")
_CHARSETS = {"": "utf-8", "utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "iso-8859-1": "latin-1"}
_IN_BROWSERS = {"%22": '"', "%0D": "\r", "%0A": "\n"}


class NotAForm(Exception):
    """The body is no multipart form; the message says why."""


@attrs.frozen
class Head:
    """A part's name and kind. ``filename`` is None for a plain field, which is text in ``charset``."""

    name: str
    filename: str | None
    charset: str = "utf-8"


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a multipart content type names. Raises NotAForm."""
    text = _parameters(content_type, escaped=".").get("boundary", "")
    if len(text) > LONGEST_BOUNDARY or _ALLOWED.fullmatch(text) is None:
        raise NotAForm(f"the content type names no boundary of 1 to {LONGEST_BOUNDARY} allowed characters")
    return text.encode()


class Parts:
    """The parts of a form, in their order: ``head()``, then ``body()`` to its end, and again until None."""

    def __init__(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        self._chunks = chunks
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter is like the others
        self._has_begun = False

    async def head(self) -> Head | None:
        """Return the next part's head; None if the form has ended. Raises NotAForm."""
        buffer = self._buffer
        if not self._has_begun:
            self._has_begun = True
            async for _ in self.body():  # a preamble, which means nothing
                pass
        await self._fill(2)
        if buffer.startswith(b"--"):
            async for _ in self._chunks:  # an epilogue, which means nothing
                pass
            return None
        while (padding := _PADDING.match(buffer)) is not None and len(buffer) < padding.end() + 2:
            if len(buffer) > MOST_PADDING:
                break
            await self._more()
        assert padding is not None  # noqa: S101 - it matches nothing too
        del buffer[: padding.end()]
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
        """Yield the part's content in pieces. Raises NotAForm if it is cut short."""
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
    text = lines.decode("utf-8", "replace")  # a file's name in another encoding means nothing here
    headers: dict[str, str] = {}
    for line in re.sub(r"\r\n(?=[ \t])", "", text).split("\r\n"):  # a header may go on in the next line
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or re.search("[\r\n\0]", line):
            raise NotAForm("a part has a damaged header")
        if name.lower() in headers:
            raise NotAForm("a part has a header twice")
        headers[name.lower()] = value.strip(" \t")
    kind = headers.get("content-type", "")
    if kind.lower().startswith("multipart/"):
        raise NotAForm("a part is a multipart form itself")
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN:
        raise NotAForm("a part has a transfer encoding; send it as it is")
    disposition = headers.get("content-disposition", "")
    if disposition.partition(";")[0].strip().lower() != "form-data":
        raise NotAForm("every part must be a form's field or file")
    found = _parameters(disposition)
    if not found.get("name"):
        raise NotAForm("every part must have a name")
    filename = found.get("filename", "" if kind.lower().startswith(_NOT_TEXT) else None)
    if (extended := _EXTENDED.fullmatch(found.get("filename*", ""))) is not None:
        filename = unquote(extended[1], errors="replace")
    if filename is not None:
        return Head(_as_in_browsers(found["name"]), _as_in_browsers(filename))
    charset = _parameters(kind).get("charset", "").lower()
    if charset not in _CHARSETS:
        raise NotAForm("a field's charset must be utf-8, us-ascii or iso-8859-1")
    return Head(_as_in_browsers(found["name"]), None, _CHARSETS[charset])


def _parameters(header: str, *, escaped: str = r"""["\\]""") -> Mapping[str, str]:
    """Return a header's parameters, their names in small letters. Raises NotAForm if one is given twice.

    ``escaped``: a pattern of what a backslash escapes. In a file's name browsers escape with it nothing else.
    """
    found: dict[str, str] = {}
    for name, quoted, token in _PARAMETER.findall(header):
        if name.lower() in found:
            raise NotAForm("a header has a parameter twice")
        found[name.lower()] = re.sub(rf"\\({escaped})", r"\1", quoted) or token.strip()
    return found


def _as_in_browsers(text: str) -> str:
    """Return a name without the escapes that the HTML standard has for it."""
    return re.sub("%22|%0D|%0A", lambda found: _IN_BROWSERS[found[0]], text)
